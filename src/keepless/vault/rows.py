"""Rows of the catalogue and findings in the stores, as values.

Fields of rows are named as their columns, but for `size`, which is the column `bytes`. Instants are Unix ms.
"""

from dataclasses import dataclass

from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.vault.states import Cause, KekKind, KekState

__all__ = ["KekFile", "KekRow", "Kept", "Leftover", "Shredded"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One object that is kept. Instants in ms, `size` in bytes of ciphertext, `expires_at` None = until deleted."""

    id: Id
    organization_id: Id
    project_id: Id
    data_class: DataClass
    reason: Reason
    request_id: Id | None
    epoch: int
    created_at: int
    expires_at: int | None
    size: int
    location: Id
    blob: Id
    kek_id: Id
    wrapped_dek: bytes
    hold_id: Id | None = None
    label: bytes | None = None  # a small text of the customer's, sealed with the DEK


@dataclass(frozen=True, slots=True)
class Shredded:
    """One object whose DEK is deleted and whose blob must go: a tombstone in state destroying."""

    object_id: Id
    organization_id: Id
    project_id: Id
    data_class: DataClass
    reason: Reason
    created_at: int
    deleted_at: int
    cause: Cause
    location: Id
    blob: Id
    size: int
    kek_id: Id
    purge_id: Id | None


@dataclass(frozen=True, slots=True)
class KekRow:
    """One key-encryption key as the catalogue knows it."""

    id: Id
    kind: KekKind
    location: Id
    expiry_day: int | None
    hold_id: Id | None
    state: KekState


@dataclass(frozen=True, slots=True)
class KekFile:
    """One KEK in the keyring and when its file was made."""

    kek_id: Id
    created_at: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a killed put left hidden in a store: a staging file (`upload` ""), or an unfinished upload."""

    key: str
    upload: str
    at: int
