"""The end of a fine-tuning: its model, checkpoints, optimizer state, name, metadata and history, gone for good.

Holds: `Ending` (`delete_job`, `delete_model`, `finish`, `forget_dead`). Leaves out: destroying an object (expiry),
answering with a model (inference).

delete, in this order:
1. one transaction: the job's row locked; nothing of it is under a hold; the job cancelled if it has not ended; job and
   model marked as being deleted; a new generation. COMMIT POINT: from here on whoever finds it goes on with it;
2. the fence: no process serves the model any more, loaded copies are dropped (as a key is revoked);
3. each object destroyed: the weights first, the object that the job hangs on last;
4. one transaction: the rows gone, with every event.
A process that dies in between is followed by the next round of `finish`, and by the same call made again.

A worker keeps weights and checkpoints under the lock of the job's row (transitions `succeed`, `own`): what it commits
before 1 is seen there and goes with the rest, and after 1 it is refused. Whoever keeps and whoever deletes lock in the
same order: organization (FOR SHARE), job, model, generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.fence import Fence
from keepless.accounts.store import touch
from keepless.clock import Clock
from keepless.content import Purpose
from keepless.db import Database
from keepless.expiry.purge import Deletion, Outcome
from keepless.ids import Id
from keepless.tuning import checkpoints, refusals, store, transitions
from keepless.tuning.names import Named
from keepless.tuning.tables import tuned_model, tuning_checkpoint, tuning_job
from keepless.tuning.values import CancelReason, Job, TunedModel
from keepless.vault import catalogue, in_force
from keepless.vault.door import Vault

__all__ = ["Ending"]

_AT_ONCE: Final = 20
_Find = Callable[[Connection], tuple[Job | None, TunedModel | None]]  # with the job's row locked, then its model


class Deleter(Protocol):
    """Who destroys (expiry)."""

    def delete_object(self, organization_id: Id, object_id: Id) -> Deletion:
        """A customer's DELETE."""

    def end_job(self, object_ids: Sequence[Id]) -> bool:
        """Destroy what a job has kept for itself."""


@dataclass(frozen=True, slots=True)
class _Doomed:
    """A fine-tuning that is being deleted: its objects in the order in which they go."""

    organization_id: Id
    job_id: Id
    hexadecimal: str
    objects: tuple[Id, ...]


