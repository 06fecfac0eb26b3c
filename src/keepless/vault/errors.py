"""What can go wrong at the door. Every text is fixed: nothing of a store's, a database's or a customer's is in it."""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from keepless.errors import KeeplessError
from keepless.policy.decision import DiscardReason

__all__ = [
    "BlobMissingError",
    "KeyMissingError",
    "LocationRedError",
    "NotKeptError",
    "NotOpenedError",
    "PutRefusedError",
    "StaleEpochError",
    "StoreFailedError",
    "store_failures",
]


class PutRefusedError(KeeplessError):
    """Nothing was kept; `reason` says why, in the words of the policy."""

    reason = DiscardReason.STORE_FAILED


class StaleEpochError(PutRefusedError):
    """The policy changed after the permit was made: decide again."""

    reason = DiscardReason.STALE_EPOCH


class LocationRedError(PutRefusedError):
    """The location does not hold what was promised of it, or cannot be asked."""

    reason = DiscardReason.LOCATION_RED


class StoreFailedError(PutRefusedError):
    """The store, the keyring or the database could not do its work (a full disk counts)."""

    reason = DiscardReason.STORE_FAILED


class BlobMissingError(StoreFailedError):
    """The store has no such blob."""


class NotKeptError(KeeplessError):
    """There is no such object for this reader: never was, another organization's, ended, or deleted."""


class KeyMissingError(KeeplessError):
    """The keyring has no such key: what it wrapped is gone for good."""


class NotOpenedError(KeeplessError):
    """The object is there but does not open: its bytes, its row or its key were changed."""


@contextlib.contextmanager
def store_failures() -> Iterator[None]:
    """A database that fails is a store that failed; its text stays inside."""
    try:
        yield
    except sa.exc.SQLAlchemyError:
        raise StoreFailedError("the database could not do its work") from None
