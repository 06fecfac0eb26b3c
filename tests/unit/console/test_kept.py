"""What is kept, as a page: counts, the coming days, the list by key, one object's end and its receipt."""

import json
import re

from keepless.accounts.roles import Role
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.receipts.verify import Verified, verify_receipt
from tests.support.console import Console, text_of


def test_the_empty_state_says_that_nothing_is_kept(here: Console) -> None:
    page = here.page("/kept")
    assert "Nothing is kept" in text_of(page)
    assert "uplot" not in page


def test_the_list_is_paged_by_key_and_narrowed(here: Console) -> None:
    for _ in range(52):
        here.platform.put()
        here.platform.rig.clock.advance_ms(1)
    here.platform.put(data_class=DataClass.BATCH_INPUT)
    page = here.page("/kept")
    text = text_of(page)
    assert "53" in text
    assert "29 d 23 h" in text
    assert page.count("Delete…") == 50
    assert '"data": [[' in page.replace("&#34;", '"')
    following = re.search(r'rel="next" href="([^"]+)"', page)
    assert following is not None
    rest = here.page(following[1].replace("&amp;", "&"))
    assert rest.count("Delete…") == 3
    assert rest.count('rel="next"') == 0
    assert here.page("/kept?class=batch_input").count("Delete…") == 1
    assert here.page("/kept?held=yes").count("Delete…") == 0
    assert here.get("/kept?class=everything").status == 400
    assert here.get("/kept?after=obj_aaaaaaaaaaaaaaaaaaaaaaaa").status == 404


def test_an_object_ends_with_a_receipt_that_a_stranger_verifies(here: Console) -> None:
    kept = here.platform.put()
    page = here.page(f"/kept/{kept.id}")
    assert "it cannot be undone" in text_of(page).lower()
    assert here.post(f"/kept/{kept.id}/delete").status == 400
    where = here.done(f"/kept/{kept.id}/delete", {"confirm": "delete"})
    assert where.startswith("/receipts/rcpt_")
    page = here.page(where)
    assert f"keepless verify {where.split('/')[2].partition('?')[0]}.json --log-key log.vkey" in text_of(page)
    path = where.partition("?")[0]
    file = here.get(f"{path}/file")
    assert file.headers["content-disposition"].startswith("attachment")
    assert json.loads(file.body)["format"] == "keepless-receipt/1"
    verified = verify_receipt(file.body, here.platform.services.log.key)
    assert isinstance(verified, Verified), verified
    assert kept.id in here.page("/receipts")
    assert here.get(f"/kept/{kept.id}").status == 404


def test_a_hold_is_seen_and_keeps_what_it_covers(here: Console) -> None:
    kept = here.platform.put()
    here.sign_in(Role.OPERATOR)
    assert "Default" in here.page("/holds/new")
    form = {
        "organization": here.platform.organization_id,
        "reason": "litigation",
        "authority": "court_order",
        "reference": "<i>1:26-cv-1</i>",
        "review": "2027-06-01",
    }
    for missing in form:
        assert here.post("/holds/new", {**form, missing: ""}).status == 400, missing
    assert here.done("/holds/new", form) == "/holds?done=hold_placed"
    hold = re.search(r'href="(/holds/hold_[^"]+)"', here.page("/holds"))
    assert hold is not None
    here.sign_in(Role.OWNER)
    page = here.page("/holds")
    assert "<i>" not in page
    assert "in place" in text_of(page)
    assert "held" in here.page("/kept")
    refused = here.post(f"/kept/{kept.id}/delete", {"confirm": "delete"})
    assert refused.status == 423
    assert b"hold_" in refused.body
    path = hold[1].partition("?")[0]
    assert "Release it" not in here.page(path)
    assert here.post(f"{path}/release", {"confirm": "release"}).status == 403
    here.sign_in(Role.OPERATOR)
    assert here.get(path).status == 404, "an operator says whose it is"
    own = here.platform.organization_id
    assert here.done(f"{path}/release", {"confirm": "release", "organization": own}) == "/holds?done=hold_released"
    here.sign_in(Role.OWNER)
    assert here.done(f"/kept/{kept.id}/delete", {"confirm": "delete"}).startswith("/receipts/")


def test_another_organizations_things_are_not_there(here: Console) -> None:
    other = here.platform.other()
    theirs = here.platform.put(Id(other["id"]), Id(other["project_id"]))
    assert here.get(f"/kept/{theirs.id}").status == 404
    assert here.post(f"/kept/{theirs.id}/delete", {"confirm": "delete"}).status == 404
    here.platform.services.sweeper.delete_object(theirs.organization_id, theirs.id)
    assert theirs.id not in here.page("/receipts")
