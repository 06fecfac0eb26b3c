"""Break-glass over HTTP: an operator asks, an owner allows, the operator sees it; the owner sees all of that."""

import base64

from keepless.content import Content, Purpose
from keepless.incidents.container import pack
from keepless.policy.data_class import DataClass
from tests.support.platform import Platform

ASKED = {"reason": "reliability", "reference": "ticket 12", "minutes": 15}


def captured(here: Platform) -> str:
    packed = pack({"status": 502}, Content(b"MARKER question"), Content(b""))
    return here.put(data=packed.reveal(Purpose.SEAL)).id


def test_the_whole_way(here: Platform) -> None:
    object_id, named = captured(here), {"organization_id": here.organization_id}
    seen = here.json("GET", f"/organization/captures?organization_id={here.organization_id}", key="operator")
    assert [one["id"] for one in seen["data"]] == [object_id]
    assert "MARKER" not in str(seen)
    path = f"/organization/captures/{object_id}"
    asked = here.json("POST", f"{path}/open_requests", ASKED | named, key="operator")
    assert (asked["state"], asked["reference"]) == ("requested", "ticket 12")
    listed = here.json("GET", "/organization/open_requests")["data"]
    assert listed == here.json("GET", f"{path}/open_requests")["data"] == [asked]
    content = f"{path}/content?open_request={asked['id']}&organization_id={here.organization_id}"
    assert here.error("GET", content, key="operator") == (403, "insufficient_permissions")
    decide = f"/organization/open_requests/{asked['id']}"
    assert here.error("POST", f"{decide}/approve", named, key="operator") == (403, "insufficient_permissions")
    assert here.json("POST", f"{decide}/approve", {})["state"] == "approved"
    shown = here.json("GET", content, key="operator")
    assert base64.b64decode(shown["request"]) == b"MARKER question"
    assert (shown["answer"], shown["content"], shown["facts"]["status"]) == ("", None, 502)
    assert here.error("GET", f"{path}/content?open_request={asked['id']}") == (403, "insufficient_permissions")
    assert here.json("GET", decide)["accesses"] == 1
    assert here.json("POST", f"{decide}/end", {})["state"] == "ended"
    assert here.error("GET", content, key="operator") == (403, "insufficient_permissions")


def test_an_owner_deletes_a_capture_and_nothing_else_there(here: Platform) -> None:
    object_id, file = captured(here), here.put(data_class=DataClass.BATCH_INPUT).id
    assert here.error("DELETE", f"/organization/captures/{file}") == (404, "not_found")
    assert here.error("GET", f"/organization/captures/{file}") == (404, "not_found")
    assert here.json("GET", f"/organization/captures/{object_id}")["reason"]
    assert here.json("DELETE", f"/organization/captures/{object_id}")["deleted"] is True
    assert here.error("GET", f"/organization/captures/{object_id}") == (404, "not_found")
    assert here.json("GET", f"/organization/retained_objects/{file}")["id"] == file


def test_a_refusal_and_what_is_not_there(here: Platform) -> None:
    object_id = captured(here)
    asked = here.json("POST", f"/organization/captures/{object_id}/open_requests", ASKED)
    named = {"organization_id": here.organization_id}
    assert here.json("POST", f"/organization/open_requests/{asked['id']}/refuse", named, key="operator")["state"] == (
        "refused"
    )
    assert here.error("POST", f"/organization/open_requests/{asked['id']}/approve", named, key="operator") == (
        400,
        "invalid_value",
    )
    wrong = ASKED | {"reason": "curiosity"}
    assert here.error("POST", f"/organization/captures/{object_id}/open_requests", wrong) == (400, "invalid_value")
    assert here.error("GET", f"/organization/captures/{object_id}/content?open_request=MARKER") == (404, "not_found")
