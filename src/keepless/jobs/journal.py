"""The work of one shard in the vault: what earlier attempts have recorded, and what this one adds.

Holds: `ShardJournal`, `write_together`. Leaves out: groups and their timing (recorder), the bytes (vault). Everything
blocks.

Write groups, each of a shard of its own:
1. each shard's journal is there: under a permit of now, and named as the shard's in the very transaction that keeps
   it, which only the shard's last attempt passes
2. one transaction makes all groups durable, and sets each shard's counts to what is recorded. COMMIT POINT of the lines
When the policy changed in between the group goes into a new journal under a new permit, or nowhere: the shard is lost.
A line may stand in two groups (after a failure that did not say on which side of the commit it was); the first counts.
"""

from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.principal import PolicyInForce
from keepless.batches import shards
from keepless.batches.shards import Shard
from keepless.batches.values import Batch
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id
from keepless.jobs.results import Record, seal, unseal
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Trigger
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError, StaleEpochError
from keepless.vault.journal import Journal, append_together
from keepless.vault.rows import Kept

__all__ = ["Outcome", "PolicyNow", "ShardJournal", "write_together"]

PolicyNow = Callable[[Id, Id], PolicyInForce | None]
_TRIES: Final = 4


class _NotOursError(KeeplessError):
    """The shard is somebody else's, or its batch has ended: no journal of ours is kept."""


class ShardJournal:
    """Of one attempt at one shard. One thread at a time."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        policy_now: PolicyNow,
        batch: Batch,
        shard: Shard,
    ) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._clock: Final = clock
        self._policy_now: Final = policy_now
        self._batch: Final = batch
        self._shard: Final = shard
        self._journal: Journal | None = None
        self._seen: Final[set[int]] = set()
        self._completed = 0
        self._failed = 0

    def recorded(self) -> set[int]:
        """The lines that earlier attempts have recorded; asked once, before the first group."""
        with self._db.read() as tx:
            ids = shards.journals_of(tx, self._batch.id, self._shard.number)
        for object_id in ids:
            for record in self._vault.journal_records(object_id, self._batch.organization_id):
                self._count(unseal(record))
        return set(self._seen)

    def write(self, group: Sequence[Record]) -> bool:
        """Make a group durable. False: the shard is not this attempt's any more, or nothing may be kept any more.

        Raises `LocationRedError`, `StoreFailedError`: try again.
        """
        (outcome,) = write_together([(self, group)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def finish(self) -> bool:
        """Every line is recorded. False as for `write`."""
        with self._db.write() as tx:
            return shards.advance(tx, self._shard, self._completed, self._failed) and shards.finish(tx, self._shard)

    def tell(self) -> bool:
        """Set the counts to what is recorded. False as for `write`."""
        with self._db.write() as tx:
            return shards.advance(tx, self._shard, self._completed, self._failed)

    def take(self) -> Journal | None:
        """The journal, for one group; None: nothing may be kept, or the shard is somebody else's."""
        journal, self._journal = self._journal or self._open(), None
        return journal

    def advance(self, tx: Connection, group: Sequence[Record]) -> bool:
        """Set the counts to what is recorded once the group is."""
        completed, failed = self._completed, self._failed
        for record in group:
            if record.number not in self._seen:
                completed += record.succeeded
                failed += not record.succeeded
        return shards.advance(tx, self._shard, completed, failed)

    def took(self, journal: Journal, group: Sequence[Record]) -> None:
        """The journal has the group."""
        self._journal = journal
        for record in group:
            self._count(record)

    def _open(self) -> Journal | None:
        batch = self._batch
        policy = self._policy_now(batch.organization_id, batch.project_id)
        decision = decide(
            Query(
                organization_id=batch.organization_id,
                project_id=batch.project_id,
                data_class=DataClass.BATCH_WORK,
                trigger=Trigger.FEATURE,
                reason=Reason.FEATURE_WORK,
                effective=None if policy is None else policy.effective,
                epoch=0 if policy is None else policy.epoch,
                created_at_ms=self._clock.now_ms(),
            )
        )
        if isinstance(decision, Discard):
            return None
        try:
            return self._vault.journal(decision, within=self._name)
        except _NotOursError:
            return None

    def _name(self, tx: Connection, row: Kept) -> None:
        if not shards.add_journal(tx, self._shard, row.id):
            raise _NotOursError

    def _count(self, record: Record) -> None:
        if record.number not in self._seen:
            self._seen.add(record.number)
            if record.succeeded:
                self._completed += 1
            else:
                self._failed += 1


Outcome = bool | Exception  # of a group: True = durable; False, or the reason to try again: see `ShardJournal.write`


def write_together(groups: Sequence[tuple[ShardJournal, Sequence[Record]]]) -> list[Outcome]:
    """Make groups of different shards durable; what became of each."""
    outcomes: list[Outcome] = [False] * len(groups)
    left = list(range(len(groups)))
    for _ in range(_TRIES):
        left = _try(groups, left, outcomes)
        if not left:
            break
    return outcomes


def _try(
    groups: Sequence[tuple[ShardJournal, Sequence[Record]]], left: list[int], outcomes: list[Outcome]
) -> list[int]:
    """Write those that are left; those for which the policy changed meanwhile, or whose journal is gone."""
    ready: list[tuple[int, Journal]] = []
    for at in left:
        try:
            journal = groups[at][0].take()
        except (KeeplessError, sa.exc.SQLAlchemyError) as failed:
            outcomes[at] = failed
            continue
        if journal is not None:
            ready.append((at, journal))
    mine: dict[int, bool] = {}

    def also(tx: Connection, place: int) -> None:
        at = ready[place][0]
        mine[at] = groups[at][0].advance(tx, groups[at][1])

    sealed = [(journal, [seal(record) for record in groups[at][1]]) for at, journal in ready]
    again: list[int] = []
    for (at, journal), error in zip(ready, append_together(sealed, also), strict=True):
        if isinstance(error, StaleEpochError | NotKeptError):
            again.append(at)
        elif error is not None:
            outcomes[at] = error
        else:
            groups[at][0].took(journal, groups[at][1])
            outcomes[at] = mine[at]
    return again
