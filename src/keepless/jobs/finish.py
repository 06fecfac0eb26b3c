"""The end of a batch: two files are made of what its shards have recorded, and the work is purged.

Holds: `Finisher`. Leaves out: when (overseer), records (journal), rows of files (files). Blocks; a job, so it may
begin again after a crash between any two steps, or while an earlier try still runs, unknown to who began it again:

1. What an earlier try has left of an output file is destroyed.
2. One pass over all journals decides which line stands in which file; a line that is recorded twice counts once.
3. Lines that were not run are told as expired or cancelled, as long as the input can be read.
4. The output is committed with its row and noted in the batch, which is not at its end yet.
5. The errors are committed with their row; in the same transaction the batch ends. COMMIT POINT
6. The work is purged, with receipts: the job has ended.

Of two tries that run at once one ends the batch, and the other keeps nothing. What is noted in the batch is whose turn
it is: an output is kept only by the transaction that notes it where none is noted (4); its key is destroyed only by the
one that takes the note back, while the batch has not ended (1); and a try ends the batch only while what it has noted
itself is noted there (5). Each of them holds the batch's row.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.batches import shards, store, transitions
from keepless.batches.tables import batch as batch_table
from keepless.batches.values import Batch, BatchState, CancelReason, Counts, Usage
from keepless.clock import Clock
from keepless.content import Content
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.jobs.files import ResultFiles, ResultKind
from keepless.jobs.journal import PolicyNow
from keepless.jobs.line_shapes import read_line
from keepless.jobs.lines import split
from keepless.jobs.result_shapes import usage_in
from keepless.jobs.results import Undone, unanswered, unseal
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Retain, Trigger
from keepless.vault.door import Shredding, Vault
from keepless.vault.errors import NotKeptError, StaleEpochError
from keepless.vault.reading import ObjectReader
from keepless.vault.rows import Kept
from keepless.vault.states import Cause
from keepless.vault.writer import ObjectWriter

__all__ = ["Destroy", "Finisher", "Inputs"]

_PIECE: Final = 256 * 1024
_TRIES: Final = 5

Destroy = Callable[[Sequence[Id]], bool]  # with receipts, for the job has ended; False: ask again
Inputs = Callable[[Batch], ObjectReader]
_State = sa.ColumnElement[bool]

_TO_END: Final = (BatchState.FINALIZING, BatchState.CANCELLING)
_NOT_ENDED: Final = batch_table.c.state.in_(_TO_END)
_REFUSED: Final = sa.and_(  # cancelled at once: whatever is noted, it was never its result
    batch_table.c.state == BatchState.CANCELLED, batch_table.c.cancel_reason == CancelReason.POLICY
)


class _NotAllowedError(Exception):
    """The policy does not allow results any more."""


class _LostError(Exception):
    """The batch has ended, or what is noted in it is another try's: this one keeps nothing."""


class _Result:
    """One result file while it is written; nothing is begun before its first line."""

    def __init__(self, begin: Callable[[], ObjectWriter]) -> None:
        self._begin: Final = begin
        self._lines: list[bytes] = []
        self._held = 0
        self.writer: ObjectWriter | None = None
        self.count = 0
        self._tokens = [0, 0, 0, 0]

    def add(self, line: bytes) -> None:
        self.count += 1
        self._lines += (line, b"\n")
        self._held += len(line) + 1
        if self._held >= _PIECE:
            self.flush()

    def cost(self, usage: Usage) -> None:
        """What the answer in a line has cost."""
        sums = self._tokens
        sums[0] += usage.input
        sums[1] += usage.cached
        sums[2] += usage.output
        sums[3] += usage.reasoning

    @property
    def usage(self) -> Usage:
        """What all of them have cost."""
        return Usage(*self._tokens)

    def flush(self) -> None:
        if self._lines:
            if self.writer is None:
                self.writer = self._begin()
            self.writer.write(Content(b"".join(self._lines)))
            self._lines.clear()
            self._held = 0

    def abort(self) -> None:
        if self.writer is not None:
            self.writer.abort()


