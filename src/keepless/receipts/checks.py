"""What every offline check of evidence has in common: the reasons for a refusal, and one proof against a log's key.

Holds: `Finding`, `RefusedError`, `verify_proof`, `shown`. Leaves out: what a file is made of (verify, verify_audit).
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from keepless.errors import KeeplessError
from keepless.receipts import merkle
from keepless.receipts.checkpoint import NoteError, TreeHead, VerifierKey, decode_base64, open_note
from keepless.receipts.statement import SALT_BYTES, canonical, commitment

__all__ = ["Finding", "RefusedError", "leaf_of", "shown", "verify_proof"]

_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,17})\Z")


class Finding(StrEnum):
    """Why a file is not valid evidence."""

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
    NOT_AUDIT = "not an export of an audit log"
    NOT_AS_LOGGED = "an event is not what its entry in the log says"
    OUT_OF_ORDER = "the events are not in the order of the log, or one stands twice"
    ANOTHER = "the events are not all of one organization and one checkpoint"
    NOT_WHOLE = "the export ends too soon"


class RefusedError(KeeplessError):
    """The first thing that is wrong."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.value)
        self.finding: Final = finding


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


def leaf_of(statement: Mapping[str, str | int | bool], salt: str) -> bytes:
    """The leaf hash of a statement with its salt in base 64. Raises `RefusedError`."""
    try:
        plain = decode_base64(salt)
    except NoteError:
        raise RefusedError(Finding.BAD_PROOF) from None
    if len(plain) != SALT_BYTES:
        raise RefusedError(Finding.BAD_PROOF)
    return merkle.leaf_hash(commitment(plain, canonical(statement)))


def shown(leaf: bytes, proof: str, key: VerifierKey) -> tuple[int, TreeHead]:
    """Where a leaf stands, and under which head. Raises `RefusedError` when that is not shown."""
    try:
        return verify_proof(proof, leaf, key)
    except NoteError:
        raise RefusedError(Finding.BAD_PROOF) from None
