"""Signing in and out: who a person is, proved by a password, a one-time link, or (oidc) a provider; each act logged.

Holds: `SignIn`. Leaves out: invites and members (people), the provider's protocol (http.oidc), cookies (http.sessions).

Guessing is slowed down, not answered: a wrong password, an address that nobody has and a member without a password get
one answer after the same work (a counted try, one slow hash, one log entry). Whoever shows neither a link nor an invite
that stands has no password hashed. A sign-in always opens a new session and ends the one it came with: a session
that somebody else has planted in the browser never becomes anybody's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.engine import Connection

from keepless.accounts import sessions
from keepless.accounts.keys import digest_of, hash_password, mint_secret, password_matches
from keepless.accounts.people_tables import Method
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission, Role
from keepless.accounts.sessions import Person, Session, Visit
from keepless.accounts.tables import member
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.change import not_found
from keepless.ids import Id
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue

__all__ = ["LONGEST_PASSWORD", "SHORTEST_PASSWORD", "Opened", "SignIn", "check_password", "too_many_tries"]

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 200
_MOST_OF_ONE_ADDRESS: Final = 16  # organizations in which one address has a password
_SEEN_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has begun; `secret` goes into the cookie and nowhere else."""

    secret: str = field(repr=False)
    person: Person


def check_password(password: str) -> None:
    """Raises `Problem` 400 for a password that may not be set."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        message = f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters."
        raise Problem(400, Code.INVALID_VALUE, message, param="password")


class SignIn:
    """Sessions of people. Every method blocks (database, slow hashes): call it from a worker thread."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._nobodys: Final = hash_password("no password that anybody has")

    # --- who is signed in --------------------------------------------------------------------------------------------

    def session(self, secret: str) -> Session | None:
        """Whose session a secret opens now; it counts as use."""
        now_ms = self._clock.now_ms()
        with self._db.read() as tx:
            found = sessions.find_session(tx, secret, now_ms)
        if found is not None and found.seen_at_ms < now_ms - _SEEN_MS:
            with self._db.write() as tx:
                sessions.was_seen(tx, found.digest, now_ms)
        return found

    # --- signing in --------------------------------------------------------------------------------------------------

    def by_password(self, email: str, password: str, *, instead_of: str | None = None) -> Opened:
        """Sign in. Raises `Problem` 401 (one answer for whatever is wrong) or 429 after too many tries."""
        typed = email.strip().lower()
        self._count(typed)
        with self._db.read() as tx:
            found = [one for one in sessions.people_with(tx, email=typed) if one.password is not None]
        who = self._matching(found[:_MOST_OF_ONE_ADDRESS], password)
        return self._password_result(who, typed, instead_of, suspected=found[0] if found else None)

    def again_by_password(self, present: Session, password: str, secret: str) -> Opened:
        """Prove again that it is still the same person. Raises `Problem` 401, 429."""
        self._count(present.person.email)
        own = present.person
        who = self._matching([own] if own.password is not None else [], password)
        return self._password_result(who, own.email, secret, suspected=own)

    def by_link(self, secret: str, *, password: str = "", instead_of: str | None = None) -> Opened:
        """Sign in with a link, once; a password that is given is set. Raises `Problem` 401, 400."""
        hashed = None
        if password:
            check_password(password)
            with self._db.read() as tx:
                if not sessions.is_link(tx, secret, self._clock.now_ms()):
                    raise _link_refused()  # for a stranger nothing slow is computed
            hashed = hash_password(password)
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            who = sessions.use_link(tx, secret, now_ms)
            if who is not None:
                entries = []
                if hashed is not None:
                    sessions.end_all(tx, who.id)
                    tx.execute(member.update().where(member.c.id == who.id).values(password=hashed))
                    entries = [_entry(EntryKind.PROOF_CHANGED, now_ms, who)]
                return self.opened(tx, who, Method.LINK, now_ms, instead_of=instead_of, before=entries)
        raise _link_refused()

    def opened(
        self,
        tx: Connection,
        who: Person,
        method: Method,
        now_ms: int,
        *,
        instead_of: str | None = None,
        before: list[Entry] | None = None,
    ) -> Opened:
        """Open a session in the caller's transaction and log it, as the last step."""
        sessions.forget_ended(tx, now_ms)
        if instead_of is not None:
            sessions.end_session(tx, digest_of(instead_of.encode()))
        secret = sessions.open_session(tx, who.id, method, now_ms)
        entry = _entry(EntryKind.SIGNED_IN, now_ms, who, {Fact.METHOD: method, Fact.ROLE: who.role})
        self._log.append(tx, [*(before or ()), entry])
        return Opened(secret, who)

    def refused(self, who: Person | None, method: Method) -> Problem:
        """Log a refusal; the one answer that is given for it."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            self._log.append(tx, [_refusal(now_ms, who, method)])
        return _refused()

    def set_out(self, path: str, member_id: Id | None = None, invite_id: Id | None = None) -> tuple[str, str]:
        """Remember who goes to a provider; the state for its address and the secret for the browser's cookie."""
        state, browser, now_ms = mint_secret(), mint_secret(), self._clock.now_ms()
        with self._db.write() as tx:
            sessions.forget_ended(tx, now_ms)
            whose = {"member_id": member_id, "invite_id": invite_id}
            sessions.set_out(tx, state, browser, **whose, path=path, now_ms=now_ms)
        return state, browser

    def back(self, state: str, browser: str) -> Visit:
        """Who is back from the provider, once. Raises `Problem` 401 for another browser or a used state."""
        with self._db.write() as tx:
            found = sessions.use_visit(tx, state, browser, self._clock.now_ms())
        if found is None:
            raise _refused()
        return found

    # --- signing out -------------------------------------------------------------------------------------------------

    def out(self, present: Session) -> None:
        """End this session."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            if sessions.end_session(tx, present.digest):
                self._log.append(tx, [_entry(EntryKind.SIGNED_OUT, now_ms, present.person)])

    def out_everywhere(self, present: Session) -> None:
        """End every session of this member."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            sessions.end_all(tx, present.person.id)
            self._log.append(tx, [_entry(EntryKind.SIGNED_OUT, now_ms, present.person)])

    # --- links -------------------------------------------------------------------------------------------------------

    def link_for(self, actor: AdminPrincipal, organization_id: Id, member_id: Id) -> str:
        """The secret of a one-time link, for a member who is locked out. Raises `Problem` 404, 403."""
        if actor.organization_id != organization_id:
            raise not_found()
        if Permission.MEMBERS_MANAGE not in ROLES[actor.role]:
            raise Problem(403, Code.INSUFFICIENT_PERMISSIONS, "Owners manage the members.", type=ErrorType.PERMISSION)
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            who = sessions.person(tx, member_id)
            if who is None or who.organization_id != organization_id:
                raise not_found()
            return self._link(tx, who, actor.id, now_ms)

    def local_link(self, email: str | None = None, organization_id: Id | None = None) -> tuple[str, Person] | None:
        """A link for who holds the data folder: the member with this address, or the first owner. None: nobody."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            found = sessions.people_with(tx, email=None if email is None else email.strip().lower())
            if email is None:
                found = [one for one in found if one.role is Role.OWNER]
            if organization_id is not None:
                found = [one for one in found if one.organization_id == organization_id]
            if not found:
                return None
            return self._link(tx, found[0], None, now_ms), found[0]

    def _link(self, tx: Connection, who: Person, actor: Id | None, now_ms: int) -> str:
        secret = sessions.make_link(tx, who.id, now_ms)
        facts: dict[Fact, FactValue] = {Fact.MEMBER_ID: who.id, Fact.ACTOR: actor}
        self._log.append(tx, [Entry(EntryKind.LINK_CREATED, now_ms, who.organization_id, facts=facts)])
        return secret

    # --- passwords ---------------------------------------------------------------------------------------------------

    def _count(self, email: str) -> None:
        with self._db.write() as tx:
            allowed = sessions.count_try(tx, email, self._clock.now_ms())
        if not allowed:
            raise too_many_tries()

    def _matching(self, found: list[Person], password: str) -> Person | None:
        """Whose password it is. Somebody's or nobody's, one hash at least is computed."""
        if not found or len(password) > LONGEST_PASSWORD:
            password_matches(self._nobodys, password[:LONGEST_PASSWORD])
            return None
        return next((one for one in found if password_matches(one.password or "", password)), None)

    def _password_result(
        self, who: Person | None, email: str, instead_of: str | None, *, suspected: Person | None
    ) -> Opened:
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            # Between the hash and now the member may have been removed, or the password changed.
            present = None if who is None else sessions.person(tx, who.id)
            if who is not None and present is not None and present.password == who.password:
                sessions.forgive_try(tx, email)
                return self.opened(tx, present, Method.PHRASE, now_ms, instead_of=instead_of)
            self._log.append(tx, [_refusal(now_ms, suspected, Method.PHRASE)])
        raise _refused()


def _entry(kind: EntryKind, now_ms: int, who: Person, facts: Mapping[Fact, FactValue] | None = None) -> Entry:
    return Entry(kind, now_ms, who.organization_id, facts={Fact.ACTOR: who.id, **(facts or {})})


def _refusal(now_ms: int, who: Person | None, method: Method) -> Entry:
    """Whom it was about is said only when there is such a member; who tried is not known."""
    facts: dict[Fact, FactValue] = {Fact.METHOD: method, Fact.MEMBER_ID: None if who is None else who.id}
    return Entry(EntryKind.SIGN_IN_REFUSED, now_ms, None if who is None else who.organization_id, facts=facts)


def _refused() -> Problem:
    message = "The sign-in was refused: the address or the proof is not right."
    return Problem(401, Code.SIGN_IN_REFUSED, message, type=ErrorType.AUTHENTICATION, retry=False)


def _link_refused() -> Problem:
    message = "The link opens nothing: it was used, is older than 15 minutes, or never was one. Ask for a new one."
    return Problem(401, Code.SIGN_IN_REFUSED, message, type=ErrorType.AUTHENTICATION, retry=False)


def too_many_tries() -> Problem:
    """The refusal of one more guess; the same whether anybody has the address or not."""
    message = "Too many tries. Wait a quarter of an hour, or sign in with a one-time link."
    return Problem(429, Code.RATE_LIMIT, message, type=ErrorType.REQUESTS, headers={"retry-after": "900"}, retry=False)
