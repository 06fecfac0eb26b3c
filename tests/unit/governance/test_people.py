"""Members that a provider brings, none without its log entry; and strangers, for whom nothing slow is computed."""

import pytest

from keepless.accounts.roles import Role
from keepless.errors import Problem
from keepless.governance import people as people_module
from keepless.governance import sign_in as sign_in_module
from keepless.governance.people import People, Vouched
from keepless.governance.sign_in import SignIn
from keepless.receipts.statement import EntryKind
from tests.support.governed import Deployment

STRANGER = Vouched(b"s" * 32, "stranger@example.com", "A stranger")


@pytest.fixture
def people(here: Deployment, entry: SignIn) -> People:
    return People(here.office, entry)


def roles(here: Deployment) -> dict[str, Role]:
    return {one.email: one.role for one in here.access.members(here.organization_id)}


def test_signing_in_again_as_somebody_else_brings_nobody(here: Deployment, people: People) -> None:
    owner = here.access.members(here.organization_id)[0]
    grants = [(Role.OWNER, here.organization_id)]
    before = roles(here)
    with pytest.raises(Problem, match="sign"):
        people.by_provider(grants, STRANGER, again=owner.id)
    assert roles(here) == before, "whoever becomes a member is in the log"
    added = here.kinds(EntryKind.MEMBER_ADDED)
    assert len(added) == len(before) and here.kinds(EntryKind.SIGN_IN_REFUSED) == [EntryKind.SIGN_IN_REFUSED]
    people.by_provider(grants, STRANGER)
    assert here.kinds(EntryKind.MEMBER_ADDED) == [*added, EntryKind.MEMBER_ADDED]


def test_signing_in_again_as_somebody_else_promotes_nobody(here: Deployment, people: People) -> None:
    owner = here.access.members(here.organization_id)[0]
    reader = people.by_provider([(Role.READER, here.organization_id)], STRANGER).person
    with pytest.raises(Problem):
        people.by_provider([(Role.OWNER, here.organization_id)], STRANGER, again=owner.id)
    assert roles(here)[STRANGER.email or ""] is Role.READER
    assert here.kinds(EntryKind.MEMBER_CHANGED) == []
    again = people.by_provider([(Role.OWNER, here.organization_id)], STRANGER, again=reader.id)
    assert (again.person.role, here.kinds(EntryKind.MEMBER_CHANGED)) == (Role.OWNER, [EntryKind.MEMBER_CHANGED])


def test_for_a_stranger_nothing_slow_is_computed(
    here: Deployment, people: People, entry: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    for module in (people_module, sign_in_module):
        monkeypatch.setattr(module, "hash_password", lambda password: hashed.append(password) or "hash")
    with pytest.raises(Problem):
        people.accept("no invite", name="N", password="a long password")
    with pytest.raises(Problem):
        entry.by_link("no link", password="a long password")
    assert hashed == []
    created = people.invite(here.owner, here.organization_id, email="new@example.com", role=Role.READER)
    people.accept(created.secret, name="N", password="a long password")
    member = next(one for one in here.access.members(here.organization_id) if one.email == "new@example.com")
    entry.by_link(entry.link_for(here.owner, here.organization_id, member.id), password="another long password")
    assert hashed == ["a long password", "another long password"]
