"""Verification of receipt files: offline, without a database, from the files and the log's key alone.

Holds: `verify_receipt` for bytes, `verify_paths` for files and folders, and their results as values. Leaves out:
how results are shown (command line).

Steps for one file: 1 parse strictly -> 2 encode again and compare bytes (there is one spelling) -> 3 for each
statement: its canonical bytes and salt give the leaf, the path gives the root, the root is in a checkpoint that the
key has signed -> 4 the statements fit together: kinds, the key's id, the order of instants, the promised end. Over
all files: no two checkpoints of one size with different roots (a forked log). The first thing that fails is the
`Finding`.

Without a trusted key the one found beside the files (`log.vkey`) shows only that they fit together: `key_trusted`
is False then.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from keepless.clock import DAY_MS
from keepless.errors import KeeplessError
from keepless.receipts import merkle
from keepless.receipts.bundle import FORMAT, Proved, Receipt, to_bytes
from keepless.receipts.checkpoint import NoteError, TreeHead, VerifierKey, decode_base64, open_note
from keepless.receipts.statement import SALT_BYTES, VERSION, EntryKind, Fact, canonical, commitment

__all__ = [
    "KEY_FILE",
    "SUFFIX",
    "FileResult",
    "Finding",
    "Report",
    "Verified",
    "verify_paths",
    "verify_proof",
    "verify_receipt",
]

KEY_FILE: Final = "log.vkey"
SUFFIX: Final = ".json"
_MAX_BYTES: Final = 65_536
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,17})\Z")


class Finding(StrEnum):
    """Why a file is not a valid receipt."""

    UNREADABLE = "the file cannot be read"
    NOTHING = "there is no receipt file here"
    NO_KEY = "no log key: give one, or put log.vkey beside the receipts"
    BAD_KEY = "the log key is not a verifier key"
    MALFORMED = "not a receipt file"
    NOT_CANONICAL = "not the canonical bytes of a receipt"
    BAD_PROOF = "a statement is not shown to be in the log that the key signs"
    NOT_A_DELETION = "the statements do not state a deletion and the destruction of its key"
    WRONG_END = "the instants of the receipt contradict each other"
    FORKED = "two receipts show different logs of the same size"


class _RefusedError(KeeplessError):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.value)
        self.finding = finding


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
    """One file: what it proves, or why it proves nothing."""

    path: Path
    verified: Verified | None
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


def verify_proof(proof: str, leaf: bytes, key: VerifierKey) -> tuple[int, TreeHead]:
    """The index and the signed head under which a tlog-proof shows a leaf hash. Raises `NoteError`."""
    top, blank, note = proof.partition("\n\n")
    lines = top.split("\n")
    index = _INDEX.match(lines[1]) if len(lines) > 1 else None
    if not blank or lines[0] != "c2sp.org/tlog-proof@v1" or index is None:
        raise NoteError("not a tlog-proof")
    path = [decode_base64(line) for line in lines[2:]]
    head = open_note(note, key)
    if any(len(node) != merkle.HASH_BYTES for node in path):
        raise NoteError("a proof is made of hashes of 32 bytes")
    if not merkle.verify_inclusion(leaf, int(index[1]), head.size, path, head.root):
        raise NoteError("the proof does not lead to the root")
    return int(index[1]), head


def verify_receipt(data: bytes, key: VerifierKey) -> Verified | Finding:
    """What the bytes of a receipt file prove under a log key, or the first thing that is wrong with them."""
    try:
        return _verified(data, key)
    except _RefusedError as refused:
        return refused.finding


def verify_paths(paths: Iterable[Path], key: VerifierKey | None = None) -> Report:
    """Verify receipt files and folders of them; `key` is the log key that the caller trusts, if any."""
    results: list[FileResult] = []
    for path in paths:
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
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
            data = file.read(_MAX_BYTES + 1)
    except OSError:
        return found(Finding.UNREADABLE)
    result = verify_receipt(data, key)
    return found(result) if isinstance(result, Finding) else FileResult(path, result, None, trusted is not None)


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
            raise _RefusedError(Finding.NOT_A_DELETION)
        shredded_at = destruction.number("at_ms")
    created_at = deletion.number(Fact.CREATED_AT)
    if not created_at <= deleted_at <= deletion.number("at_ms") or receipt.shredded_by_ms != deleted_at + DAY_MS:
        raise _RefusedError(Finding.WRONG_END)
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
        raise _RefusedError(Finding.MALFORMED)
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _RefusedError(Finding.MALFORMED) from None
    if receipt.format != FORMAT:
        raise _RefusedError(Finding.MALFORMED)
    if to_bytes(receipt) != data:
        raise _RefusedError(Finding.NOT_CANONICAL)
    return receipt


def _shown(proved: Proved, key: VerifierKey) -> tuple[int, TreeHead]:
    try:
        salt = decode_base64(proved.salt)
        leaf = merkle.leaf_hash(commitment(salt, canonical(proved.statement)))
        shown = verify_proof(proved.proof, leaf, key)
    except NoteError:
        raise _RefusedError(Finding.BAD_PROOF) from None
    if len(salt) != SALT_BYTES:
        raise _RefusedError(Finding.BAD_PROOF)
    return shown


class _Facts:
    """The statement of a proof, with its kind checked; a missing or mistyped fact is a finding."""

    def __init__(self, proved: Proved, kind: EntryKind) -> None:
        self._body = proved.statement
        if self._body.get("kind") != kind.value or self._body.get("v") != VERSION:
            raise _RefusedError(Finding.NOT_A_DELETION)

    def text(self, name: str) -> str:
        value = self._body.get(name)
        if not isinstance(value, str):
            raise _RefusedError(Finding.NOT_A_DELETION)
        return value

    def number(self, name: str) -> int:
        value = self._body.get(name)
        if type(value) is not int:
            raise _RefusedError(Finding.NOT_A_DELETION)
        return value
