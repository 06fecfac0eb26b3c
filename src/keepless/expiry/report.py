"""What one sweep did, in numbers, ids and enums: for the log, the terminal and JSON."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum

from keepless.ids import Id

__all__ = ["Finding", "FindingKind", "Report", "Step"]


class Step(StrEnum):
    """The steps of a sweep, in their order."""

    UNFINISHED = "unfinished"  # tombstones that a crash or a failing store left in state destroying
    RELEASED = "released"  # objects whose hold is released
    DUE = "due"
    PURGES = "purges"  # progress and end of purges that owners asked for
    INTENTS = "intents"  # puts that never ended
    ORPHANS = "orphans"  # blobs, leftovers and keys that no row accounts for
    KEYS = "keys"
    CHECKPOINT = "checkpoint"  # the deleted rows' bytes leave the write-ahead log


class FindingKind(StrEnum):
    """What a sweep cannot mend: data is lost, or not accounted for."""

    BLOB_MISSING = "blob_missing"  # an object's row stands, its blob is gone
    KEY_MISSING = "key_missing"  # a KEK's row stands, its key is gone: what it wrapped does not open any more


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: `id` is the object or the KEK."""

    kind: FindingKind
    id: Id


@dataclass(slots=True)
class Report:
    """Counts of one sweep. `destroyed` and `finished` are objects with a receipt; `pending` wait for their store."""

    paused: bool = False  # the clock jumped; a person must confirm it
    busy: bool = False  # another process sweeps
    destroyed: int = 0
    bytes: int = 0
    finished: int = 0
    pending: int = 0
    held: int = 0  # due, but under a hold
    purges_done: int = 0
    intents: int = 0
    orphan_blobs: int = 0
    leftovers: int = 0
    orphan_keys: int = 0
    keys_destroyed: int = 0
    keys_rolled: int = 0
    rewrapped: int = 0
    write_ahead_log_clean: bool = True
    failures: int = 0
    failed_steps: list[Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether the sweep did all there was to do and found nothing wrong."""
        return not (self.paused or self.busy or self.pending or self.failures or self.findings)

    def numbers(self) -> dict[str, object]:
        """For the terminal and JSON."""
        return {**asdict(self), "clean": self.clean}
