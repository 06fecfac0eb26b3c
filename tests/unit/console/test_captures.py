"""Captures as pages: owners see every one, nobody reads one alone, and what is shown is a text."""

import re

from keepless.accounts.roles import Role
from keepless.content import Content, Purpose
from keepless.incidents.container import pack
from tests.support.console import Console, text_of

EVIL = b"<script>alert(1)</script>"


def captured(here: Console) -> str:
    packed = pack({"status": 500}, Content(EVIL), Content(b"half"))
    return here.platform.put(data=packed.reveal(Purpose.SEAL)).id


def test_a_capture_is_opened_by_two_people(here: Console) -> None:
    object_id, own = captured(here), here.platform.organization_id
    page = here.page("/captures")
    assert object_id in page
    assert "Nobody ever asked" in text_of(page)
    form = {"reason": "reliability", "reference": "<b>t-1</b>", "minutes": "10", "organization": own}
    here.sign_in(Role.OPERATOR)
    assert object_id not in here.page("/captures")
    assert object_id in here.page(f"/captures?organization={own}")
    assert here.get(f"/captures/{object_id}").status == 404, "an operator says whose it is"
    for wrong in ({"reason": ""}, {"reason": "curiosity"}, {"reference": ""}, {"minutes": "61"}):
        assert here.post(f"/captures/{object_id}/openings", {**form, **wrong}).status == 400, wrong
    here.done(f"/captures/{object_id}/openings", form)
    page = here.page(f"/captures/{object_id}?organization={own}")
    assert "<b>t-1" not in page
    assert "/approve" not in page, "nobody approves himself"
    act = re.search(r'action="(/openings/open_[^/]+)/end"', page) or re.search(r'action="(/openings/[^/]+)/end"', page)
    assert act is not None
    whose = {"organization": own}
    assert here.post(f"{act[1]}/approve", whose).status == 403
    assert here.post(f"{act[1]}/show", whose).status == 403
    here.sign_in(Role.OWNER)
    assert "/approve" in here.page(f"/captures/{object_id}")
    here.done(f"{act[1]}/approve")
    assert here.post(f"{act[1]}/show").status == 403, "it was not asked for by this person"
    here.sign_in(Role.OPERATOR)
    shown = here.post(f"{act[1]}/show", whose)
    assert shown.status == 200
    assert shown.headers["cache-control"] == "no-store"
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in shown.body
    assert EVIL not in shown.body
    here.sign_in(Role.OWNER)
    here.done(f"{act[1]}/end")
    here.sign_in(Role.OPERATOR)
    assert here.post(f"{act[1]}/show", whose).status == 403
    here.sign_in(Role.OWNER)
    assert "Opened" in text_of(here.page("/audit"))


def test_readers_see_that_there_are_captures_and_ask_for_none(here: Console) -> None:
    object_id = captured(here)
    here.sign_in(Role.READER)
    page = here.page(f"/captures/{object_id}")
    assert "Ask to see it" not in page
    assert here.post(f"/captures/{object_id}/openings", {"reason": "abuse", "reference": "x"}).status == 403
    other = here.platform.other()
    assert here.get(f"/captures/{object_id}?organization={other['id']}").status == 200, "the own one, whatever is named"
