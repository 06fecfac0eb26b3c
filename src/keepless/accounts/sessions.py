"""SQL of sessions and of what leads to one: links, visits to the provider, tries. Small functions on a transaction.

Holds: `Session`, `Person`, finding people, opening and ending sessions, single-use links and visits. Leaves out: who
may do it, the log (governance.sign_in), cookies (http.sessions).

A session ends 12 hours after its sign-in, or an hour after it was last used, or with its member, or when it is ended:
it is looked up with its member at every request, so nothing has to be told to any process. What is used once is
deleted by who uses it, in one statement: of two at the same time one finds nothing.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.keys import digest_of, mint_secret
from keepless.accounts.people_tables import Method, oidc_visit, session, sign_in_link, sign_in_try
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.accounts.tables import member, organization
from keepless.db import insert_or_ignore
from keepless.ids import Id

__all__ = [
    "ABSOLUTE_MS",
    "IDLE_MS",
    "LINK_MS",
    "MOST_TRIES",
    "RECENT_MS",
    "TRIES_MS",
    "Person",
    "Session",
    "Visit",
    "count_try",
    "end_all",
    "end_session",
    "find_session",
    "forget_ended",
    "forgive_try",
    "is_link",
    "make_link",
    "open_session",
    "people_with",
    "person",
    "set_out",
    "subject_of",
    "use_link",
    "use_visit",
    "was_seen",
]

_MINUTE_MS: Final = 60_000
ABSOLUTE_MS: Final = 12 * 60 * _MINUTE_MS
IDLE_MS: Final = 60 * _MINUTE_MS
RECENT_MS: Final = 5 * _MINUTE_MS  # how long after a sign-in an owner may loosen (DECISIONS 7)
LINK_MS: Final = 15 * _MINUTE_MS
_VISIT_MS: Final = 10 * _MINUTE_MS
TRIES_MS: Final = 15 * _MINUTE_MS
MOST_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class Person:
    """A member; `organization_id` None: an operator."""

    id: Id
    organization_id: Id | None
    email: str
    name: str | None
    role: Role
    password: str | None = field(repr=False)
    subject: bytes | None = field(repr=False)
    invited: bool = False  # the role is an invite's, not a group's


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in that holds. `digest` is what it is looked up by."""

    digest: bytes = field(repr=False)
    person: Person
    method: Method
    signed_in_at_ms: int
    seen_at_ms: int
    ends_at_ms: int

    @property
    def principal(self) -> AdminPrincipal:
        """The member as whoever administers; an owner may loosen shortly after signing in."""
        who = self.person
        until = self.signed_in_at_ms + RECENT_MS if who.role is Role.OWNER else None
        return AdminPrincipal(who.id, who.organization_id, who.role, until)


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who is back from the provider. `member_id`: who signs in again, None: whoever it is."""

    member_id: Id | None
    path: str
    invite_id: Id | None = None


_PERSON: Final = (
    member.c.id,
    member.c.organization_id,
    member.c.email,
    member.c.name,
    member.c.role,
    member.c.password,
    member.c.subject,
    member.c.invited,
)


def _people() -> sa.Select[Any]:
    """Members that may sign in: not of an organization that is gone."""
    joined = member.outerjoin(organization, member.c.organization_id == organization.c.id)
    return (
        sa.select(*_PERSON)
        .select_from(joined)
        .where(member.c.revoked_at.is_(None), organization.c.deleted_at.is_(None))
        .order_by(member.c.created_at, member.c.id)
    )


def _person(row: Row[Any]) -> Person:
    subject = None if row.subject is None else bytes(row.subject)
    return Person(row.id, row.organization_id, row.email, row.name, row.role, row.password, subject, row.invited)


def subject_of(issuer: str, subject: str) -> bytes:
    """What a person at a provider is found by."""
    return sha256(f"{issuer}\n{subject}".encode()).digest()


def people_with(tx: Connection, *, email: str | None = None, subject: bytes | None = None) -> list[Person]:
    """Members with this address (in lower case) or this subject, the oldest first."""
    query = _people()
    if email is not None:
        query = query.where(member.c.email == email)
    if subject is not None:
        query = query.where(member.c.subject == subject)
    return [_person(row) for row in tx.execute(query)]


def person(tx: Connection, member_id: Id) -> Person | None:
    """One member that may sign in."""
    row = tx.execute(_people().where(member.c.id == member_id)).one_or_none()
    return None if row is None else _person(row)


def open_session(tx: Connection, member_id: Id, method: Method, now_ms: int) -> str:
    """A new session; its secret, which is nowhere else."""
    secret = mint_secret()
    tx.execute(
        session.insert().values(
            digest=digest_of(secret.encode()),
            member_id=member_id,
            method=method,
            created_at=now_ms,
            signed_in_at=now_ms,
            seen_at=now_ms,
            ends_at=now_ms + ABSOLUTE_MS,
        )
    )
    return secret


def find_session(tx: Connection, secret: str, now_ms: int) -> Session | None:
    """The session of a secret while it holds."""
    digest = digest_of(secret.encode())
    query = (
        _people()
        .join(session, session.c.member_id == member.c.id)
        .where(session.c.digest == digest, session.c.ends_at > now_ms, session.c.seen_at > now_ms - IDLE_MS)
    )
    query = query.add_columns(session.c.method, session.c.signed_in_at, session.c.seen_at, session.c.ends_at)
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    return Session(digest, _person(row), row.method, row.signed_in_at, row.seen_at, row.ends_at)


def was_seen(tx: Connection, digest: bytes, now_ms: int) -> None:
    """The session is in use. It stays ended when it was ended meanwhile."""
    tx.execute(session.update().where(session.c.digest == digest).values(seen_at=now_ms))


def end_session(tx: Connection, digest: bytes) -> bool:
    """End a session; whether there was one."""
    return tx.execute(session.delete().where(session.c.digest == digest)).rowcount == 1


def end_all(tx: Connection, member_id: Id) -> None:
    """End every session of a member, and every link that would open one."""
    tx.execute(session.delete().where(session.c.member_id == member_id))
    tx.execute(sign_in_link.delete().where(sign_in_link.c.member_id == member_id))


def make_link(tx: Connection, member_id: Id, now_ms: int) -> str:
    """The secret of a link that opens one session of a member, within a quarter of an hour."""
    secret = mint_secret()
    values = {"digest": digest_of(secret.encode()), "member_id": member_id, "ends_at": now_ms + LINK_MS}
    tx.execute(sign_in_link.insert().values(**values))
    return secret


def is_link(tx: Connection, secret: str, now_ms: int) -> bool:
    """Whether a link can still be used."""
    own = sign_in_link.c.digest == digest_of(secret.encode())
    return tx.execute(sa.select(sign_in_link.c.digest).where(own, sign_in_link.c.ends_at > now_ms)).first() is not None


def use_link(tx: Connection, secret: str, now_ms: int) -> Person | None:
    """Whose link it was; from now on it opens nothing."""
    own = sign_in_link.c.digest == digest_of(secret.encode())
    used = tx.execute(sign_in_link.delete().where(own).returning(sign_in_link.c.member_id, sign_in_link.c.ends_at))
    row = used.one_or_none()
    return person(tx, row.member_id) if row is not None and row.ends_at > now_ms else None


def set_out(
    tx: Connection, state: str, browser: str, *, member_id: Id | None, invite_id: Id | None, path: str, now_ms: int
) -> None:
    """Remember who goes to the provider; `browser` is the secret of a cookie that must come back with `state`."""
    tx.execute(
        oidc_visit.insert().values(
            digest=digest_of(state.encode()),
            browser=digest_of(browser.encode()),
            member_id=member_id,
            invite_id=invite_id,
            path=path,
            ends_at=now_ms + _VISIT_MS,
        )
    )


def use_visit(tx: Connection, state: str, browser: str, now_ms: int) -> Visit | None:
    """Who is back, once; None for another browser, an unknown or used state, and after ten minutes."""
    own = (oidc_visit.c.digest == digest_of(state.encode()), oidc_visit.c.browser == digest_of(browser.encode()))
    columns = (oidc_visit.c.member_id, oidc_visit.c.path, oidc_visit.c.invite_id, oidc_visit.c.ends_at)
    row = tx.execute(oidc_visit.delete().where(*own).returning(*columns)).one_or_none()
    return Visit(row.member_id, row.path, row.invite_id) if row is not None and row.ends_at > now_ms else None


def count_try(tx: Connection, email: str, now_ms: int) -> bool:
    """Count a try at an address, whether anybody has it or not; False when there were too many."""
    bucket = _bucket(email)
    insert_or_ignore(tx, sign_in_try, bucket=bucket, began_at=now_ms, tries=0)
    over = sign_in_try.c.began_at <= now_ms - TRIES_MS
    values = {
        "tries": sa.case((over, 1), else_=sign_in_try.c.tries + 1),
        "began_at": sa.case((over, now_ms), else_=sign_in_try.c.began_at),
    }
    counted = sign_in_try.update().where(sign_in_try.c.bucket == bucket).values(**values)
    return int(tx.execute(counted.returning(sign_in_try.c.tries)).scalar_one()) <= MOST_TRIES


def forgive_try(tx: Connection, email: str) -> None:
    """A try that succeeded does not count. It takes back its own alone: it must not help who guesses another's."""
    own = (sign_in_try.c.bucket == _bucket(email), sign_in_try.c.tries > 0)
    tx.execute(sign_in_try.update().where(*own).values(tries=sign_in_try.c.tries - 1))


def _bucket(email: str) -> int:
    return int.from_bytes(sha256(email.encode()).digest()[:2], "big")


def forget_ended(tx: Connection, now_ms: int) -> None:
    """Remove what has ended; called with every sign-in."""
    idle = session.c.seen_at <= now_ms - IDLE_MS
    tx.execute(session.delete().where(sa.or_(session.c.ends_at <= now_ms, idle)))
    for owned in (sign_in_link, oidc_visit):
        tx.execute(owned.delete().where(owned.c.ends_at <= now_ms))
    tx.execute(sign_in_try.delete().where(sign_in_try.c.began_at <= now_ms - TRIES_MS))
