"""Uploads: a file that comes in parts, each sealed as it comes, put together without ever being plain on disk.

Holds: `Uploads`. Leaves out: forms and HTTP (gateway).

1. create: a small object that holds the name (sealed), and the row;
2. parts: one object each, class `upload_part` (of a dataset: the dataset's), which end with the upload: an hour after
   its creation. Together they have what was announced, and at most one part more;
3. complete: the parts are opened, in the order that was asked for, and sealed again as one file; one transaction keeps
   the file and ends the upload: COMMIT POINT. Then the parts are destroyed; a crash before leaves them to their end.
cancel: the row says so, then the parts are destroyed.

One that is pending counts as a file of the announced size when another is begun (`Files.demand_room`), so what an
organization has stored is bounded by its limits however many uploads it leaves open.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.clock import DAY_MS, Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.files import refusals
from keepless.files.service import Deleter, Files, Intended
from keepless.files.tables import upload, upload_part
from keepless.files.values import UPLOADED, File, FilePurpose, Part, Upload, UploadState
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.policy.data_class import DataClass
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError
from keepless.vault.rows import Kept
from keepless.vault.writer import ObjectWriter

__all__ = ["LIFE_S", "PartWriter", "Uploads"]

LIFE_S: Final = 3600
_NO_NAME: Final = Content(b"")
_MOST_PARTS: Final = 10_000


class Uploads:
    """The uploads of a deployment. Thread-safe; every method blocks: call it from a worker thread."""

    def __init__(self, db: Database, clock: Clock, vault: Vault, files: Files, deleter: Deleter) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._files: Final = files
        self._deleter: Final = deleter

    @property
    def part_bytes(self) -> int:
        """How large one part may be."""
        return self._files.limits.part_bytes

    def create(
        self,
        organization_id: Id,
        project_id: Id,
        *,
        purpose: FilePurpose,
        size: int,
        name: Content,
        ends_after_s: int | None = None,
        request: RequestControls = NO_REQUEST,
        request_id: Id | None = None,
    ) -> tuple[Upload, Kept]:
        """Begin one of a size that is announced. Raises `Problem`."""
        if size > self._files.limits.file_bytes:
            raise refusals.too_large(self._files.limits.file_bytes)
        # What it will become must be allowed now; the file itself is decided about when it is complete.
        self._files.check(organization_id, project_id, Intended(purpose, UPLOADED[purpose], _NO_NAME, request=request))
        made: list[Upload] = []

        def with_it(tx: Connection, row: Kept) -> None:
            # Who begins one of the same class in the same project waits for this transaction, as both add to one total
            # of kept objects (the name's): so each counts the other's. Another project's, at the same instant, may be
            # one too many.
            self._files.demand_room(tx, organization_id, size, row.created_at)
            one = Upload(
                id=mint(Prefix.UPLOAD),
                name_object_id=row.id,
                organization_id=organization_id,
                project_id=project_id,
                purpose=purpose,
                size=size,
                ends_after_s=ends_after_s,
                created_at=row.created_at,
                expires_at=row.created_at + LIFE_S * 1000,
                state=UploadState.PENDING,
            )
            made[:] = [one]
            tx.execute(upload.insert().values(_values(one)))

        with self._vault.writing(organization_id) as writer:
            intended = self._part_of(purpose, name, LIFE_S, request, request_id)
            row = self._files.commit(writer, organization_id, project_id, intended, with_it)
        return made[0], row

    @staticmethod
    def _part_of(
        purpose: FilePurpose, name: Content, life_s: int, request: RequestControls, request_id: Id | None
    ) -> Intended:
        becomes = UPLOADED[purpose]
        # A class has one feature: parts of a dataset are of the dataset's own, so that one control governs both.
        kind = becomes if becomes is DataClass.FINE_TUNING_DATASET else DataClass.UPLOAD_PART
        return Intended(purpose, kind, name, request=request, request_id=request_id, ends_after_s=life_s)

    def adding(
        self,
        upload_id: Id,
        organization_id: Id,
        project_id: Id,
        *,
        request: RequestControls = NO_REQUEST,
        request_id: Id | None = None,
    ) -> "PartWriter":
        """Begin a part: `with uploads.adding(...) as writer`, then `commit`. Raises `Problem` 404, 400."""
        one = self._pending(upload_id, organization_id, project_id)
        left = max(1, (one.expires_at - self._clock.now_ms()) // 1000)
        intended = self._part_of(one.purpose, _NO_NAME, left, request, request_id)
        return PartWriter(self._files, self._vault, one, intended)

    def complete(
        self,
        upload_id: Id,
        organization_id: Id,
        project_id: Id,
        part_ids: Sequence[Id],
        *,
        md5: str | None = None,
        request: RequestControls = NO_REQUEST,
        request_id: Id | None = None,
    ) -> tuple[Upload, File, Kept, bytes]:
        """Make the file out of parts, in this order; also its name. Raises `Problem`."""
        one = self._pending(upload_id, organization_id, project_id)
        # Said first: a feature that is off has perhaps left nothing of the name and the parts to complain about.
        self._files.check(organization_id, project_id, Intended(one.purpose, UPLOADED[one.purpose], _NO_NAME))
        parts = self._wanted(one, part_ids)
        name = self._name(one)
        intended = Intended(
            one.purpose,
            UPLOADED[one.purpose],
            name,
            request=request,
            request_id=request_id,
            ends_after_s=one.ends_after_s,
        )
        with self._files.writing(organization_id, project_id) as writer:
            digest = hashlib.md5(usedforsecurity=False)  # the client's own check; it is never kept
            for part in parts:
                with _gone_is_expired():
                    for piece in self._vault.reader(part.object_id, organization_id, Purpose.CUSTOMER).stream():
                        if md5 is not None:
                            digest.update(piece.reveal(Purpose.CUSTOMER))
                        writer.write(piece)
            if md5 is not None and digest.hexdigest() != md5:
                raise Problem(400, Code.INVALID_VALUE, "The parts do not have this MD5 checksum.", param="md5")
            file, kept = writer.commit(intended, within=lambda tx, it: _end(tx, one, UploadState.COMPLETED, it.id))
        self._destroy(one)
        ended = self._one(upload_id, organization_id, project_id)
        return ended, file, kept, name.reveal(Purpose.CUSTOMER)

    def cancel(self, upload_id: Id, organization_id: Id, project_id: Id) -> tuple[Upload, bytes]:
        """End an upload without a file; also its name. Raises `Problem` 404, 400."""
        one = self._pending(upload_id, organization_id, project_id)
        name = self._name(one)
        with self._db.write() as tx:
            _end(tx, one, UploadState.CANCELLED, None)
        self._destroy(one)
        return self._one(upload_id, organization_id, project_id), name.reveal(Purpose.CUSTOMER)

    def forget_ended(self) -> int:
        """Remove the rows of uploads that ended a day ago; how many."""
        ended = sa.select(upload.c.id).where(upload.c.expires_at <= self._clock.now_ms() - DAY_MS).limit(500)
        with self._db.write() as tx:
            ids = list(tx.execute(ended).scalars())
            if ids:
                tx.execute(upload_part.delete().where(upload_part.c.upload_id.in_(ids)))
                tx.execute(upload.delete().where(upload.c.id.in_(ids)))
        return len(ids)

    # --- steps -------------------------------------------------------------------------------------------------------

    def _one(self, upload_id: Id, organization_id: Id, project_id: Id) -> Upload:
        with self._db.read() as tx:
            row = tx.execute(
                sa.select(upload).where(
                    upload.c.id == upload_id,
                    upload.c.organization_id == organization_id,
                    upload.c.project_id == project_id,
                )
            ).one_or_none()
        if row is None:
            raise _no_such_upload()
        return _read(row)

    def _pending(self, upload_id: Id, organization_id: Id, project_id: Id) -> Upload:
        one = self._one(upload_id, organization_id, project_id)
        if one.state is UploadState.PENDING and self._clock.now_ms() >= one.expires_at:
            raise _not_pending(UploadState.EXPIRED)
        if one.state is not UploadState.PENDING:
            raise _not_pending(one.state)
        return one

    def _wanted(self, one: Upload, part_ids: Sequence[Id]) -> list[Part]:
        with self._db.read() as tx:
            there = {part.id: part for part in _parts(tx, one.id)}
        if not part_ids or len(set(part_ids)) != len(part_ids) or any(part not in there for part in part_ids):
            raise Problem(
                400,
                Code.INVALID_VALUE,
                "'part_ids' must name parts of this upload, each at most once.",
                param="part_ids",
            )
        parts = [there[part] for part in part_ids]
        total = sum(part.size for part in parts)
        if total != one.size:
            raise Problem(
                400,
                Code.INVALID_VALUE,
                f"The parts have {total} bytes together; the upload was announced with {one.size}.",
                param="part_ids",
            )
        return parts

    def _name(self, one: Upload) -> Content:
        with _gone_is_expired():
            found = self._vault.reader(one.name_object_id, one.organization_id, Purpose.CUSTOMER).label()
        return _NO_NAME if found is None else found

    def _destroy(self, one: Upload) -> None:
        """What fails of it is left to its end, within the hour."""
        with self._db.read() as tx:
            objects = [one.name_object_id, *(part.object_id for part in _parts(tx, one.id))]
        for object_id in objects:
            self._deleter.delete_object(one.organization_id, object_id)


class PartWriter:
    """One part being written; a context manager that leaves nothing of what was not committed."""

    def __init__(self, files: Files, vault: Vault, of: Upload, intended: Intended) -> None:
        self._files: Final = files
        self._of: Final = of
        self._intended: Final = intended
        self._largest: Final = min(files.limits.part_bytes, of.size)
        self._writer: Final[ObjectWriter] = vault.writing(of.organization_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, content: Content) -> None:
        """Take the next piece. Raises `Problem` 413, `StoreFailedError`."""
        if self._writer.size + content.size > self._largest:
            raise part_too_large(self._files.limits.part_bytes)
        self._writer.write(content)

    def commit(self) -> tuple[Part, Kept]:
        """Keep the part. Raises `Problem`, `LocationRedError`, `StoreFailedError`; then nothing is kept."""
        if self._writer.size == 0:
            raise Problem(400, Code.INVALID_VALUE, "The part is empty.", param="data")
        made: list[Part] = []

        def with_it(tx: Connection, row: Kept) -> None:
            state = tx.execute(sa.select(upload.c.state).where(upload.c.id == self._of.id).with_for_update()).scalar()
            if state is not UploadState.PENDING:
                raise _not_pending(state or UploadState.EXPIRED)
            parts = _parts(tx, self._of.id)
            if len(parts) >= _MOST_PARTS:
                raise Problem(400, Code.INVALID_VALUE, f"An upload has at most {_MOST_PARTS} parts.", param="data")
            # Which parts make the file is said at its completion, and a client that sends one again because its answer
            # was lost has it twice: so one more, as large as any may be, fits in. Without an end a single upload could
            # fill the store with parts that no file of it has room for.
            most = self._of.size + self._largest
            if sum(part.size for part in parts) + self._writer.size > most:
                raise _too_much(self._of.size, most)
            part = Part(mint(Prefix.UPLOAD_PART), self._of.id, row.id, self._writer.size, row.created_at)
            made[:] = [part]
            values = {"object_id": part.object_id, "bytes": part.size, "created_at": part.created_at}
            tx.execute(upload_part.insert().values(id=part.id, upload_id=part.upload_id, **values))

        of = self._of
        row = self._files.commit(self._writer, of.organization_id, of.project_id, self._intended, with_it)
        return made[0], row

    def abort(self) -> None:
        """Leave nothing, if it was not committed."""
        self._writer.abort()


def part_too_large(limit: int) -> Problem:
    """`limit` in bytes."""
    return Problem(
        413,
        Code.REQUEST_TOO_LARGE,
        f"The part is larger than {limit} bytes (limits.part_bytes), or than the whole upload.",
        param="data",
    )


def _too_much(announced: int, most: int) -> Problem:
    return Problem(
        400,
        Code.INVALID_VALUE,
        f"The parts of this upload would have more than {most} bytes together: it was announced with {announced} "
        "('bytes'), and one part may be sent twice. Complete it, or cancel it and begin another.",
        param="data",
    )


def _end(tx: Connection, one: Upload, state: UploadState, file_id: Id | None) -> None:
    """Raises `Problem` 400 when somebody else has ended it meanwhile."""
    pending = sa.and_(upload.c.id == one.id, upload.c.state == UploadState.PENDING)
    if tx.execute(upload.update().where(pending).values(state=state, file_id=file_id)).rowcount == 0:
        raise _not_pending(None)


def _parts(tx: Connection, upload_id: Id) -> list[Part]:
    rows = tx.execute(sa.select(upload_part).where(upload_part.c.upload_id == upload_id))
    return [Part(row.id, row.upload_id, row.object_id, row.bytes, row.created_at) for row in rows]


def _values(one: Upload) -> dict[str, Any]:
    return {column.name: getattr(one, "size" if column.name == "bytes" else column.name) for column in upload.c}


def _read(row: Row[Any]) -> Upload:
    return Upload(
        id=row.id,
        name_object_id=row.name_object_id,
        organization_id=row.organization_id,
        project_id=row.project_id,
        purpose=row.purpose,
        size=row.bytes,
        ends_after_s=row.ends_after_s,
        created_at=row.created_at,
        expires_at=row.expires_at,
        state=row.state,
        file_id=row.file_id,
    )


@contextlib.contextmanager
def _gone_is_expired() -> Any:
    """A part that ended in the middle of it: so did the upload."""
    try:
        yield
    except NotKeptError:
        raise _not_pending(UploadState.EXPIRED) from None


def _no_such_upload() -> Problem:
    return Problem(404, Code.NOT_FOUND, "No such Upload object.", param="upload_id")


def _not_pending(state: UploadState | None) -> Problem:
    return Problem(
        400,
        Code.INVALID_VALUE,
        f"The upload is {'not pending any more' if state is None else state.value}.",
        param="upload_id",
    )