class Ending:
    """Deletions of all projects. Every method blocks: call it from a worker thread."""

    def __init__(self, db: Database, clock: Clock, vault: Vault, deleter: Deleter, fence: Fence) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._deleter: Final = deleter
        self._fence: Final = fence

    # --- a customer's DELETE -----------------------------------------------------------------------------------------

    def delete_job(self, job_id: Id | None, organization_id: Id, project_id: Id | None) -> Id:
        """Destroy a fine-tuning and its model; returns when all of it is destroyed.

        Raises `Problem` 404, 423 (held), 503 (the store has not acknowledged yet).
        """

        def find(tx: Connection) -> tuple[Job | None, TunedModel | None]:
            job = None if job_id is None else store.any_job(tx, job_id, organization_id, project_id, lock=True)
            if job is None:
                raise refusals.no_such_job()
            return job, store.model_of(tx, job.id)

        self._delete(organization_id, find)
        return Id(str(job_id))

    def delete_model(self, named: Named | None, organization_id: Id, project_id: Id | None) -> None:
        """Destroy a tuned model and the fine-tuning that it came of. Raises as `delete_job`."""

        def model_in(tx: Connection) -> TunedModel:
            if named is None or named.organization_id != organization_id:
                raise refusals.no_such_model()
            found = store.any_model(tx, named.hexadecimal, organization_id, project_id)
            if found is None or found.base_model != named.base_model:
                raise refusals.no_such_model()
            return found

        def find(tx: Connection) -> tuple[Job | None, TunedModel | None]:
            job = store.any_job(tx, model_in(tx).job_id, organization_id, project_id, lock=True)
            return job, model_in(tx)  # again: it may have gone while the lock was waited for

        with self._db.read() as tx:
            model = model_in(tx)
        if named is None or not self._is_called(model, named.name):
            raise refusals.no_such_model()
        self._delete(organization_id, find)

    def _is_called(self, model: TunedModel, name: str) -> bool:
        """Whether the rest of a name is the model's. One that is being deleted has no name any more."""
        if model.deleting_at is not None:
            return True
        labels = self._vault.labels([model.object_id], model.organization_id, Purpose.CUSTOMER)
        found = labels.get(model.object_id)
        label = None if found is None else found.label
        return label is not None and label.reveal(Purpose.CUSTOMER) == name.encode()

    def _delete(self, organization_id: Id, find: _Find) -> None:
        doomed = self._fence.change(lambda tx: self._mark(tx, organization_id, find))
        self._destroy(doomed)

    # 1.
    def _mark(self, tx: Connection, organization_id: Id, find: _Find) -> _Doomed:
        now_ms = self._clock.now_ms()
        in_force.lock_organizations(tx, [organization_id])
        # With the job's row locked: until this commits its worker keeps nothing, and then the job is cancelled.
        job, model = find(tx)
        doomed = _doomed(tx, job, model)
        rows = catalogue.some_kept(tx, doomed.objects)
        holds = in_force.holds_of(tx, [organization_id])
        holding = sorted({hold.id for row in rows for hold in holds if in_force.is_held(row, [hold])})
        if holding:
            raise refusals.held(holding)
        if job is not None:
            transitions.cancel(tx, job.id, CancelReason.CUSTOMER, now_ms)
            tx.execute(tuning_job.update().where(tuning_job.c.id == job.id).values(deleting_at=now_ms))
        gone = tuned_model.update().where(tuned_model.c.job_id == doomed.job_id).values(deleting_at=now_ms)
        if tx.execute(gone).rowcount:
            touch(tx)
        return doomed

    # 3. and 4.
    def _destroy(self, doomed: _Doomed) -> None:
        pending = False
        for object_id in doomed.objects:
            done = self._deleter.delete_object(doomed.organization_id, object_id)
            if done.outcome is Outcome.HELD:  # placed since it was marked: what is left of it waits for the release
                raise refusals.held(done.hold_ids)
            pending = pending or done.outcome is Outcome.PENDING
        if pending:
            raise refusals.deletion_pending()
        self._remove(doomed)

    def _remove(self, doomed: _Doomed) -> None:
        with self._db.write() as tx:
            # First, as who marks does: the same call may be made again at this moment.
            store.any_job(tx, doomed.job_id, doomed.organization_id, None, lock=True)
            checkpoints.drop(tx, doomed.objects)
            tx.execute(tuned_model.delete().where(tuned_model.c.hexadecimal == doomed.hexadecimal))
            store.forget(tx, self._clock.now_ms(), job_ids=[doomed.job_id])

    # --- rounds ------------------------------------------------------------------------------------------------------

    def finish(self) -> int:
        """Go on with deletions that were begun and not finished; how many are done."""
        with self._db.read() as tx:
            jobs = [store.read_job(row) for row in tx.execute(_UNFINISHED_JOBS)]
            begun = [_doomed(tx, job, store.model_of(tx, job.id)) for job in jobs]
            alone = [Id(row.job_id) for row in tx.execute(_UNFINISHED_MODELS)]
            models = [store.model_of(tx, job_id) for job_id in alone if job_id not in {job.id for job in jobs}]
            begun += [_doomed(tx, None, model) for model in models if model is not None]
        done = 0
        for doomed in begun:
            outcomes = [self._deleter.delete_object(doomed.organization_id, one).outcome for one in doomed.objects]
            if not {Outcome.HELD, Outcome.PENDING}.intersection(outcomes):
                self._remove(doomed)
                done += 1
        return done

    def forget_dead(self) -> int:
        """Remove what the end of its objects has left: work of jobs that are over, rows of the dead; how many rows."""
        self.finish()
        with self._db.read() as tx:
            lost = store.lost(tx)
        if lost:
            with self._db.write() as tx:
                for job_id in lost:
                    transitions.cancel(tx, job_id, CancelReason.POLICY, self._clock.now_ms())
        with self._db.read() as tx:
            over = checkpoints.ended_with_work(tx)
        for job_id in over:
            self.drop_work(job_id)
        removed = 0
        while True:
            with self._db.write() as tx:
                some = store.forget_models(tx) + len(store.forget(tx, self._clock.now_ms()))
            removed += some
            if not some:
                return removed

    def drop_work(self, job_id: Id, keep: int = 0) -> None:
        """Destroy the checkpoints of a job, all but the newest `keep`."""
        with self._db.read() as tx:
            going = checkpoints.older(tx, job_id, keep)
        if going and self._deleter.end_job(going):
            with self._db.write() as tx:
                checkpoints.drop(tx, going)


_UNFINISHED_JOBS: Final = sa.select(tuning_job).where(tuning_job.c.deleting_at.is_not(None)).limit(_AT_ONCE)
_UNFINISHED_MODELS: Final = (
    sa.select(tuned_model.c.job_id).where(tuned_model.c.deleting_at.is_not(None)).limit(_AT_ONCE)
)


def _doomed(tx: Connection, job: Job | None, model: TunedModel | None) -> _Doomed:
    one = job or model
    if one is None:
        raise LookupError("there is nothing to delete")
    job_id = one.id if isinstance(one, Job) else one.job_id
    work = sa.select(tuning_checkpoint.c.object_id).where(tuning_checkpoint.c.job_id == job_id)
    objects = [*tx.execute(work).scalars()]
    if model is not None:
        objects.insert(0, model.object_id)
    if job is not None:
        objects.append(job.order_object_id)
    return _Doomed(one.organization_id, job_id, one.hexadecimal, tuple(objects))
