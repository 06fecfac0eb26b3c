"""Reading what is kept: who may, until when, all of it, a part of it, or its label.

Holds: `Reading` (may it be read? the whole object; labels) and `ObjectReader` (parts). Leaves out: destroying (door).

What is read is authentic or an error: every segment is authenticated before a byte of it is returned, and the row's
length says which segment must be the last.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from keepless.clock import Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.ids import Id
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.period import end_in_force_ms
from keepless.policy.schedule import row_of
from keepless.vault import catalogue, in_force
from keepless.vault.blobs import BlobStore
from keepless.vault.envelope import StreamOpener, facts_of, unseal, unseal_label, unwrap
from keepless.vault.errors import BlobMissingError, KeyMissingError, NotKeptError, StoreFailedError, store_failures
from keepless.vault.keeping import Place
from keepless.vault.keyring import FileKeyring
from keepless.vault.rows import Kept

__all__ = ["Labelled", "ObjectReader", "Opened", "Reading"]

_TRIES: Final = 4
_WINDOW: Final = 4  # segments of 1 MiB that are fetched at once
_FED: Final = frozenset({Purpose.INFERENCE, Purpose.TRAIN, Purpose.LOAD})  # to a model, or as one
_READERS: Final = frozenset({Purpose.CUSTOMER, Purpose.BREAK_GLASS, Purpose.EXPORT, Purpose.PROVE}) | _FED
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """An object that may be read now, and what it is read with. `end_ms` None = until deleted."""

    row: Kept
    end_ms: int | None
    dek: bytes
    store: BlobStore


@dataclass(frozen=True, slots=True)
class Labelled:
    """When an object ends (Unix ms, None = until deleted), and the small text that was kept with it."""

    ends_at: int | None
    label: Content | None


class ObjectReader:
    """One object, opened. Reading ends with the object: at its end in force, or when its blob is destroyed."""

    def __init__(self, it: Opened, clock: Clock) -> None:
        self.row: Final = it.row
        self._it: Final = it
        self._clock: Final = clock
        head = it.store.get_range(it.row.blob, 0, StreamOpener.HEAD)
        self._opener: Final = StreamOpener(it.dek, facts_of(it.row), it.row.blob, head, it.row.size)
        self.size: Final = self._opener.size  # bytes of plaintext
        self.ends_at: Final = it.end_ms

    def label(self) -> Content | None:
        """The small text that was kept with it."""
        return _label(self.row, self._it.dek)

    def read(self, start: int, length: int) -> Content:
        """Some bytes; fewer where the object ends. Raises as `stream`."""
        return Content(b"".join(self._parts(start, start + length)))

    def stream(self, start: int = 0, stop: int | None = None) -> Iterator[Content]:
        """The bytes [start, stop) in parts of a few MiB at most.

        Raises `NotKeptError` when it ends meanwhile, `NotOpenedError` for what was tampered with, `StoreFailedError`.
        """
        for part in self._parts(start, self.size if stop is None else stop):
            yield Content(part)

    def _parts(self, start: int, stop: int) -> Iterator[bytes]:
        if start < 0 or stop < start:
            raise ValueError("a range is not negative")
        stop = min(stop, self.size)
        while start < stop:
            if self._it.end_ms is not None and self._clock.now_ms() >= self._it.end_ms:
                raise NotKeptError("ended")
            window, at, length = self._opener.window(start, stop, _WINDOW)
            try:
                sealed = self._it.store.get_range(self.row.blob, at, length)
            except BlobMissingError:
                raise NotKeptError("deleted") from None
            part = self._opener.open(window, sealed, start, stop)
            start += len(part)
            yield part


def _labelled(it: Opened) -> Labelled:
    return Labelled(it.end_ms, _label(it.row, it.dek))


def _label(row: Kept, dek: bytes) -> Content | None:
    return None if row.label is None else Content(unseal_label(dek, facts_of(row), row.label))


class Reading:
    """The reading half of the door. Thread-safe; every method blocks."""

    def __init__(self, db: Database, keyring: FileKeyring, places: Mapping[Id, Place], clock: Clock) -> None:
        self._db: Final = db
        self._keyring: Final = keyring
        self._places: Final = places
        self._clock: Final = clock

    def read(self, object_id: Id, organization_id: Id, purpose: Purpose) -> Content:
        """See `Vault.read`."""

        def all_of_it(it: Opened) -> Content:
            return unseal(it.dek, facts_of(it.row), it.row.blob, it.store.get(it.row.blob))

        return self.opened(object_id, organization_id, purpose, all_of_it)

    def reader(self, object_id: Id, organization_id: Id, purpose: Purpose) -> ObjectReader:
        """See `Vault.reader`."""
        return self.opened(object_id, organization_id, purpose, lambda it: ObjectReader(it, self._clock))

    def labels(self, object_ids: Sequence[Id], organization_id: Id, purpose: Purpose) -> dict[Id, Labelled]:
        """See `Vault.labels`."""
        with store_failures(), self._db.read() as tx:
            rows = catalogue.some_kept(tx, object_ids)
            served = self._served(tx, [row for row in rows if row.organization_id == organization_id], purpose)
        keks: dict[Id, bytes] = {}
        labels: dict[Id, Labelled] = {}
        for row, end in served:
            try:
                if row.kek_id not in keks:
                    keks[row.kek_id] = self._keyring.load(row.kek_id)
                label = _label(row, unwrap(keks[row.kek_id], row.wrapped_dek, facts_of(row)))
                labels[row.id] = Labelled(end, label)
            except KeyMissingError:  # moved to another KEK, or deleted, since the row was read: look again
                with contextlib.suppress(NotKeptError):
                    labels[row.id] = self.opened(row.id, organization_id, purpose, _labelled)
        return labels

    def opened(self, object_id: Id, organization_id: Id, purpose: Purpose, act: Callable[[Opened], T]) -> T:
        """Do something with an object that may be read.

        Raises `NotKeptError`, `NotOpenedError`, `StoreFailedError`.
        """
        with store_failures():
            for _ in range(_TRIES):
                with self._db.read() as tx:
                    row = catalogue.one_kept(tx, object_id)
                    if row is None or row.organization_id != organization_id:
                        raise NotKeptError("no such object")
                    served = self._served(tx, [row], purpose)
                if not served:
                    raise NotKeptError("ended")
                if row.location not in self._places:
                    raise StoreFailedError("the object lies in a location that is not configured")
                try:
                    dek = unwrap(self._keyring.load(row.kek_id), row.wrapped_dek, facts_of(row))
                    return act(Opened(row, served[0][1], dek, self._places[row.location].store))
                except (KeyMissingError, BlobMissingError):
                    continue  # moved to another KEK, or deleted, since the row was read: look again
            raise NotKeptError("the key or the blob is gone")

    def _served(self, tx: Connection, rows: Sequence[Kept], purpose: Purpose) -> list[tuple[Kept, int | None]]:
        """Those of some rows that may be read now for a purpose, each with its end in force."""
        if purpose not in _READERS:
            return []
        now_ms = self._clock.now_ms()
        policies: dict[tuple[Id, Id, DataClass], in_force.InForce | None] = {}
        served: list[tuple[Kept, int | None]] = []
        for row in rows:
            key = (row.organization_id, row.project_id, row.data_class)
            if key not in policies:
                policies[key] = in_force.in_force(tx, *key)
            policy = policies[key]
            if policy is None:
                continue  # its policy cannot be read
            end = end_in_force_ms(
                created_at_ms=row.created_at, expires_at_ms=row.expires_at, days=policy.days, ratchets=policy.ratchets
            )
            # What a feature that is off has left stays readable until it ends (DECISIONS 6), but inference logs have
            # lost their reason with the switch, and nothing is fed to a model any more.
            captured = row_of(row.data_class).feature is Feature.INFERENCE_LOGGING
            if captured and purpose is Purpose.EXPORT:
                continue  # what was captured is read under an opening alone (DECISIONS 11)
            needs_feature = purpose in _FED or captured
            if (
                policy.alive
                and (end is None or now_ms < end)
                and (not needs_feature or policy.effective.allows(row.data_class))
            ):
                served.append((row, end))
            elif purpose is Purpose.BREAK_GLASS and in_force.is_held(row, in_force.holds_of(tx, [row.organization_id])):
                served.append((row, None))  # until the hold is released
        return served
