"""What operators may erase from records that otherwise only grow, so that every proof stays valid.

Holds: `Erasure`: references that operators typed (holds, openings, cases), and entries of the log that say what a
person did with an account. Leaves out: content (the vault), names and addresses (they go with their member).

A reference stands in a table only, never in the log, so nothing that is signed changes. Of an erased entry the leaf
stays: it and every proof are valid as before and say nothing any more (`receipts.log`). Entries about policy, content,
holds, openings, keys and deletions are not erased: what operators did stays readable. Each erasure is an entry itself.
"""

from typing import Any, Final

import sqlalchemy as sa

from keepless.accounts.store import lock_organization
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.governance.change import not_found
from keepless.ids import Id
from keepless.incidents.tables import abuse_case, opening
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.vault.tables import legal_hold

__all__ = ["ERASABLE", "Erasure"]

ERASABLE: Final = frozenset(
    {
        EntryKind.MEMBER_ADDED,
        EntryKind.MEMBER_CHANGED,
        EntryKind.MEMBER_REMOVED,
        EntryKind.INVITE_CREATED,
        EntryKind.INVITE_ACCEPTED,
        EntryKind.INVITE_REVOKED,
        EntryKind.LINK_CREATED,
        EntryKind.PROOF_CHANGED,
        EntryKind.SIGNED_IN,
        EntryKind.SIGN_IN_REFUSED,
        EntryKind.SIGNED_OUT,
    }
)
_TABLES: Final[dict[Fact, sa.Table]] = {
    Fact.HOLD_ID: legal_hold,
    Fact.OPENING_ID: opening,
    Fact.CASE_ID: abuse_case,
}


class Erasure:
    """Erasing in one deployment. Every method blocks; again = nothing more."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log

    def reference(self, actor: Id, organization_id: Id, of: Fact, id_: Id) -> None:
        """Erase what was typed as the reference of a hold, opening or case. Raises `Problem` 404."""
        column = _TABLES[of].c
        with self._db.write() as tx:
            lock_organization(tx, organization_id)
            own = (column.id == id_, column.organization_id == organization_id)
            row: Any = tx.execute(sa.select(column.reference).where(*own)).one_or_none()
            if row is None:
                raise not_found()
            if not row.reference:
                return
            tx.execute(_TABLES[of].update().where(*own).values(reference=""))
            facts = {Fact.ACTOR: actor, of: id_}
            self._log.append(
                tx, [Entry(EntryKind.REFERENCE_ERASED, self._clock.now_ms(), organization_id, facts=facts)]
            )

    def entry(self, actor: Id, organization_id: Id, index: int) -> None:
        """Erase what one entry says. Raises `Problem` 404, 400 for an entry that stays."""
        with self._db.write() as tx:
            lock_organization(tx, organization_id)
            found = self._log.entry(tx, index)
            if found is None or found.organization_id != organization_id:
                raise not_found()
            if found.kind not in ERASABLE:
                message = (
                    "Only entries about members, invites and sign-ins can be erased; what was done stays readable."
                )
                raise Problem(400, Code.INVALID_VALUE, message)
            if found.body is None:
                return
            self._log.erase(tx, [index])
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor, Fact.ENTRY: index}
            self._log.append(tx, [Entry(EntryKind.ENTRY_ERASED, self._clock.now_ms(), organization_id, facts=facts)])
