"""Batches as their owners' calls see them: created, looked up, listed, cancelled.

Holds: `Book`, `Order` (what is asked for), `InputFile` (what must be known of the input). Leaves out: HTTP (gateway),
validating and running (jobs), the input's own life (files).

create:
1. what is in force is read, and whether a batch may be kept at all is decided under its epoch;
2. one transaction: that epoch compared; the input found, of the right purpose, and kept for the whole window; a
   repeated call answered with the first one's batch; the row made. With metadata it is the very transaction that keeps
   them in the vault. COMMIT POINT;
3. whoever runs jobs is told. A process that dies before that is no loss: workers look for batches nobody has begun.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.principal import Principal
from keepless.accounts.store import policy_in_force
from keepless.accounts.tables import organization
from keepless.batches import store, transitions
from keepless.batches.values import Batch, BatchEndpoint, BatchState, CancelReason, LineError, NewBatch
from keepless.clock import Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Code, ErrorType, KeeplessError, Problem
from keepless.ids import Id
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Retain, Trigger
from keepless.policy.refusal import feature_refused
from keepless.vault.door import Vault
from keepless.vault.errors import (
    LocationRedError,
    NotKeptError,
    StaleEpochError,
    StoreFailedError,
    store_failures,
)
from keepless.vault.rows import Kept

__all__ = ["Book", "InputFile", "Order"]

_TRIES: Final = 5  # a policy that changes more often than this during one call is not waited for
_CANCELLED: Final = (BatchState.CANCELLING, BatchState.CANCELLED)


@dataclass(frozen=True, slots=True)
class InputFile:
    """What must be known of an input file. `end_ms` None = until deleted."""

    for_batches: bool  # its purpose
    end_ms: int | None


Inputs = Callable[[Connection, Id, Id], InputFile | None]


@dataclass(frozen=True, slots=True)
class Order:
    """A batch that is asked for; `metadata` as the JSON it will be answered as."""

    endpoint: BatchEndpoint
    input_file_id: Id | None  # None: what was typed cannot be a file's id
    window_ms: int
    metadata: Content | None = None
    output_life_ms: int | None = None
    repeat_key: bytes | None = None
    window_in_days: bool = False


class _RepeatedError(KeeplessError):
    """The call was made before; nothing of this one is kept."""

    def __init__(self, batch: Batch) -> None:
        super().__init__("repeated")
        self.batch: Final = batch


def _nothing(_: Id) -> None:
    """For who lets the workers' own look find the batch."""


