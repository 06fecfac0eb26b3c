"""Break-glass on both databases: two people, one hour, every access in the log before it is an access."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Problem
from keepless.governance.openings import MOST_MINUTES, OpeningRecord, Openings
from keepless.ids import Id, Prefix, mint
from keepless.incidents.container import pack
from keepless.incidents.states import OpeningReason, OpeningState
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.rows import Kept
from keepless.vault.states import Step
from tests.support.accounts import make_organization
from tests.support.sweeping import Stage, make_stage
from tests.support.vault import CrashError

MINUTE = 60_000


class World:
    """A capture, an owner, two operators."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.stage: Stage = make_stage(database, folder)
        self.clock = self.stage.rig.clock
        self.organization, self.project = make_organization(database)
        self.openings = Openings(database, self.clock, self.stage.rig.log, self.stage.rig.vault)
        self.owner = AdminPrincipal(mint(Prefix.ADMIN_KEY), self.organization, Role.OWNER)
        self.operator = AdminPrincipal(mint(Prefix.OPERATOR_KEY), None, Role.OPERATOR)
        self.second = AdminPrincipal(mint(Prefix.OPERATOR_KEY), None, Role.OPERATOR)
        self.capture = self.keep()

    def keep(self, **options: Any) -> Kept:
        packed = pack({"status": 500}, Content(b"the question"), Content(b"half an ans"))
        return self.stage.rig.put(self.organization, self.project, packed.reveal(Purpose.SEAL), **options)

    def ask(self, actor: AdminPrincipal | None = None, object_id: Id | None = None, **more: Any) -> OpeningRecord:
        asked = {"reason": OpeningReason.RELIABILITY, "reference": "ticket 12"} | more
        return self.openings.request(actor or self.operator, self.organization, object_id or self.capture.id, **asked)

    def show(self, actor: AdminPrincipal, opening: OpeningRecord, object_id: Id | None = None) -> bytes:
        found = self.openings.show(actor, self.organization, object_id or self.capture.id, opening.id)
        assert found.request is not None
        return found.request.reveal(Purpose.BREAK_GLASS)

    def refused(self, act: Any, *arguments: Any, **named: Any) -> int:
        with pytest.raises(Problem) as caught:
            act(*arguments, **named)
        return caught.value.status

    def said(self, kind: EntryKind) -> list[dict[str, Any]]:
        return self.stage.entries(kind)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def test_two_people_open_a_capture_and_the_log_tells_every_step(world: World) -> None:
    asked = world.ask(minutes=10)
    assert (asked.state, asked.accesses, asked.requested_role) == (OpeningState.REQUESTED, 0, Role.OPERATOR)
    assert world.refused(world.show, world.operator, asked) == 403
    approved = world.openings.approve(world.owner, world.organization, asked.id)
    assert (approved.state, approved.decided_by) == (OpeningState.APPROVED, world.owner.id)
    assert approved.ends_at == world.clock.now_ms() + 10 * MINUTE
    shown = world.openings.show(world.operator, world.organization, world.capture.id, asked.id)
    assert shown.request is not None
    assert shown.answer is not None
    assert shown.request.reveal(Purpose.BREAK_GLASS) == b"the question"
    assert shown.answer.reveal(Purpose.BREAK_GLASS) == b"half an ans"
    assert shown.facts["status"] == 500
    world.show(world.operator, asked)
    assert world.openings.get(world.organization, asked.id).accesses == 2
    ended = world.openings.end(world.owner, world.organization, asked.id)
    assert (ended.state, ended.ended_by) == (OpeningState.ENDED, world.owner.id)
    assert world.refused(world.show, world.operator, asked) == 403
    for kind, actor, times in (
        (EntryKind.OPENING_REQUESTED, world.operator, 1),
        (EntryKind.OPENING_APPROVED, world.owner, 1),
        (EntryKind.OPENED, world.operator, 2),
        (EntryKind.OPENING_ENDED, world.owner, 1),
    ):
        entries = world.said(kind)
        assert [(e["actor"], e["opening_id"], e["object_id"]) for e in entries] == [
            (actor.id, asked.id, world.capture.id)
        ] * times
        assert "ticket 12" not in str(entries)
    assert "the question" not in repr(shown)


def test_who_may_decide_for_whom(world: World) -> None:
    by_operator, by_owner = world.ask(), world.ask(world.owner)
    other_owner = replace(world.owner, id=mint(Prefix.ADMIN_KEY))
    approve, refuse = world.openings.approve, world.openings.refuse
    assert world.refused(approve, world.operator, world.organization, by_operator.id) == 403
    assert world.refused(refuse, world.operator, world.organization, by_operator.id) == 403
    assert world.refused(approve, world.owner, world.organization, by_owner.id) == 403
    assert world.refused(approve, other_owner, world.organization, by_owner.id) == 403  # two owners are no pair
    for role in (Role.DEVELOPER, Role.READER):
        small = AdminPrincipal(mint(Prefix.ADMIN_KEY), world.organization, role)
        assert world.refused(approve, small, world.organization, by_operator.id) == 403
        assert world.refused(world.ask, small) == 403
    stranger = AdminPrincipal(mint(Prefix.ADMIN_KEY), mint(Prefix.ORGANIZATION), Role.OWNER)
    assert world.refused(approve, stranger, world.organization, by_operator.id) == 404
    assert world.refused(world.ask, stranger) == 404
    assert world.openings.list(world.organization)
    assert {one.state for one in world.openings.list(world.organization)} == {OpeningState.REQUESTED}
    assert world.openings.approve(world.second, world.organization, by_operator.id).state is OpeningState.APPROVED
    assert world.openings.approve(world.operator, world.organization, by_owner.id).state is OpeningState.APPROVED


