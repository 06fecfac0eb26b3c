"""Verification of receipt files: offline, without a database, from the files and the log's key alone.

Holds: `verify_receipt` for bytes, `verify_paths` for files and folders (exports of audit logs too), and their results
as values. Leaves out: the steps for an export (verify_audit), how results are shown (command line).

Steps for one file: 1 parse strictly -> 2 encode again and compare bytes (there is one spelling) -> 3 for each
statement: its canonical bytes and salt give the leaf, the path gives the root, the root is in a checkpoint that the
key has signed -> 4 the statements fit together: kinds, the key's id, the order of instants, the promised end. Over
all files: no two checkpoints of one size with different roots (a forked log). The first thing that fails is the
`Finding`.

A file that states one entry of the log (stated) is verified as far as that goes: steps 1 to 3.

Without a trusted key the one found beside the files (`log.vkey`) shows only that they fit together: `key_trusted`
is False then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from keepless.clock import DAY_MS
from keepless.receipts.bundle import FORMAT, Proved, Receipt, to_bytes
from keepless.receipts.checkpoint import NoteError, TreeHead, VerifierKey
from keepless.receipts.checks import Finding, RefusedError, leaf_of, shown
from keepless.receipts.stated import Stated, is_entry_file, verify_entry
from keepless.receipts.statement import VERSION, EntryKind, Fact
from keepless.receipts.verify_audit import AuditVerified, verify_audit

__all__ = [
    "AUDIT_SUFFIX",
    "KEY_FILE",
    "SUFFIX",
    "FileResult",
    "Finding",
    "Report",
    "Verified",
    "verify_paths",
    "verify_receipt",
]

KEY_FILE: Final = "log.vkey"
SUFFIX: Final = ".json"
AUDIT_SUFFIX: Final = ".jsonl"
_MAX_BYTES: Final = 65_536
_READ: Final = _MAX_BYTES + 1


@dataclass(frozen=True, slots=True)
class Verified:
    """What a valid receipt proves. Instants in Unix ms; `shredded_at_ms` None = key not yet destroyed when issued.

    `late`: the key was destroyed after the promised end; the proof is valid, the promise was broken.
    """

    receipt_id: str
    object_id: str
    organization_id: str
    data_class: str
    cause: str
    created_at_ms: int
    deleted_at_ms: int
    shredded_at_ms: int | None
    shredded_by_ms: int
    index: int
    heads: tuple[TreeHead, ...]

    @property
    def late(self) -> bool:
        """Whether the key outlived the promise."""
        return self.shredded_at_ms is not None and self.shredded_at_ms > self.shredded_by_ms


@dataclass(frozen=True, slots=True)
class FileResult:
    """One file: what it proves (a receipt, or an export of an audit log), or why it proves nothing."""

    path: Path
    verified: Verified | AuditVerified | Stated | None
    finding: Finding | None
    key_trusted: bool

    @property
    def ok(self) -> bool:
        """Whether the file is a valid receipt."""
        return self.finding is None


@dataclass(frozen=True, slots=True)
class Report:
    """All files together."""

    files: tuple[FileResult, ...]

    @property
    def ok(self) -> bool:
        """Whether there is at least one file and every one is valid."""
        return bool(self.files) and all(file.ok for file in self.files)

    @property
    def key_trusted(self) -> bool:
        """Whether every file was checked against a key that the caller trusts."""
        return bool(self.files) and all(file.key_trusted for file in self.files)


def verify_receipt(data: bytes, key: VerifierKey) -> Verified | Finding:
    """What the bytes of a receipt file prove under a log key, or the first thing that is wrong with them."""
    try:
        return _verified(data, key)
    except RefusedError as refused:
        return refused.finding


def verify_paths(paths: Iterable[Path], key: VerifierKey | None = None) -> Report:
    """Verify receipt files and folders of them; `key` is the log key that the caller trusts, if any."""
    results: list[FileResult] = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for suffix in (SUFFIX, AUDIT_SUFFIX) for file in path.glob(f"*{suffix}"))
        results += [_file(file, key) for file in files]
        if not files:
            results.append(FileResult(path, None, Finding.NOTHING, key is not None))
    return Report(tuple(_without_forks(results)))


def _file(path: Path, trusted: VerifierKey | None) -> FileResult:
    def found(finding: Finding) -> FileResult:
        return FileResult(path, None, finding, trusted is not None)

    try:
        key = trusted or VerifierKey.parse((path.parent / KEY_FILE).read_text("ascii"))
    except OSError:
        return found(Finding.NO_KEY)
    except (NoteError, UnicodeDecodeError):
        return found(Finding.BAD_KEY)
    try:
        with path.open("rb") as file:
            result = verify_audit(file, key) if path.suffix == AUDIT_SUFFIX else _checked(file.read(_READ), key)
    except OSError:
        return found(Finding.UNREADABLE)
    return found(result) if isinstance(result, Finding) else FileResult(path, result, None, trusted is not None)


def _checked(data: bytes, key: VerifierKey) -> Verified | Stated | Finding:
    if is_entry_file(data):
        return verify_entry(data, key) or Finding.BAD_PROOF
    return verify_receipt(data, key)


def _without_forks(results: Sequence[FileResult]) -> Iterable[FileResult]:
    roots: dict[tuple[str, int], set[bytes]] = {}
    for result in results:
        for head in result.verified.heads if result.verified else ():
            roots.setdefault((head.origin, head.size), set()).add(head.root)
    for result in results:
        heads = result.verified.heads if result.verified else ()
        forked = any(len(roots[head.origin, head.size]) > 1 for head in heads)
        yield FileResult(result.path, None, Finding.FORKED, result.key_trusted) if forked else result


def _verified(data: bytes, key: VerifierKey) -> Verified:
    receipt = _parsed(data)
    index, head = _shown(receipt.deletion, key)
    deletion = _Facts(receipt.deletion, EntryKind.DELETED)
    heads: tuple[TreeHead, ...] = (head,)
    shredded_at = None
    deleted_at = deletion.number(Fact.DELETED_AT)
    if receipt.key_destruction is not None:
        _, other = _shown(receipt.key_destruction, key)
        heads = (head, other)
        destruction = _Facts(receipt.key_destruction, EntryKind.KEY_DESTROYED)
        if destruction.text(Fact.KEK_ID) != deletion.text(Fact.KEK_ID):
            raise RefusedError(Finding.NOT_A_DELETION)
        shredded_at = destruction.number("at_ms")
    created_at = deletion.number(Fact.CREATED_AT)
    if not created_at <= deleted_at <= deletion.number("at_ms") or receipt.shredded_by_ms != deleted_at + DAY_MS:
        raise RefusedError(Finding.WRONG_END)
    return Verified(
        receipt_id=deletion.text("receipt_id"),
        object_id=deletion.text("object_id"),
        organization_id=deletion.text("organization_id"),
        data_class=deletion.text(Fact.DATA_CLASS),
        cause=deletion.text(Fact.CAUSE),
        created_at_ms=created_at,
        deleted_at_ms=deleted_at,
        shredded_at_ms=shredded_at,
        shredded_by_ms=receipt.shredded_by_ms,
        index=index,
        heads=heads,
    )


def _parsed(data: bytes) -> Receipt:
    if len(data) > _MAX_BYTES:
        raise RefusedError(Finding.MALFORMED)
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RefusedError(Finding.MALFORMED) from None
    if receipt.format != FORMAT:
        raise RefusedError(Finding.MALFORMED)
    if to_bytes(receipt) != data:
        raise RefusedError(Finding.NOT_CANONICAL)
    return receipt


def _shown(proved: Proved, key: VerifierKey) -> tuple[int, TreeHead]:
    return shown(leaf_of(proved.statement, proved.salt), proved.proof, key)


class _Facts:
    """The statement of a proof, with its kind checked; a missing or mistyped fact is a finding."""

    def __init__(self, proved: Proved, kind: EntryKind) -> None:
        self._body = proved.statement
        if self._body.get("kind") != kind.value or self._body.get("v") != VERSION:
            raise RefusedError(Finding.NOT_A_DELETION)

    def text(self, name: str) -> str:
        value = self._body.get(name)
        if not isinstance(value, str):
            raise RefusedError(Finding.NOT_A_DELETION)
        return value

    def number(self, name: str) -> int:
        value = self._body.get(name)
        if type(value) is not int:
            raise RefusedError(Finding.NOT_A_DELETION)
        return value
