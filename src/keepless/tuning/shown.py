"""Jobs with what is sealed of them, as they are shown to their owner; and only what is true in every process.

Holds: `Seen`, `Shown`, `Metadata` (what a list is searched for). Leaves out: which jobs (book, store), the JSON
(gateway).

What is said to have succeeded can be asked: whoever is told of a job that has waits, the first time, until every
process serves its model, or its lease is over (`accounts.fence`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from keepless.accounts.fence import Fence
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.ids import Id
from keepless.tuning import refusals, store
from keepless.tuning.faults import Fault
from keepless.tuning.values import Job, TuningState
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError

__all__ = ["Metadata", "Seen", "Shown"]

_NO_NAME: Final = Content(b"")
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A job, its name, what the customer attached, and what was wrong with its files."""

    job: Job
    name: Content
    metadata: Content | None = None
    faults: Sequence[Fault] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a list is searched for: these pairs (as JSON) and any others; None = jobs without metadata."""

    pairs: Content | None

    def within(self, seen: Seen) -> bool:
        """Whether a job has them."""
        if self.pairs is None or seen.metadata is None:
            return self.pairs is None and not seen.job.has_metadata
        found = msgspec.json.decode(seen.metadata.reveal(Purpose.CUSTOMER))
        return bool(msgspec.json.decode(self.pairs.reveal(Purpose.CUSTOMER)).items() <= found.items())


class Shown:
    """See the module. Every method blocks. `fence` None: for a process whose word nobody acts on."""

    def __init__(self, db: Database, vault: Vault, fence: Fence | None) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._fence: Final = fence
        self._served_everywhere: Final[set[Id]] = set()

    def one(self, job: Job) -> Seen:
        """Raises `Problem` 404."""
        seen = self.of(job.organization_id, [job])
        if not seen:
            raise refusals.no_such_job()
        return seen[0]

    def of(self, organization_id: Id, jobs: Sequence[Job]) -> list[Seen]:
        """Those that are served now."""
        jobs = [job for job in jobs if job.deleting_at is None]
        self.settle(jobs)
        labels = self._vault.labels([job.order_object_id for job in jobs], organization_id, Purpose.CUSTOMER)
        with self._db.read() as tx:
            faults = {job.id: store.faults_of(tx, job.id) for job in jobs if job.faults}
        seen = []
        for job in jobs:
            if job.order_object_id in labels:
                name = labels[job.order_object_id].label
                told = _NO_NAME if name is None else name
                seen.append(Seen(job, told, self._metadata(job), faults.get(job.id, ())))
        return seen

    def settle(self, jobs: Sequence[Job]) -> None:
        """Wait for the models of those that have succeeded; once a job."""
        new = {job.id for job in jobs if job.state is TuningState.SUCCEEDED} - self._served_everywhere
        if new and self._fence is not None:
            self._fence.settle()
            if len(self._served_everywhere) > _REMEMBERED:
                self._served_everywhere.clear()
            self._served_everywhere.update(new)

    def _metadata(self, job: Job) -> Content | None:
        if not job.has_metadata:
            return None
        try:
            return self._vault.read(job.order_object_id, job.organization_id, Purpose.CUSTOMER)
        except NotKeptError:
            return None
