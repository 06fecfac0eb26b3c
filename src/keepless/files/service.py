"""Files: written piece by piece, listed, opened and deleted, each in the steps of the vault.

Holds: `Files` and `FileWriter`. Leaves out: forms and HTTP (gateway), what reads a file (jobs).

Write: a writer of the vault -> pieces -> decide under the policy in force -> one transaction: the object, its sealed
name, the row of `file`, what the caller keeps with it. COMMIT POINT. A policy that changed meanwhile is decided again.
Delete: as any object (expiry.purge); the row goes when the store has acknowledged, so that a DELETE can be repeated.

An owner's project is None: files of every project of the organization, also what a feature that is off has left.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from sqlalchemy.engine import Connection

from keepless.accounts import places
from keepless.accounts.places import Placed
from keepless.accounts.principal import PolicyInForce
from keepless.clock import Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Problem
from keepless.expiry.purge import Deletion, Outcome
from keepless.files import refusals, store
from keepless.files.values import Described, File, FilePurpose
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Retain, Trigger
from keepless.policy.refusal import feature_disabled
from keepless.policy.schedule import row_of
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError, StaleEpochError
from keepless.vault.reading import ObjectReader
from keepless.vault.rows import Kept
from keepless.vault.writer import ObjectWriter

__all__ = ["FileLimits", "FileWriter", "Files", "Intended", "Within"]

_ATTEMPTS: Final = 4
PolicyReader = Callable[[Id, Id], PolicyInForce | None]  # organization, project -> what is in force now
Within = Callable[[Connection, File], None]


def _is_off(policy: PolicyInForce | None, data_class: DataClass) -> Problem:
    """The refusal of a class of files that may not be used now, by the level that decided."""
    feature = row_of(data_class).feature
    return (
        feature_disabled(feature)
        if policy is None
        else feature_disabled(feature, policy.effective.feature_source[feature])
    )


def _nothing_more(tx: Connection, one: File) -> None:
    """Nothing but the file is kept by the transaction."""


class Deleter(Protocol):
    """Who destroys (expiry)."""

    def delete_object(self, organization_id: Id, object_id: Id) -> Deletion:
        """A customer's DELETE."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Ceilings: bytes of one file; files and bytes of one organization; bytes of one part of an upload.

    When an upload is begun, those of the organization that are pending count as files of their announced sizes.
    """

    file_bytes: int
    files: int
    files_bytes: int
    part_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Intended:
    """What a file is to be. `ends_after_s`: an earlier end that was asked for, seconds after its creation."""

    purpose: FilePurpose
    data_class: DataClass
    name: Content
    reason: Reason = Reason.CUSTOMER_UPLOAD
    request: RequestControls = NO_REQUEST
    request_id: Id | None = None
    ends_after_s: int | None = None


class Files:
    """The files of a deployment. Thread-safe; every method blocks: call it from a worker thread."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        vault: Vault,
        *,
        deleter: Deleter,
        policy_now: PolicyReader,
        limits: FileLimits,
    ) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._deleter: Final = deleter
        self._policy_now: Final = policy_now
        self.limits: Final = limits

    # --- write -------------------------------------------------------------------------------------------------------

    def check(self, organization_id: Id, project_id: Id, intended: Intended) -> None:
        """Refuse what could not be committed anyway, before it is written. Raises `Problem`."""
        self._decide(organization_id, project_id, intended, self._clock.now_ms())

    def writing(self, organization_id: Id, project_id: Id) -> "FileWriter":
        """Begin a file: `with files.writing(...) as writer`, then `commit`. Raises as `Vault.writing`."""
        return FileWriter(self, self._vault, organization_id, project_id)

    def permit(self, organization_id: Id, project_id: Id, intended: Intended) -> Retain:
        """Decide under the policy in force now. Raises `Problem`."""
        return self._decide(organization_id, project_id, intended, self._clock.now_ms())

    def _decide(self, organization_id: Id, project_id: Id, intended: Intended, now_ms: int) -> Retain:
        policy = self._policy_now(organization_id, project_id)
        asked = intended.ends_after_s
        decision = decide(
            Query(
                organization_id=organization_id,
                project_id=project_id,
                data_class=intended.data_class,
                trigger=Trigger.FEATURE,
                reason=intended.reason,
                effective=None if policy is None else policy.effective,
                epoch=0 if policy is None else policy.epoch,
                created_at_ms=now_ms,
                request=intended.request,
                request_id=intended.request_id,
                ends_at_ms=None if asked is None else now_ms + asked * 1000,
            )
        )
        if isinstance(decision, Discard):
            raise refusals.not_kept(decision, row_of(intended.data_class).feature)
        return decision

    def commit(
        self,
        writer: ObjectWriter,
        organization_id: Id,
        project_id: Id,
        intended: Intended,
        within: Callable[[Connection, Kept], None],
    ) -> Kept:
        """Keep what was written, decided again when the policy changed meanwhile. Raises as `FileWriter.commit`."""
        for _ in range(_ATTEMPTS - 1):
            permit = self.permit(organization_id, project_id, intended)
            with contextlib.suppress(StaleEpochError):
                return writer.commit(permit, label=intended.name, within=within)
        return writer.commit(self.permit(organization_id, project_id, intended), label=intended.name, within=within)

    def add(self, tx: Connection, one: File) -> None:
        """List a file in the transaction that commits its object, if there is room. Raises `Problem` 413."""
        files, size = store.count_of(tx, one.organization_id)
        if files >= self.limits.files:
            raise refusals.too_many("files", self.limits.files)
        if size + one.size > self.limits.files_bytes:
            raise refusals.too_many("files_bytes", self.limits.files_bytes)
        store.add(tx, one)

    def demand_room(self, tx: Connection, organization_id: Id, size: int, now_ms: int) -> None:
        """Refuse an upload that would have no room beside the files and what pending uploads become. `Problem` 413."""
        files, held = store.count_of(tx, organization_id)
        pending, announced = store.pending_of(tx, organization_id, now_ms)
        if files + pending >= self.limits.files:
            raise refusals.no_room("files", self.limits.files)
        if held + announced + size > self.limits.files_bytes:
            raise refusals.no_room("files_bytes", self.limits.files_bytes)

    # --- read --------------------------------------------------------------------------------------------------------

    def describe(self, file_id: Id, organization_id: Id, project_id: Id | None) -> Described:
        """One file. Raises `Problem` 404, 403."""
        found = self._described([self._one(file_id, organization_id, project_id)])
        if not found:
            raise refusals.no_such_file()
        return found[0]

    def open(self, file_id: Id, organization_id: Id, project_id: Id | None, purpose: Purpose) -> ObjectReader:
        """A file's content, to be read in parts. Raises `Problem` 404, 403."""
        one = self._one(file_id, organization_id, project_id)
        try:
            return self._vault.reader(one.object_id, organization_id, purpose)
        except NotKeptError:
            raise refusals.no_such_file() from None

    def page(
        self,
        organization_id: Id,
        project_id: Id | None,
        *,
        limit: int,
        after: Id | None = None,
        oldest_first: bool = False,
        purpose: FilePurpose | None = None,
    ) -> tuple[list[Described], bool]:
        """Files that live, and whether there are more. Raises `Problem` 404 (`after`), 403 (every feature is off)."""
        classes = self._classes(organization_id, project_id, purpose)
        place = None if after is None else self._place(after, organization_id, project_id)
        found: list[Described] = []
        while len(found) <= limit:
            with self._db.read() as tx:
                rows = store.listing(
                    tx,
                    organization_id,
                    project_id,
                    limit=limit + 1,
                    after=place,
                    oldest_first=oldest_first,
                    purpose=purpose,
                    classes=classes,
                )
            found += self._described(rows)
            if len(rows) <= limit:
                break
            place = rows[-1]
        return found[:limit], len(found) > limit

    def _one(self, file_id: Id, organization_id: Id, project_id: Id | None) -> File:
        with self._db.read() as tx:
            one = store.get(tx, file_id, organization_id, project_id)
        if one is None:
            raise refusals.no_such_file()
        if project_id is not None:
            self._demand_feature(one)
        return one

    def _place(self, file_id: Id, organization_id: Id, project_id: Id | None) -> Placed:
        with self._db.read() as tx:
            one = store.get(tx, file_id, organization_id, project_id)
            place = one or places.found(tx, file_id, organization_id, project_id)
        if place is None:
            raise refusals.no_such_file()
        return place

    def _demand_feature(self, one: File) -> None:
        """What a feature that is off has left is for owners (DECISIONS 6). Raises `Problem` 403."""
        policy = self._policy_now(one.organization_id, one.project_id)
        if policy is None or not policy.effective.allows(one.data_class):
            raise _is_off(policy, one.data_class)

    def _classes(
        self, organization_id: Id, project_id: Id | None, purpose: FilePurpose | None
    ) -> Sequence[DataClass] | None:
        """The classes that a project may use now; None = every class, for an owner."""
        if project_id is None:
            return None
        policy = self._policy_now(organization_id, project_id)
        wanted = _OF_PURPOSE[purpose] if purpose is not None else tuple(DataClass)
        allowed = [one for one in wanted if policy is not None and policy.effective.allows(one)]
        named = [one for one in allowed if one in _FILES]
        if not named:
            raise _is_off(policy, next(one for one in wanted if one in _FILES))
        return named

    def _described(self, files: Sequence[File]) -> list[Described]:
        found: list[Described] = []
        by_owner: dict[Id, list[File]] = {}
        for one in files:
            by_owner.setdefault(one.organization_id, []).append(one)
        for organization_id, theirs in by_owner.items():
            served = self._vault.labels([one.object_id for one in theirs], organization_id, Purpose.CUSTOMER)
            for one in theirs:
                if one.object_id in served:
                    it = served[one.object_id]
                    name = b"" if it.label is None else it.label.reveal(Purpose.CUSTOMER)
                    found.append(Described(one, it.ends_at, name))
        return found

    # --- delete ------------------------------------------------------------------------------------------------------

    def delete(self, file_id: Id, organization_id: Id, project_id: Id | None) -> None:
        """Destroy a file; returns when its key is destroyed and its store has acknowledged (DECISIONS 13).

        Raises `Problem` 404, 403, 423 (held), 503 (the store has not acknowledged yet).
        """
        one = self._one(file_id, organization_id, project_id)
        done = self._deleter.delete_object(organization_id, one.object_id)
        if done.outcome is Outcome.HELD:
            raise refusals.held(tuple(done.hold_ids))
        if done.outcome is Outcome.PENDING:
            raise refusals.deletion_pending()
        if done.outcome is Outcome.UNKNOWN:
            raise refusals.no_such_file()
        with self._db.write() as tx:
            store.remove(tx, [file_id], self._clock.now_ms())

    def forget_dead(self) -> int:
        """Remove the rows of files whose objects are destroyed; how many."""
        removed = 0
        while True:
            with self._db.write() as tx:
                some = store.remove_dead(tx, self._clock.now_ms())
            removed += some
            if not some:
                return removed


