"""What a file and an upload are, as values.

Holds: `FilePurpose` with the class of data each is, `File`, `Described`, `Upload`, `Part`. Leaves out: names of
files, which are content.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keepless.ids import Id
from keepless.policy.data_class import DataClass

__all__ = ["UPLOADED", "Described", "File", "FilePurpose", "Part", "Upload", "UploadState"]


class FilePurpose(StrEnum):
    """OpenAI's purposes of a file, those that are served here."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"  # also what a batch says of lines that failed
    FINE_TUNE = "fine-tune"


# What a customer uploads for a purpose is of this class; what a feature makes says its class itself.
UPLOADED: Final = {
    FilePurpose.BATCH: DataClass.BATCH_INPUT,
    FilePurpose.FINE_TUNE: DataClass.FINE_TUNING_DATASET,
}


@dataclass(frozen=True, slots=True)
class File:
    """One file. `size` in bytes of plaintext, instants in ms; its content and name are the vault's object."""

    id: Id
    object_id: Id
    organization_id: Id
    project_id: Id
    purpose: FilePurpose
    data_class: DataClass
    size: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Described:
    """A file that lives: its end in force (None = until deleted) and its name, which is the customer's alone."""

    file: File
    ends_at: int | None
    name: bytes


class UploadState(StrEnum):
    """pending -> completed | cancelled; a pending one whose hour is over is `expired`, which no row says."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that comes in parts. `name_object_id`: the vault's object that holds its name; instants in ms."""

    id: Id
    name_object_id: Id
    organization_id: Id
    project_id: Id
    purpose: FilePurpose
    size: int
    ends_after_s: int | None
    created_at: int
    expires_at: int
    state: UploadState
    file_id: Id | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload."""

    id: Id
    upload_id: Id
    object_id: Id
    size: int
    created_at: int
