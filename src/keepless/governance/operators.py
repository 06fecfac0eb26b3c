"""People who run the platform: made on the machine itself, by whoever holds the data folder and may do anything anyway.

Holds: `Operators`. Leaves out: operators that a group of the provider brings (people), operator keys (organizations).
An operator belongs to no organization; what one may do is a role like the others (accounts.roles).
"""

from typing import Final

from sqlalchemy.engine import Connection

from keepless.accounts import directory, sessions
from keepless.accounts.directory import MemberRecord
from keepless.accounts.roles import Role
from keepless.accounts.tables import member
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue

__all__ = ["Operators", "UnknownOperatorError"]


class UnknownOperatorError(KeeplessError):
    """No operator has this address."""


class Operators:
    """Operators of one deployment. Every method blocks."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log

    def all(self) -> list[MemberRecord]:
        """Operators, oldest first."""
        with self._db.read() as tx:
            return directory.members(tx, None)

    def link(self, email: str) -> tuple[str, Id]:
        """The secret of a one-time link for an operator, who is made when there is none; and who it is."""
        address, now_ms = email.strip().lower(), self._clock.now_ms()
        with self._db.write() as tx:
            found = _found(tx, address)
            entries = []
            operator = mint(Prefix.MEMBER) if found is None else found
            if found is None:
                directory.add_member(
                    tx,
                    operator,
                    organization_id=None,
                    email=address,
                    role=Role.OPERATOR,
                    password=None,
                    now_ms=now_ms,
                )
                facts: dict[Fact, FactValue] = {Fact.MEMBER_ID: operator, Fact.ROLE: Role.OPERATOR}
                entries = [Entry(EntryKind.MEMBER_ADDED, now_ms, facts=facts)]
            secret = sessions.make_link(tx, operator, now_ms)
            made = Entry(EntryKind.LINK_CREATED, now_ms, facts={Fact.MEMBER_ID: operator})
            self._log.append(tx, [*entries, made])
        return secret, operator

    def remove(self, email: str) -> Id:
        """Remove an operator, address and sessions. Raises `UnknownOperatorError`."""
        with self._db.write() as tx:
            found = _found(tx, email.strip().lower())
            if found is None:
                raise UnknownOperatorError("no operator has this address")
            tx.execute(member.delete().where(member.c.id == found))  # with sessions and links
            gone = Entry(EntryKind.MEMBER_REMOVED, self._clock.now_ms(), facts={Fact.MEMBER_ID: found})
            self._log.append(tx, [gone])
        return found


def _found(tx: Connection, address: str) -> Id | None:
    return next((one.id for one in directory.members(tx, None) if one.email == address), None)