class FileWriter:
    """One file being written; a context manager that leaves nothing of what was not committed."""

    def __init__(self, files: Files, vault: Vault, organization_id: Id, project_id: Id) -> None:
        self._files: Final = files
        self._writer: Final = vault.writing(organization_id)
        self._organization_id: Final = organization_id
        self._project_id: Final = project_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    def write(self, content: Content) -> None:
        """Take the next piece. Raises `Problem` 413, `StoreFailedError`."""
        if self._writer.size + content.size > self._files.limits.file_bytes:
            raise refusals.too_large(self._files.limits.file_bytes)
        self._writer.write(content)

    def commit(self, intended: Intended, *, within: Within = _nothing_more) -> tuple[File, Kept]:
        """Keep the file. `within` writes what belongs to it in the same transaction, perhaps more than once.

        Raises `Problem` (403, 400, 413, 503), `LocationRedError`, `StoreFailedError`; then nothing is kept.
        """
        one = File(
            id=mint(Prefix.FILE),
            object_id=self._writer.object_id,
            organization_id=self._organization_id,
            project_id=self._project_id,
            purpose=intended.purpose,
            data_class=intended.data_class,
            size=self._writer.size,
            created_at=0,
        )
        made: list[File] = []

        def with_it(tx: Connection, row: Kept) -> None:
            made[:] = [replace(one, created_at=row.created_at)]
            self._files.add(tx, made[0])
            within(tx, made[0])

        row = self._files.commit(self._writer, self._organization_id, self._project_id, intended, with_it)
        return made[0], row

    def abort(self) -> None:
        """Leave nothing, if it was not committed."""
        self._writer.abort()


_FILES: Final = frozenset(
    {DataClass.BATCH_INPUT, DataClass.BATCH_OUTPUT, DataClass.BATCH_ERROR, DataClass.FINE_TUNING_DATASET}
)
_OF_PURPOSE: Final = {
    FilePurpose.BATCH: (DataClass.BATCH_INPUT,),
    FilePurpose.BATCH_OUTPUT: (DataClass.BATCH_OUTPUT, DataClass.BATCH_ERROR),
    FilePurpose.FINE_TUNE: (DataClass.FINE_TUNING_DATASET,),
}
