"""Who a person is: one answer for whatever is wrong, links used once, sessions that end when they should."""

import contextlib
from threading import Barrier, Thread

import pytest
import sqlalchemy as sa

from keepless.accounts.keys import digest_of
from keepless.accounts.people_tables import Method, session, sign_in_link, sign_in_try
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.accounts.sessions import ABSOLUTE_MS, IDLE_MS, LINK_MS, MOST_TRIES, RECENT_MS, TRIES_MS
from keepless.errors import Code, Problem
from keepless.governance import sign_in as module
from keepless.governance.change import may_loosen
from keepless.governance.sign_in import Opened, SignIn
from keepless.ids import Id, Prefix, mint
from keepless.receipts.statement import EntryKind
from tests.support.clock import FakeClock
from tests.support.governed import Deployment

OWNER = "owner@example.com"


def signed_in(here: Deployment, entry: SignIn) -> Opened:
    return entry.by_password(OWNER, here.initial.owner_password)


def wait(here: Deployment, ms: int) -> None:
    assert isinstance(here.clock, FakeClock)
    here.clock.advance_ms(ms)


def refused(entry: SignIn, email: str, password: str) -> tuple[int, str, str]:
    with pytest.raises(Problem) as caught:
        entry.by_password(email, password)
    return caught.value.status, caught.value.code, caught.value.message


def test_a_session_is_its_member_and_stands_nowhere_in_plain(here: Deployment, entry: SignIn) -> None:
    opened = entry.by_password("  Owner@Example.COM ", here.initial.owner_password)
    found = entry.session(opened.secret)
    assert found is not None and found.method is Method.PHRASE
    principal = found.principal
    assert (principal.id, principal.organization_id, principal.role) == (
        opened.person.id,
        here.organization_id,
        Role.OWNER,
    )
    with here.database.read() as tx:
        row = tx.execute(sa.select(session)).one()
    assert bytes(row.digest) == digest_of(opened.secret.encode())
    assert opened.secret not in repr(opened) and opened.secret not in repr(found) and opened.secret not in repr(row)
    assert here.kinds(EntryKind.SIGNED_IN) == [EntryKind.SIGNED_IN]