def test_content_is_for_who_asked_alone_and_for_that_object_alone(world: World) -> None:
    asked, other = world.ask(), world.keep()
    world.openings.approve(world.owner, world.organization, asked.id)
    for actor in (world.owner, world.second):
        assert world.refused(world.show, actor, asked) == 403
    assert world.refused(world.show, world.operator, asked, other.id) == 404
    assert world.show(world.operator, asked) == b"the question"
    assert len(world.said(EntryKind.OPENED)) == 1


def test_a_refused_request_stays_refused(world: World) -> None:
    asked = world.ask()
    assert world.openings.refuse(world.owner, world.organization, asked.id).state is OpeningState.REFUSED
    for act in (world.openings.approve, world.openings.refuse, world.openings.end):
        assert world.refused(act, world.owner, world.organization, asked.id) == 400
    assert world.refused(world.show, world.operator, asked) == 403
    assert len(world.said(EntryKind.OPENING_REFUSED)) == 1


def test_an_approval_lasts_an_hour_at_most_and_a_request_waits_a_day(world: World) -> None:
    asked, forgotten = world.ask(), world.ask()
    world.openings.approve(world.owner, world.organization, asked.id)
    world.clock.advance_ms(MOST_MINUTES * MINUTE - 1)
    assert world.show(world.operator, asked) == b"the question"
    world.clock.advance_ms(1)
    assert world.refused(world.show, world.operator, asked) == 403
    assert world.openings.end_lapsed() == 1
    assert world.openings.end_lapsed() == 0
    world.clock.advance_ms(24 * 60 * MINUTE)
    assert world.refused(world.openings.approve, world.owner, world.organization, forgotten.id) == 400
    assert world.openings.end_lapsed() == 1
    assert {one.state for one in world.openings.list()} == {OpeningState.ENDED}
    assert [e.get("actor") for e in world.said(EntryKind.OPENING_ENDED)] == [None, None]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"reference": ""}, "reference"),
        ({"reference": "x" * 81}, "reference"),
        ({"reference": "a\nb"}, "reference"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": 61}, "minutes"),
    ],
)
def test_what_is_typed_has_bounds(world: World, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as caught:
        world.ask(**wrong)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert world.openings.list() == []


def test_what_is_no_capture_opens_only_while_a_hold_keeps_it(world: World) -> None:
    file = world.stage.rig.put(world.organization, world.project, b"line", data_class=DataClass.BATCH_INPUT)
    assert world.refused(world.ask, object_id=file.id) == 404
    hold_id = world.stage.hold(world.organization)
    asked = world.ask(object_id=file.id)
    world.stage.rig.pass_days(31)  # ended: not served, but held
    asked = world.ask(object_id=file.id)
    world.openings.approve(world.owner, world.organization, asked.id)
    shown = world.openings.show(world.operator, world.organization, file.id, asked.id)
    assert shown.whole is not None
    assert shown.whole.reveal(Purpose.BREAK_GLASS) == b"line"
    assert (shown.request, shown.answer) == (None, None)
    world.stage.release(world.organization, hold_id)
    assert world.refused(world.openings.show, world.operator, world.organization, file.id, asked.id) == 404


def test_a_deleted_capture_opens_no_more(world: World) -> None:
    asked = world.ask()
    world.openings.approve(world.owner, world.organization, asked.id)
    world.stage.sweeper.delete_object(world.organization, world.capture.id)
    assert world.refused(world.show, world.operator, asked) == 404
    assert world.refused(world.ask) == 404
    assert world.said(EntryKind.OPENED) == []


def test_an_access_that_fails_after_its_entry_is_logged_and_shows_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = world.ask()
    world.openings.approve(world.owner, world.organization, asked.id)

    def killed(*_: object) -> None:
        raise CrashError(Step.BLOB)

    monkeypatch.setattr(world.stage.rig.vault, "read", killed)
    with pytest.raises(CrashError):
        world.show(world.operator, asked)
    assert len(world.said(EntryKind.OPENED)) == 1


def test_pages_follow_each_other(world: World) -> None:
    ids = {world.ask().id for _ in range(3)}
    first = world.openings.list(world.organization, object_id=world.capture.id, limit=2)
    rest = world.openings.list(world.organization, after=first[-1].id)
    assert {one.id for one in first + rest} == ids
    assert world.openings.list(mint(Prefix.ORGANIZATION)) == []
