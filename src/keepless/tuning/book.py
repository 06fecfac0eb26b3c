"""Fine-tunings as their owners' calls see them: created, looked up, listed, paused, resumed, cancelled.

Holds: `Book`, `Order` (what is asked for). Leaves out: HTTP (gateway), what is sealed of a job (shown), checking files
and training (jobs), the end of a fine-tuning (ending), the files' own lives.

create:
1. what is in force is read, and whether the job's name and metadata may be kept is decided under its epoch;
2. name and metadata are written to the vault; the first bytes of the file say whether it is trained or imported;
3. one transaction: that epoch compared; the files found, of the right purpose; a repeated call answered with the first
   one's job; the object and the row kept. COMMIT POINT. Workers look for jobs that nobody has begun: a process that
   dies after it is no loss.

A project of None is an owner's look at all projects of the organization, also at what a feature that is off has left.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.engine import Connection

from keepless.accounts.fence import Fence
from keepless.accounts.principal import PolicyInForce, Principal
from keepless.clock import Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.files.store import get as file_of
from keepless.files.values import File, FilePurpose
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Retain, Trigger
from keepless.tuning import checkpoints, refusals, store, transitions
from keepless.tuning.names import name_of
from keepless.tuning.shown import Metadata, Seen, Shown
from keepless.tuning.values import (
    ACTIVE,
    AUTO,
    CancelReason,
    Checkpoint,
    Event,
    EventCode,
    FailCode,
    Hyperparameters,
    Job,
    Metrics,
    NewJob,
    TuningKind,
    TuningState,
)
from keepless.vault import catalogue
from keepless.vault.door import Vault
from keepless.vault.errors import (
    LocationRedError,
    NotKeptError,
    StaleEpochError,
    StoreFailedError,
    store_failures,
)
from keepless.vault.rows import Kept

__all__ = ["Book", "Order", "PolicyReader"]

_TRIES: Final = 5  # a policy that changes more often than this during one call is not waited for
_ZIP: Final = b"PK\x03\x04"
_SEARCHED: Final = 500  # fine-tunings that are opened for one page
_AT_ONCE: Final = 100
PolicyReader = Callable[[Id, Id], PolicyInForce | None]
Fits = Callable[[str, TuningKind], bool]


@dataclass(frozen=True, slots=True)
class Order:
    """A fine-tuning that is asked for; `metadata` as the JSON it will be answered as.

    `base_param` and `file_param` are what the caller's API names them; `may_import`: a ZIP is an adapter to import.
    """

    base_model: str
    training_file_id: Id | None  # None: what was typed cannot be a file's id
    name: Content
    metadata: Content | None = None
    validation_file_id: Id | None = None
    has_validation: bool = False
    asked: Hyperparameters = AUTO
    seed: int | None = None
    may_import: bool = False
    base_param: str = "model"
    file_param: str = "training_file"
    repeat_key: bytes | None = None


class _RepeatedError(KeeplessError):
    def __init__(self, job: Job) -> None:
        super().__init__("repeated")
        self.job: Final = job


class Book:
    """Fine-tunings of all projects. Every method blocks: call it from a worker thread.

    `trainable`: the ids of the models that can be a base here. `fits`: whether a base is of a kind that
    can be trained, or imported for. `fence`: for a process whose word is waited for.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        vault: Vault,
        policy_now: PolicyReader,
        trainable: Sequence[str],
        *,
        fits: Fits | None = None,
        fence: Fence | None = None,
    ) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._policy_now: Final = policy_now
        self._fits: Final = fits
        self._shown: Final = Shown(db, vault, fence)
        self.trainable: Final = tuple(trainable)

    # --- create ------------------------------------------------------------------------------------------------------

    def create(self, principal: Principal, order: Order, request_id: Id) -> tuple[Seen, Kept | None]:
        """A new job with its name and metadata as they are kept, or the one that the same call made before.

        Raises `Problem` 400, 403, 404, 503.
        """
        if order.base_model not in self.trainable:
            raise refusals.no_such_base(self.trainable, order.base_param)
        own, below = principal.organization.id, principal.project.id
        try:
            with store_failures():
                self._permit(own, below, request_id)  # before anything is written
                file = self._served(order.training_file_id, own, below, order.file_param)
                if order.has_validation:
                    self._served(order.validation_file_id, own, below, "validation_file")
                kind = TuningKind.IMPORT if order.may_import and self._is_zip(file) else TuningKind.TRAIN
                if self._fits is not None and not self._fits(order.base_model, kind):
                    raise refusals.base_not_tunable(order.base_param)
                return self._keep(principal, order, kind, request_id)
        except _RepeatedError as repeated:
            return self._before(repeated.job, order, kind), None
        except (LocationRedError, StoreFailedError, StaleEpochError):
            raise refusals.cannot_keep() from None

    def _permit(self, organization_id: Id, project_id: Id, request_id: Id) -> Retain:
        policy = self._policy_now(organization_id, project_id)
        decision = decide(
            Query(
                organization_id=organization_id,
                project_id=project_id,
                data_class=DataClass.FINE_TUNING_WORK,
                trigger=Trigger.FEATURE,
                reason=Reason.CUSTOMER_UPLOAD,
                effective=None if policy is None else policy.effective,
                epoch=0 if policy is None else policy.epoch,
                created_at_ms=self._clock.now_ms(),
                request_id=request_id,
            )
        )
        if isinstance(decision, Discard):
            raise refusals.not_kept(decision)
        return decision

    def _is_zip(self, file: File) -> bool:
        try:
            head = self._vault.reader(file.object_id, file.organization_id, Purpose.CUSTOMER).read(0, len(_ZIP))
        except NotKeptError:
            return False  # it has just ended: the job will say so
        return head.reveal(Purpose.CUSTOMER) == _ZIP

    def _keep(self, principal: Principal, order: Order, kind: TuningKind, request_id: Id) -> tuple[Seen, Kept]:
        own, below = principal.organization.id, principal.project.id
        made: list[Job] = []

        def within(tx: Connection, kept: Kept) -> None:
            training = _input(tx, order.training_file_id, own, below, order.file_param)
            validation = None
            if order.has_validation:
                validation = _input(tx, order.validation_file_id, own, below, "validation_file").id
            new = NewJob(
                organization_id=own,
                project_id=below,
                key_id=principal.key_id,
                kind=kind,
                base_model=order.base_model,
                training_file_id=training.id,
                order_object_id=kept.id,
                has_metadata=order.metadata is not None,
                seed=secrets.randbelow(2**31) if order.seed is None else order.seed,
                validation_file_id=validation,
                asked=order.asked,
            )
            if order.repeat_key is not None:
                before = store.repeated(tx, below, order.repeat_key, kept.created_at)
                if before is not None:
                    raise _RepeatedError(before)
            made[:] = [store.create(tx, new, kept.created_at, order.repeat_key)]
            transitions.tell(tx, made[0].id, EventCode.CREATED, kept.created_at)

        with self._vault.writing(own) as writer:
            if order.metadata is not None:
                writer.write(order.metadata)
            for left in reversed(range(_TRIES)):
                try:
                    kept = writer.commit(self._permit(own, below, request_id), label=order.name, within=within)
                    break
                except StaleEpochError:
                    if not left:
                        raise
        return Seen(made[0], order.name, order.metadata), kept

    def _before(self, job: Job, order: Order, kind: TuningKind) -> Seen:
        """What a repeated call finds, if it asks for the same. What was left to us may be decided by now."""
        seen, asked, known = self._shown.one(job), order.asked, job.hyperparameters
        same = (
            (job.kind, job.base_model, job.training_file_id, job.validation_file_id)
            == (kind, order.base_model, order.training_file_id, order.validation_file_id)
            and order.seed in (None, job.seed)
            and asked.n_epochs in (None, known.n_epochs)
            and asked.batch_size in (None, known.batch_size)
            and asked.learning_rate_multiplier in (None, known.learning_rate_multiplier)
            and (asked.r, asked.alpha) == (known.r, known.alpha)
            and order.name.reveal(Purpose.CUSTOMER) == seen.name.reveal(Purpose.CUSTOMER)
        )
        if not same:
            raise refusals.repeated_otherwise()
        return seen

    def _served(self, file_id: Id | None, organization_id: Id, project_id: Id, param: str) -> File:
        with self._db.read() as tx:
            found = _input(tx, file_id, organization_id, project_id, param)
        if not self._vault.labels([found.object_id], organization_id, Purpose.CUSTOMER):
            raise refusals.no_such_file(param)
        return found

    # --- read --------------------------------------------------------------------------------------------------------

    def get(self, job_id: Id | None, organization_id: Id, project_id: Id | None) -> Seen:
        """One job. Raises `Problem` 404."""
        with self._db.read() as tx:
            job = self._found(tx, job_id, organization_id, project_id)
        return self._shown.one(job)

    def page(
        self,
        organization_id: Id,
        project_id: Id | None,
        *,
        limit: int,
        after: Id | None = None,
        wanted: Metadata | None = None,
    ) -> tuple[list[Seen], bool]:
        """Jobs, newest first, and whether there are more. Raises `Problem` 400 when too many are searched."""
        pairs = None if wanted is None else wanted.pairs
        has_metadata = None if wanted is None else pairs is not None
        each = limit + 1 if pairs is None else _AT_ONCE
        seen: list[Seen] = []
        opened = 0
        while len(seen) <= limit:
            if pairs is not None and opened >= _SEARCHED:
                raise refusals.too_many_to_search(_SEARCHED)
            with self._db.read() as tx:
                jobs = store.listing(
                    tx, organization_id, project_id, limit=each, after=after, has_metadata=has_metadata
                )
            opened += len(jobs)
            found = self._shown.of(organization_id, jobs)
            seen += [one for one in found if wanted is None or wanted.within(one)]
            if len(jobs) < each:
                break
            after = jobs[-1].id
        return seen[:limit], len(seen) > limit

    def events(
        self,
        job_id: Id | None,
        organization_id: Id,
        project_id: Id | None,
        *,
        limit: int,
        after: Id | None = None,
    ) -> tuple[list[Event], bool]:
        """What is told of a job, newest first, and whether there is more. Raises `Problem` 404."""
        with self._db.read() as tx:
            job = self._found(tx, job_id, organization_id, project_id)
            before = None if after is None else store.number_of(tx, job.id, after)
            if after is not None and before is None:
                return [], False
            found = store.events_of(tx, job.id, limit=limit + 1, before=before)
        self._shown.settle([job])
        return found[:limit], len(found) > limit

    def news(
        self, job_id: Id | None, organization_id: Id, project_id: Id | None, after: int
    ) -> tuple[list[Event], bool]:
        """Events after a number, oldest first, and whether more can come. Raises `Problem` 404."""
        with self._db.read() as tx:
            job = self._found(tx, job_id, organization_id, project_id)
            found = store.events_of(tx, job.id, limit=500, after=after)
        self._shown.settle([job])
        return found, job.state in ACTIVE

    def checkpoints(
        self, job_id: Id | None, organization_id: Id, project_id: Id | None
    ) -> tuple[Seen, list[Checkpoint]]:
        """Where a job that has not ended could go on, newest first. Raises `Problem` 404."""
        with self._db.read() as tx:
            job = self._found(tx, job_id, organization_id, project_id)
            found = checkpoints.of_job(tx, job.id)
        return self._shown.one(job), found

    def curve(self, job: Job) -> list[tuple[int, Metrics]]:
        """What the steps have shown, in their order."""
        with self._db.read() as tx:
            return store.curve_of(tx, job.id)

    def _found(self, tx: Connection, job_id: Id | None, organization_id: Id, project_id: Id | None) -> Job:
        job = None if job_id is None else store.get(tx, job_id, organization_id, project_id)
        if job is None or job.deleting_at is not None:
            raise refusals.no_such_job()
        return job

    # --- change ------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: Id | None, organization_id: Id, project_id: Id | None) -> Seen:
        """Let a job end without a model. Raises `Problem` 404, 400 when it has ended otherwise."""

        def act(tx: Connection, job: Job, now_ms: int) -> bool:
            return transitions.cancel(tx, job.id, CancelReason.CUSTOMER, now_ms)

        return self._change(job_id, organization_id, project_id, act, already=TuningState.CANCELLED, done="cancelled")

    def pause(self, job_id: Id | None, organization_id: Id, project_id: Id | None) -> Seen:
        """Let a job wait, from its last checkpoint on. Raises `Problem` 404, 400."""

        def act(tx: Connection, job: Job, now_ms: int) -> bool:
            return transitions.pause(tx, job.id, now_ms)

        return self._change(job_id, organization_id, project_id, act, already=TuningState.PAUSED, done="paused")

    def resume(self, job_id: Id | None, organization_id: Id, project_id: Id | None) -> Seen:
        """Let a paused job go on. Raises `Problem` 404, 400."""

        def act(tx: Connection, job: Job, now_ms: int) -> bool:
            return transitions.resume(tx, job.id, now_ms)

        return self._change(job_id, organization_id, project_id, act, already=None, done="resumed")

    def _change(
        self,
        job_id: Id | None,
        organization_id: Id,
        project_id: Id | None,
        act: Callable[[Connection, Job, int], bool],
        *,
        already: TuningState | None,
        done: str,
    ) -> Seen:
        with self._db.write() as tx:
            job = self._found(tx, job_id, organization_id, project_id)
            if not act(tx, job, self._clock.now_ms()) and job.state is not already:
                raise refusals.wrong_state(job.state, done)
            job = self._found(tx, job_id, organization_id, project_id)
        return self._shown.one(job)

    def models_of_file(self, file_id: Id) -> list[str]:
        """The models that have learned from a file (or were imported from it): they stay when it goes."""
        with self._db.read() as tx:
            models = store.models_of_file(tx, file_id)
        names = []
        for model in models:
            labels = self._vault.labels([model.object_id], model.organization_id, Purpose.CUSTOMER)
            label = labels[model.object_id].label if model.object_id in labels else None
            if label is not None:
                name = label.reveal(Purpose.CUSTOMER).decode("utf-8", "replace")
                names.append(name_of(model.base_model, model.organization_id, name, model.hexadecimal))
        return names

    def input_deleted(self, file_id: Id) -> None:
        """A file was deleted: jobs that still need it end without a model. Who is not told here finds it gone."""
        with self._db.write() as tx:
            for job in store.with_file(tx, file_id):
                transitions.fail(tx, job.id, FailCode.FILE_GONE, self._clock.now_ms())


def _input(tx: Connection, file_id: Id | None, organization_id: Id, project_id: Id, param: str) -> File:
    found = None if file_id is None else file_of(tx, file_id, organization_id, project_id)
    if found is None or catalogue.one_kept(tx, found.object_id) is None:
        raise refusals.no_such_file(param)
    if found.purpose is not FilePurpose.FINE_TUNE:
        raise refusals.wrong_purpose(param)
    return found