def test_what_is_wrong_is_not_said_and_costs_the_same_work(
    here: Deployment, entry: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.access.add_member(here.owner, here.organization_id, email="elsewhere@example.com", role=Role.READER)
    hashed: list[str] = []

    def counted(stored: str, _: str) -> bool:
        hashed.append(stored)
        return False

    monkeypatch.setattr(module, "password_matches", counted)
    answers, entries = set(), []
    for email in (OWNER, "nobody@example.com", "elsewhere@example.com", "", "x" * 5000):
        before = len(hashed), len(here.kinds())
        answers.add(refused(entry, email, "a wrong password"))
        assert len(hashed) == before[0] + 1
        entries.append(len(here.kinds()) - before[1])
    assert len(answers) == 1 and answers.pop()[:2] == (401, Code.SIGN_IN_REFUSED)
    assert entries == [1] * 5


def test_an_endless_password_is_not_hashed_as_it_is(here: Deployment, entry: SignIn) -> None:
    assert refused(entry, OWNER, here.initial.owner_password + "x" * 100_000)[0] == 401


@pytest.mark.parametrize("email", [OWNER, "nobody@example.com"], ids=["known", "unknown"])
def test_guessing_is_slowed_down_whoever_it_is(
    here: Deployment, entry: SignIn, monkeypatch: pytest.MonkeyPatch, email: str
) -> None:
    monkeypatch.setattr(module, "password_matches", lambda *_: False)
    answers = [refused(entry, email, "guess")[0] for _ in range(MOST_TRIES + 2)]
    assert answers == [401] * MOST_TRIES + [429] * 2
    assert len(here.kinds(EntryKind.SIGN_IN_REFUSED)) == MOST_TRIES  # a flood fills no log
    wait(here, TRIES_MS)
    assert refused(entry, email, "guess")[0] == 401


def test_what_is_counted_does_not_tell_who(here: Deployment, entry: SignIn) -> None:
    refused(entry, "typed-into-the-wrong-field", "guess")
    with here.database.read() as tx:
        row = tx.execute(sa.select(sign_in_try)).one()
    assert 0 <= row.bucket < 2**16


def test_a_success_takes_back_its_own_try_alone(here: Deployment, entry: SignIn) -> None:
    for _ in range(MOST_TRIES + 3):
        signed_in(here, entry)
    refused(entry, OWNER, "guess")
    signed_in(here, entry)
    with here.database.read() as tx:
        assert tx.scalar(sa.select(sign_in_try.c.tries)) == 1


def test_a_session_ends_idle_and_absolutely(here: Deployment, entry: SignIn) -> None:
    opened = signed_in(here, entry)
    wait(here, IDLE_MS - 1)
    assert entry.session(opened.secret) is not None
    wait(here, IDLE_MS)
    assert entry.session(opened.secret) is None
    opened = signed_in(here, entry)
    for _ in range(ABSOLUTE_MS // (IDLE_MS // 2) - 1):
        wait(here, IDLE_MS // 2)
        assert entry.session(opened.secret) is not None
    wait(here, IDLE_MS // 2)
    assert entry.session(opened.secret) is None


def test_an_owner_may_loosen_for_five_minutes(here: Deployment, entry: SignIn) -> None:
    opened = signed_in(here, entry)
    found = entry.session(opened.secret)
    assert found is not None
    now_ms = here.clock.now_ms()
    assert may_loosen(found.principal, now_ms + RECENT_MS - 1)
    assert not may_loosen(found.principal, now_ms + RECENT_MS)
    wait(here, RECENT_MS)
    again = entry.again_by_password(found, here.initial.owner_password, opened.secret)
    assert entry.session(opened.secret) is None and again.secret != opened.secret
    renewed = entry.session(again.secret)
    assert renewed is not None and may_loosen(renewed.principal, here.clock.now_ms())


def test_nobody_but_an_owner_may_loosen(here: Deployment, entry: SignIn) -> None:
    for role in (Role.DEVELOPER, Role.READER, Role.AUDITOR):
        email = f"{role}@example.com"
        here.access.add_member(here.owner, here.organization_id, email=email, role=role, password="a long password")
        found = entry.session(entry.by_password(email, "a long password").secret)
        assert found is not None and found.principal.role is role
        assert not may_loosen(found.principal, here.clock.now_ms())


def test_signing_in_again_takes_the_same_person(here: Deployment, entry: SignIn) -> None:
    here.access.add_member(
        here.owner, here.organization_id, email="other@example.com", role=Role.READER, password="another password"
    )
    opened = signed_in(here, entry)
    found = entry.session(opened.secret)
    assert found is not None
    with pytest.raises(Problem):
        entry.again_by_password(found, "another password", opened.secret)
    assert entry.session(opened.secret) is not None


def test_a_removed_member_is_nobody_at_once(here: Deployment, entry: SignIn) -> None:
    made = here.access.add_member(
        here.owner, here.organization_id, email="gone@example.com", role=Role.OWNER, password="a long password"
    )
    opened = entry.by_password("gone@example.com", "a long password")
    link = entry.link_for(here.owner, here.organization_id, made.id)
    here.access.remove_member(here.owner, here.organization_id, made.id)
    assert entry.session(opened.secret) is None
    with pytest.raises(Problem):
        entry.by_link(link)
    with here.database.read() as tx:
        for gone in (session, sign_in_link):
            assert tx.execute(sa.select(gone).where(gone.c.member_id == made.id)).all() == []


def test_members_of_a_deleted_organization_are_nobody(here: Deployment, entry: SignIn) -> None:
    opened = signed_in(here, entry)
    here.organizations.delete(here.operator, here.organization_id)
    assert entry.session(opened.secret) is None
    assert refused(entry, OWNER, here.initial.owner_password)[0] == 401


def test_a_member_removed_while_the_password_is_hashed_stays_out(
    here: Deployment, entry: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = here.access.add_member(
        here.owner, here.organization_id, email="gone@example.com", role=Role.READER, password="a long password"
    )

    def meanwhile(*_: str) -> bool:
        here.access.remove_member(here.owner, here.organization_id, made.id)
        return True

    monkeypatch.setattr(module, "password_matches", meanwhile)
    assert refused(entry, "gone@example.com", "a long password")[0] == 401


def test_a_link_opens_one_session(here: Deployment, entry: SignIn) -> None:
    made = entry.local_link()
    assert made is not None and made[1].email == OWNER
    opened = entry.by_link(made[0])
    found = entry.session(opened.secret)
    assert found is not None and found.method is Method.LINK
    with pytest.raises(Problem) as caught:
        entry.by_link(made[0])
    assert caught.value.status == 401
    with here.database.read() as tx:
        assert tx.execute(sa.select(sign_in_link)).all() == []


def test_of_two_at_once_a_link_lets_one_in(here: Deployment, entry: SignIn) -> None:
    made = entry.local_link()
    assert made is not None
    secret, start, inside = made[0], Barrier(4), []

    def use() -> None:
        start.wait()
        with contextlib.suppress(Problem):
            inside.append(entry.by_link(secret))

    threads = [Thread(target=use) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(inside) == 1


def test_a_link_ends(here: Deployment, entry: SignIn) -> None:
    made = entry.local_link()
    assert made is not None
    wait(here, LINK_MS)
    with pytest.raises(Problem):
        entry.by_link(made[0])


def test_a_link_sets_a_password_and_ends_what_was_open(here: Deployment, entry: SignIn) -> None:
    before = signed_in(here, entry)
    made = entry.local_link(OWNER)
    assert made is not None
    with pytest.raises(Problem) as caught:
        entry.by_link(made[0], password="short")
    assert caught.value.param == "password"
    opened = entry.by_link(made[0], password="an entirely new one")
    assert entry.session(before.secret) is None and entry.session(opened.secret) is not None
    assert refused(entry, OWNER, here.initial.owner_password)[0] == 401
    entry.by_password(OWNER, "an entirely new one")
    assert here.kinds(EntryKind.PROOF_CHANGED) == [EntryKind.PROOF_CHANGED]


def test_links_are_made_by_owners_for_their_own(here: Deployment, entry: SignIn) -> None:
    other = here.organizations.create(here.operator, name="Other")
    foreign = AdminPrincipal(Id("akey_foreign"), other.organization_id, Role.OWNER)
    developer = AdminPrincipal(Id("user_dev"), here.organization_id, Role.DEVELOPER)
    owner_id = here.access.members(here.organization_id)[0].id
    for actor, organization_id, member_id, status in (
        (foreign, here.organization_id, owner_id, 404),
        (foreign, other.organization_id, owner_id, 404),
        (here.operator, here.organization_id, owner_id, 404),
        (developer, here.organization_id, owner_id, 403),
        (here.owner, here.organization_id, mint(Prefix.MEMBER), 404),
    ):
        with pytest.raises(Problem) as caught:
            entry.link_for(actor, organization_id, member_id)
        assert caught.value.status == status


def test_signing_out_here_and_everywhere(here: Deployment, entry: SignIn) -> None:
    one, two, three = (signed_in(here, entry) for _ in range(3))
    present = entry.session(one.secret)
    assert present is not None
    entry.out(present)
    entry.out(present)
    assert entry.session(one.secret) is None
    assert len(here.kinds(EntryKind.SIGNED_OUT)) == 1
    present = entry.session(two.secret)
    assert present is not None
    entry.out_everywhere(present)
    assert entry.session(two.secret) is None and entry.session(three.secret) is None


def test_one_address_in_two_organizations(here: Deployment, entry: SignIn) -> None:
    other = here.organizations.create(here.operator, name="Other")
    there = AdminPrincipal(Id("akey_there"), other.organization_id, Role.OWNER)
    here.access.add_member(there, other.organization_id, email=OWNER, role=Role.READER, password="another password")
    assert entry.by_password(OWNER, "another password").person.organization_id == other.organization_id
    assert signed_in(here, entry).person.organization_id == here.organization_id


def test_what_has_ended_is_removed_by_the_next_sign_in(here: Deployment, entry: SignIn) -> None:
    signed_in(here, entry)
    entry.local_link()
    refused(entry, "nobody@example.com", "guess")
    wait(here, ABSOLUTE_MS)
    signed_in(here, entry)
    with here.database.read() as tx:
        assert len(tx.execute(sa.select(session)).all()) == 1
        assert tx.execute(sa.select(sign_in_link)).all() == []
