"""Legal holds over HTTP: operators place and release, owners see them."""

from keepless.ids import Prefix, mint
from tests.support.platform import Platform

HOLDS = "/organization/legal_holds"


def order(here: Platform, **scope: object) -> dict[str, object]:
    return {
        "organization_id": here.organization_id,
        "reason": "regulator_request",
        "authority": "regulator",
        "reference": "case 4711",
        "review_at": here.rig.clock.now_ms() // 1000 + 86_400,
        **scope,
    }


def test_a_hold_from_placing_to_release(anywhere: Platform) -> None:
    kept = anywhere.put()
    body = order(anywhere, **{"class": "reliability_log"})
    placed = anywhere.json("POST", HOLDS, body, key="operator")
    assert placed["object"] == "organization.legal_hold"
    assert {name: placed[name] for name in body} == body
    assert (placed["released_at"], placed["objects"]) == (None, 1)
    for key, query in (("owner", ""), ("operator", ""), ("operator", f"?organization_id={anywhere.organization_id}")):
        assert [h["id"] for h in anywhere.json("GET", HOLDS + query, key=key)["data"]] == [placed["id"]]
    assert anywhere.json("GET", f"{HOLDS}/{placed['id']}") == placed
    changed = anywhere.json("POST", "/organization/data_controls", {"zero_data_retention": True})
    anywhere.services.sweeper.sweep_once(confirm=True)
    purge = anywhere.json("GET", f"/organization/purges/{changed['purge_id']}")
    assert (purge["state"], purge["held"], purge["holds"]) == ("partial", 1, [placed["id"]])
    query = f"?organization_id={anywhere.organization_id}"
    released = anywhere.json("DELETE", f"{HOLDS}/{placed['id']}{query}", key="operator")
    assert released["released_at"] is not None
    assert anywhere.json("GET", HOLDS)["data"] == []
    assert len(anywhere.json("GET", f"{HOLDS}?include_released=true")["data"]) == 1
    anywhere.services.sweeper.sweep_once(confirm=True)
    assert anywhere.json("GET", f"/organization/purges/{changed['purge_id']}")["state"] == "done"
    assert anywhere.error("GET", f"/organization/retained_objects/{kept.id}") == (404, "not_found")


def test_bad_orders(here: Platform) -> None:
    bad = (
        ({"reason": "MARKER"}, "invalid_value"),
        ({"reference": "x" * 81}, "invalid_value"),
        ({"reference": "a\tb"}, "invalid_value"),
        ({"review_at": 1}, "invalid_value"),
        ({"created_from": 5, "created_to": 5}, "invalid_value"),
        ({"everything": True}, "unknown_parameter"),
    )
    for wrong, code in bad:
        assert here.error("POST", HOLDS, order(here, **wrong), key="operator") == (400, code)
    for scope in ({"project_id": mint(Prefix.PROJECT)}, {"object_id": mint(Prefix.OBJECT)}):
        assert here.error("POST", HOLDS, order(here, **scope), key="operator") == (404, "not_found")
    body = order(here)
    del body["organization_id"]
    assert here.error("POST", HOLDS, body, key="operator") == (400, "missing_required_parameter")
    assert here.error("DELETE", f"{HOLDS}/{mint(Prefix.HOLD)}", key="operator") == (400, "missing_required_parameter")
