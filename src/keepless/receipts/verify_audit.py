"""Verification of an exported audit log: offline, in bounded memory, from the file and the log's key alone.

Holds: `verify_audit` and `AuditVerified`. Steps for each line: 1 parse strictly -> 2 encode again and compare bytes ->
3 the statement's (or the erased entry's) leaf is in the log that the key signs, under the checkpoint of the last line
-> 4 the event is what that statement says, at that index, of that organization -> 5 indexes fall. The last line counts
the others. The first thing that fails is the `Finding`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final

import msgspec

from keepless.receipts import merkle
from keepless.receipts.audit_export import FORMAT, AuditEnd, AuditLine
from keepless.receipts.checkpoint import NoteError, TreeHead, VerifierKey, decode_base64, open_note
from keepless.receipts.checks import Finding, RefusedError, leaf_of, shown
from keepless.receipts.events import event_of
from keepless.receipts.statement import canonical

__all__ = ["AuditVerified", "verify_audit"]

_LINE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class AuditVerified:
    """What a valid export proves. `erased` of the `events` say nothing any more, and stand in the log all the same."""

    organization_id: str
    events: int
    erased: int
    first_index: int | None  # the oldest
    last_index: int | None
    heads: tuple[TreeHead, ...]


def verify_audit(file: IO[bytes], key: VerifierKey) -> AuditVerified | Finding:
    """What a file proves under a log key, or the first thing that is wrong with it. Raises OSError."""
    try:
        return _verified(file, key)
    except RefusedError as refused:
        return refused.finding


@dataclass(slots=True)
class _Seen:
    """What the lines so far have shown."""

    events: int = 0
    erased: int = 0
    first: int | None = None
    last: int | None = None
    head: TreeHead | None = None
    owners: set[str] = field(default_factory=set)

    def take(self, index: int, head: TreeHead, *, erased: bool) -> None:
        """One more line. Raises `RefusedError`."""
        if self.first is not None and index >= self.first:
            raise RefusedError(Finding.OUT_OF_ORDER)
        if head != (self.head or head):
            raise RefusedError(Finding.ANOTHER)
        self.head, self.first, self.last = head, index, index if self.last is None else self.last
        self.events += 1
        self.erased += erased


def _verified(file: IO[bytes], key: VerifierKey) -> AuditVerified:
    seen = _Seen()
    for line in _lines(file):
        if isinstance(line, AuditEnd):
            return _ended(line, key, seen)
        index, head = _one(line, key, seen.owners)
        seen.take(index, head, erased=line.event is None)
    raise RefusedError(Finding.NOT_WHOLE)


def _ended(end: AuditEnd, key: VerifierKey, seen: _Seen) -> AuditVerified:
    try:
        signed = open_note(end.checkpoint, key)
    except NoteError:
        raise RefusedError(Finding.BAD_PROOF) from None
    if end.events != seen.events:
        raise RefusedError(Finding.NOT_WHOLE)
    if signed != (seen.head or signed) or not seen.owners <= {end.organization_id}:
        raise RefusedError(Finding.ANOTHER)
    return AuditVerified(end.organization_id, seen.events, seen.erased, seen.first, seen.last, (signed,))


def _one(line: AuditLine, key: VerifierKey, owners: set[str]) -> tuple[int, TreeHead]:
    """Where an event stands and under which head. Raises `RefusedError`."""
    if line.statement is None or line.salt is None:
        if line.leaf is None or (line.event, line.statement, line.salt) != (None, None, None):
            raise RefusedError(Finding.NOT_AUDIT)
        return shown(_hash(line.leaf), line.proof, key)
    if line.leaf is not None or line.event is None:
        raise RefusedError(Finding.NOT_AUDIT)
    index, head = shown(leaf_of(line.statement, line.salt), line.proof, key)
    if canonical(event_of(index, line.statement)) != canonical(line.event):
        raise RefusedError(Finding.NOT_AS_LOGGED)
    owner = line.statement.get("organization_id")
    if isinstance(owner, str):
        owners.add(owner)
    return index, head


def _hash(leaf: str) -> bytes:
    try:
        found = decode_base64(leaf)
    except NoteError:
        raise RefusedError(Finding.BAD_PROOF) from None
    if len(found) != merkle.HASH_BYTES:
        raise RefusedError(Finding.BAD_PROOF)
    return found


def _lines(file: IO[bytes]) -> Iterator[AuditLine | AuditEnd]:
    """Every line; nothing comes after the last. Raises `RefusedError`."""
    while raw := file.readline(_LINE_BYTES):
        line = _parsed(raw)
        if isinstance(line, AuditEnd) and file.read(1):
            raise RefusedError(Finding.NOT_AUDIT)
        yield line


def _parsed(raw: bytes) -> AuditLine | AuditEnd:
    if not raw.endswith(b"\n"):
        raise RefusedError(Finding.NOT_WHOLE)
    kinds: tuple[type[AuditLine | AuditEnd], ...] = (AuditLine, AuditEnd)
    for kind in kinds:
        try:
            line = msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if line.format != FORMAT:
            break
        if canonical(line) + b"\n" != raw:
            raise RefusedError(Finding.NOT_CANONICAL)
        return line
    raise RefusedError(Finding.NOT_AUDIT)
