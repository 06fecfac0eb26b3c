"""What lies astray after a crash: blobs that no row names, intents that never became objects, hidden parts, key files.

Holds: `Strays`, which finds and destroys them. Leaves out: when to look, how old a stray must be, and the opposite
(rows whose blob or key is missing): expiry.orphans.

A blob is listed before the database is asked: between the two, an intent can only turn into a kept row, and a kept row
into a tombstone, so a blob that no row names then is named by none. `abandon` takes the intent first: from then on its
put cannot commit (the commit takes the same row), and the blob is a stray whatever happens next.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

import sqlalchemy as sa

from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id
from keepless.vault import catalogue
from keepless.vault.errors import store_failures
from keepless.vault.rows import KekFile, Leftover

__all__ = ["StrayFiles", "StrayStore", "Strays"]

_PAGE: Final = 500


class StrayStore(Protocol):
    """The part of a blob driver that strays are found and destroyed with."""

    def delete(self, blobs: Sequence[Id]) -> list[Id]:
        """Delete blobs; returns those acknowledged absent."""

    def listed(self, older_than_ms: int) -> Iterator[Id]:
        """Blobs older than an instant."""

    def leftovers(self, older_than_ms: int) -> list[Leftover]:
        """Hidden leftovers older than an instant."""

    def drop(self, leftover: Leftover) -> None:
        """Destroy one."""


class StrayFiles(Protocol):
    """The part of a keyring that strays are found and destroyed with."""

    def kek_files(self) -> Iterator[KekFile]:
        """Every KEK there is a file for."""

    def destroy(self, kek_id: Id) -> bool:
        """Destroy a key for good; False when it was gone."""


class Strays:
    """Finds and destroys what lies astray. Every method blocks; all but `abandon` may raise `StoreFailedError`."""

    def __init__(self, db: Database, stores: Mapping[Id, StrayStore], files: StrayFiles) -> None:
        self._db: Final = db
        self._stores: Final = stores
        self._files: Final = files

    @property
    def locations(self) -> list[Id]:
        """The locations that are configured."""
        return list(self._stores)

    def abandon(self, location: Id, blob: Id) -> bool:
        """Undo what a put began, if it did not commit. False when there was nothing to undo, or something failed."""
        with contextlib.suppress(sa.exc.SQLAlchemyError, KeeplessError):
            with self._db.write() as tx:
                taken = catalogue.take_intent(tx, blob)
            return taken and bool(self._stores[location].delete([blob]))
        return False

    def blobs(self, location: Id, older_than_ms: int) -> Iterator[Id]:
        """Blobs of a location that no row names."""
        for page in _pages(self._stores[location].listed(older_than_ms)):
            with store_failures(), self._db.read() as tx:
                unlisted = catalogue.unlisted_blobs(tx, page)
            yield from unlisted

    def destroy_blobs(self, location: Id, blobs: Sequence[Id]) -> list[Id]:
        """Delete those of some blobs that no row names; returns what the store acknowledged."""
        with store_failures(), self._db.read() as tx:
            stray = catalogue.unlisted_blobs(tx, blobs)
        return self._stores[location].delete(stray)

    def leftovers(self, location: Id, older_than_ms: int) -> list[Leftover]:
        """Hidden leftovers of killed puts in a location."""
        return self._stores[location].leftovers(older_than_ms)

    def drop(self, location: Id, leftover: Leftover) -> None:
        """Destroy a hidden leftover."""
        self._stores[location].drop(leftover)

    def keks(self, older_than_ms: int) -> list[Id]:
        """Key files that no row names, or whose row says that the KEK is destroyed."""
        found = [file.kek_id for file in self._files.kek_files() if file.created_at < older_than_ms]
        with store_failures(), self._db.read() as tx:
            return [kek_id for page in _pages(iter(found)) for kek_id in catalogue.unlisted_keks(tx, page)]

    def destroy_kek(self, kek_id: Id) -> bool:
        """Destroy a key file that no row names; False when it is gone or named after all."""
        with store_failures(), self._db.read() as tx:
            stray = catalogue.unlisted_keks(tx, [kek_id]) == [kek_id]
        return stray and self._files.destroy(kek_id)


def _pages(items: Iterator[Id]) -> Iterator[list[Id]]:
    while page := list(islice(items, _PAGE)):
        yield page