class Finisher:
    """Ends batches."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        destroy: Destroy,
        files: ResultFiles,
        policy_now: PolicyNow,
        inputs: Inputs,
        line_bytes: int,
    ) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._clock: Final = clock
        self._destroy: Final = destroy
        self._files: Final = files
        self._policy_now: Final = policy_now
        self._inputs: Final = inputs
        self._line_bytes: Final = line_bytes

    def finish(self, batch_id: Id) -> None:
        """End one batch that is `finalizing` or `cancelling`; see that nothing is left of one that the policy ended."""
        with self._db.read() as tx:
            batch = store.get(tx, batch_id)
        if batch is not None and batch.state in _TO_END:
            self._undo(batch_id, _NOT_ENDED)
            output, errors = self._result(batch), self._result(batch)
            try:
                self._end(batch, output, errors, self._sort(batch, output, errors))
            except _NotAllowedError:
                with self._db.write() as tx:
                    transitions.cancel_at_once(tx, [batch_id], self._clock.now_ms())
            except _LostError:
                pass  # it is ended by whoever has won; who dies before that is followed by a new try
            finally:
                output.abort()
                errors.abort()
        self._undo(batch_id, _REFUSED)
        self.purge(batch_id)

    def purge(self, batch_id: Id) -> None:
        """Destroy the work of a batch that has ended; nothing while it has not."""
        with self._db.read() as tx:
            batch = store.get(tx, batch_id)
            ids = shards.journals_of(tx, batch_id)
        if ids and (batch is None or batch.ended_at is not None):
            done = self._destroy(ids)
            if done:
                with self._db.write() as tx:
                    shards.drop_journals(tx, ids)

    def _result(self, batch: Batch) -> _Result:
        return _Result(lambda: self._vault.writing(batch.organization_id))

    # 1.
    def _undo(self, batch_id: Id, state: _State) -> None:
        """Destroy the output that is noted in a batch of that state.

        Its key and its row go by the transaction that takes the note back, or none of them: what is interrupted
        afterwards is finished by the sweep. The batch's row comes last, as where an output is kept.
        """
        noted = batch_table.c.output_file_id
        there = sa.and_(batch_table.c.id == batch_id, state, noted.is_not(None))
        with self._db.read() as tx:
            file_id = tx.scalar(sa.select(noted).where(there))
        if file_id is None:
            return
        try:
            with self._db.write() as tx:
                shredding = self._take_back(tx, file_id, sa.and_(there, noted == file_id))
        except _LostError:
            return  # it has ended, or notes another one, since it was read
        if shredding.held:
            self._destroy(shredding.held)  # what a hold keeps goes under the hold's own key
        erased = self._vault.erase(shredding.shredded)
        if erased:
            with self._db.write() as tx:
                self._vault.settle(tx, erased)

    def _take_back(self, tx: Connection, file_id: Id, there: _State) -> Shredding:
        object_id = self._files.remove(tx, file_id)
        shredding = self._vault.shred(tx, [] if object_id is None else [object_id], Cause.JOB_ENDED)
        if tx.execute(batch_table.update().where(there).values(output_file_id=None)).rowcount == 0:
            raise _LostError
        return shredding

    # 2. and 3.
    def _sort(self, batch: Batch, output: _Result, errors: _Result) -> bool:
        """Every line into its file; whether some were not run."""
        seen = bytearray(batch.counts.total + 1)
        with self._db.read() as tx:
            ids = shards.journals_of(tx, batch.id)
        for object_id in ids:
            for content in self._vault.journal_records(object_id, batch.organization_id):
                record = unseal(content)
                if not seen[record.number]:
                    seen[record.number] = 1
                    (output if record.succeeded else errors).add(record.line)
                    if record.succeeded:
                        output.cost(usage_in(record.line))
        undone = seen.count(0) > 1
        if undone:
            why = Undone.EXPIRED if batch.state is BatchState.FINALIZING else Undone.CANCELLED
            for number, custom_id in self._custom_ids(batch):
                if number < len(seen) and not seen[number]:
                    errors.add(unanswered(custom_id, why))
        output.flush()
        errors.flush()
        return undone

    def _custom_ids(self, batch: Batch) -> Iterator[tuple[int, str]]:
        if batch.cancel_reason is CancelReason.INPUT_DELETED:
            return
        try:
            for line in split(self._inputs(batch).stream(), self._line_bytes):
                if line.data is not None:
                    yield line.number, read_line(line.data).custom_id
        except NotKeptError:
            return  # deleted meanwhile: what was not run cannot be named any more

    # 4. and 5.
    def _end(self, batch: Batch, output: _Result, errors: _Result, undone: bool) -> None:
        state = BatchState.CANCELLED
        if batch.state is BatchState.FINALIZING:
            state = BatchState.EXPIRED if undone else BatchState.COMPLETED
        counts = Counts(batch.counts.total, output.count, errors.count)
        output_id: Id | None = None
        error_id: Id | None = None
        if output.writer is not None:
            output_id = mint(Prefix.FILE)
            self._commit(batch, output.writer, ResultKind.OUTPUT, output_id, lambda tx: _note(tx, batch, output_id))

        def end(tx: Connection) -> None:
            _own(tx, batch, output_id)
            done = transitions.end(
                tx,
                batch.id,
                state,
                counts,
                self._clock.now_ms(),
                output_file_id=output_id,
                error_file_id=error_id,
                usage=output.usage,
            )
            if not done:
                raise _LostError

        if errors.writer is not None:
            error_id = mint(Prefix.FILE)
            self._commit(batch, errors.writer, ResultKind.ERROR, error_id, end)
        else:
            with self._db.write() as tx:
                end(tx)

    def _commit(
        self, batch: Batch, writer: ObjectWriter, kind: ResultKind, file_id: Id, also: Callable[[Connection], None]
    ) -> None:
        def within(tx: Connection, kept: Kept) -> None:
            self._files.add(tx, file_id, kept, writer.size, kind)
            also(tx)

        label = Content(f"{batch.id}_{kind.name.lower()}.jsonl".encode("ascii"))
        for _ in range(_TRIES):
            try:
                writer.commit(self._permit(batch, kind), label=label, within=within)
            except StaleEpochError:
                continue
            return
        raise StaleEpochError("the policy keeps changing")

    def _permit(self, batch: Batch, kind: ResultKind) -> Retain:
        policy = self._policy_now(batch.organization_id, batch.project_id)
        now = self._clock.now_ms()
        decision = decide(
            Query(
                organization_id=batch.organization_id,
                project_id=batch.project_id,
                data_class=kind.value,
                trigger=Trigger.FEATURE,
                reason=Reason.FEATURE_RESULT,
                effective=None if policy is None else policy.effective,
                epoch=0 if policy is None else policy.epoch,
                created_at_ms=now,
                ends_at_ms=None if batch.output_life_ms is None else now + batch.output_life_ms,
            )
        )
        if isinstance(decision, Discard):
            raise _NotAllowedError
        return decision


def _own(tx: Connection, batch: Batch, output_id: Id | None) -> None:
    """See that a batch is as it was and notes this output (or none); its row is locked, so that it stays so.

    Raises `_LostError`.
    """
    as_it_was = (batch_table.c.id == batch.id, batch_table.c.state == batch.state)
    noted = batch_table.c.output_file_id.is_not_distinct_from(output_id)
    if tx.execute(sa.select(batch_table.c.id).where(*as_it_was, noted).with_for_update()).one_or_none() is None:
        raise _LostError


def _note(tx: Connection, batch: Batch, output_id: Id | None) -> None:
    """Remember the output in the batch that is about to end. Raises `_LostError`."""
    _own(tx, batch, None)
    tx.execute(batch_table.update().where(batch_table.c.id == batch.id).values(output_file_id=output_id))