class Book:
    """Batches of all projects. Every method blocks: call it from a worker thread.

    `inputs(tx, file_id, project_id)` finds an input file that is served now; `on_created` is told of a new batch.
    """

    def __init__(
        self, db: Database, clock: Clock, vault: Vault, inputs: Inputs, on_created: Callable[[Id], None] = _nothing
    ) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._inputs: Final = inputs
        self._on_created: Final = on_created

    def create(self, principal: Principal, order: Order, request_id: Id) -> tuple[Batch, Kept | None]:
        """A new batch with its metadata as they are kept, or the one that the same call made before.

        Raises `Problem` 400, 403, 404, 503.
        """
        for _ in range(_TRIES):
            try:
                with store_failures():
                    permit = self._permit(principal, request_id)
                    batch, new, kept = self._keep(principal, order, permit)
            except StaleEpochError:
                continue
            except (LocationRedError, StoreFailedError):
                raise _cannot_keep() from None
            if new:
                self._on_created(batch.id)
            return batch, kept
        raise _cannot_keep()

    def get(self, project_id: Id, batch_id: Id | None) -> tuple[Batch, list[LineError]]:
        """One batch and what was wrong with its input. Raises `Problem` 404."""
        with self._db.read() as tx:
            return self._found(tx, project_id, batch_id)

    def listing(
        self, project_id: Id, *, limit: int, after: Id | None = None, ids: Sequence[Id] | None = None
    ) -> list[tuple[Batch, list[LineError]]]:
        """Batches of a project, newest first, with what was wrong with each."""
        with self._db.read() as tx:
            found = store.listing(tx, project_id, limit=limit, after=after, ids=ids)
            return [(batch, _errors(tx, batch)) for batch in found]

    def cancel(self, project_id: Id, batch_id: Id | None) -> tuple[Batch, list[LineError]]:
        """Let a batch end with what is done. Raises `Problem` 404, 400 when it has ended otherwise."""
        with self._db.write() as tx:
            before, _ = self._found(tx, project_id, batch_id)
            now_ms = self._clock.now_ms()
            if not transitions.request_cancel(tx, before.id, CancelReason.CUSTOMER, now_ms):
                now, _ = self._found(tx, project_id, batch_id)
                if now.state not in _CANCELLED:
                    message = f"A batch that is {now.state.value} cannot be cancelled."
                    raise Problem(400, Code.INVALID_VALUE, message, param="batch_id", retry=False)
            return self._found(tx, project_id, batch_id)

    def metadata(self, batch: Batch) -> Content | None:
        """What the customer attached, as long as it is kept."""
        if batch.metadata_object_id is None:
            return None
        try:
            return self._vault.read(batch.metadata_object_id, batch.organization_id, Purpose.CUSTOMER)
        except NotKeptError:
            return None

    def _permit(self, principal: Principal, request_id: Id) -> Retain:
        own, below = principal.organization.id, principal.project.id
        with self._db.read() as tx:
            policy = policy_in_force(tx, own, below)
        decision = decide(
            Query(
                organization_id=own,
                project_id=below,
                data_class=DataClass.BATCH_INPUT,
                trigger=Trigger.FEATURE,
                reason=Reason.CUSTOMER_UPLOAD,
                effective=None if policy is None else policy.effective,
                epoch=0 if policy is None else policy.epoch,
                created_at_ms=self._clock.now_ms(),
                request_id=request_id,
            )
        )
        if isinstance(decision, Discard):
            raise feature_refused(Feature.BATCH, decision)
        return decision

    def _keep(self, principal: Principal, order: Order, permit: Retain) -> tuple[Batch, bool, Kept | None]:
        made: list[Batch] = []

        def within(tx: Connection, kept: Kept) -> None:
            batch, new = self._make(tx, principal, order, permit, kept.id)
            if not new:
                raise _RepeatedError(batch)
            made[:] = [batch]

        if order.metadata is not None:
            try:
                kept = self._vault.put(order.metadata, permit, within=within)
            except _RepeatedError as repeated:
                return repeated.batch, False, None
            return made[0], True, kept
        with self._db.write() as tx:
            epoch = sa.select(organization.c.epoch).where(organization.c.id == principal.organization.id)
            if tx.scalar(epoch.with_for_update(read=True)) != permit.epoch:
                raise StaleEpochError("the policy changed; decide again")
            return *self._make(tx, principal, order, permit, None), None

    def _make(
        self, tx: Connection, principal: Principal, order: Order, permit: Retain, metadata: Id | None
    ) -> tuple[Batch, bool]:
        project_id, now_ms = principal.project.id, permit.created_at_ms
        file_id = order.input_file_id
        found = None if file_id is None else self._inputs(tx, file_id, project_id)
        if file_id is None or found is None:
            raise Problem(404, Code.NOT_FOUND, "There is no file with this id.", param="input_file_id")
        if not found.for_batches:
            message = "The input of a batch must be a file with the purpose batch."
            raise Problem(400, Code.INVALID_VALUE, message, param="input_file_id")
        new = NewBatch(
            organization_id=principal.organization.id,
            project_id=project_id,
            key_id=principal.key_id,
            endpoint=order.endpoint,
            input_file_id=file_id,
            window_ms=order.window_ms,
            metadata_object_id=metadata,
            output_life_ms=order.output_life_ms,
            window_in_days=order.window_in_days,
        )
        batch, is_new = store.create(tx, new, now_ms, order.repeat_key)
        if not is_new:
            same = (batch.endpoint, batch.input_file_id, batch.window_ms, batch.output_life_ms)
            if same != (new.endpoint, new.input_file_id, new.window_ms, new.output_life_ms):
                message = "This idempotency key was used for another batch within the last day."
                raise Problem(400, Code.INVALID_VALUE, message, param="idempotency-key")
        elif found.end_ms is not None and found.end_ms < batch.expires_at:
            message = (
                "The input file would end before the completion window: upload it again, keep it longer, or ask for a "
                "shorter window."
            )
            raise Problem(400, Code.INVALID_VALUE, message, param="input_file_id")
        return batch, is_new

    @staticmethod
    def _found(tx: Connection, project_id: Id, batch_id: Id | None) -> tuple[Batch, list[LineError]]:
        found = None if batch_id is None else store.get(tx, batch_id, project_id)
        if found is None:
            raise Problem(404, Code.NOT_FOUND, "There is no batch with this id.", param="batch_id")
        return found, _errors(tx, found)


def _errors(tx: Connection, batch: Batch) -> list[LineError]:
    return store.errors_of(tx, batch.id) if batch.line_errors else []


def _cannot_keep() -> Problem:
    return Problem(
        503,
        Code.POLICY_UNREADABLE,
        "What a batch needs cannot be kept at the moment: the policy keeps changing, or the store or its location does "
        "not take it.",
        type=ErrorType.SERVER,
        retry=False,
    )
