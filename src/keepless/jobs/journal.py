"""The work of one shard in the vault: what earlier attempts have recorded, and what this one adds.

Holds: `ShardJournal`. Leaves out: groups and their timing (recorder), the bytes (vault). Every method blocks.

Write a group:
1. a journal is there: under a permit of now, and named as the shard's in a transaction that only the shard's last
   attempt passes
2. the group is durable in it. COMMIT POINT of its lines
3. now and then: the shard's counts, which are set to what is recorded
When the policy changed in between the group goes into a new journal under a new permit, or nowhere: the shard is lost.
A line may stand in two groups (after a failure that did not say on which side of the commit it was); the first counts.
"""

from collections.abc import Callable, Sequence
from typing import Final

from keepless.accounts.principal import PolicyInForce
from keepless.batches import shards
from keepless.batches.shards import Shard
from keepless.batches.values import Batch
from keepless.clock import Clock
from keepless.db import Database
from keepless.ids import Id
from keepless.jobs.results import Record, seal, unseal
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Trigger
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError, StaleEpochError
from keepless.vault.journal import Journal

__all__ = ["COUNT_S", "Destroy", "PolicyNow", "ShardJournal"]

PolicyNow = Callable[[Id, Id], PolicyInForce | None]
Destroy = Callable[[Sequence[Id]], bool]  # with receipts, for the job has ended; False: ask again
_TRIES: Final = 4
COUNT_S: Final = 0.5


class ShardJournal:
    """Of one attempt at one shard. One thread at a time."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        destroy: Destroy,
        policy_now: PolicyNow,
        batch: Batch,
        shard: Shard,
    ) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._clock: Final = clock
        self._destroy: Final = destroy
        self._policy_now: Final = policy_now
        self._batch: Final = batch
        self._shard: Final = shard
        self._journal: Journal | None = None
        self._seen: Final[set[int]] = set()
        self._completed = 0
        self._failed = 0
        self._counted_at = clock.monotonic()
        self._untold = False

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
        sealed = [seal(record) for record in group]
        for _ in range(_TRIES):
            journal = self._journal or self._open()
            if journal is None:
                return False
            self._journal = None  # until it has taken the group
            try:
                journal.append(sealed)
            except (StaleEpochError, NotKeptError):
                continue
            self._journal = journal
            for record in group:
                self._count(record)
            return self._tell(always=False)
        return False

    def finish(self) -> bool:
        """Every line is recorded. False as for `write`."""
        with self._db.write() as tx:
            return shards.advance(tx, self._shard, self._completed, self._failed) and shards.finish(tx, self._shard)

    def tell(self) -> bool:
        """Set the counts to what is recorded. False as for `write`."""
        return self._tell(always=True)

    def tell_late(self) -> None:
        """Set counts that were not set with their group, because another one had just been; from any thread."""
        if self._untold:
            self._tell(always=True)

    def _tell(self, *, always: bool) -> bool:
        now = self._clock.monotonic()
        if not always and now - self._counted_at < COUNT_S:
            self._untold = True
            return True
        self._counted_at, self._untold = now, False
        with self._db.write() as tx:
            return shards.advance(tx, self._shard, self._completed, self._failed)

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
        journal = self._vault.journal(decision)
        with self._db.write() as tx:
            named = shards.add_journal(tx, self._shard, journal.object_id)
        if not named:
            self._destroy([journal.object_id])
            return None
        return journal

    def _count(self, record: Record) -> None:
        if record.number not in self._seen:
            self._seen.add(record.number)
            if record.succeeded:
                self._completed += 1
            else:
                self._failed += 1
