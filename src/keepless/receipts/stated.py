"""One entry of the log, verified: from its file and the log's key alone, or against the log's own tree.

Holds: `verify_entry` (offline), `included` (entries that we show ourselves). Leaves out: issuing the file (bundle),
receipts of deletions, which state more (verify).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from keepless.db import Database
from keepless.receipts import merkle
from keepless.receipts.bundle import ENTRY_FORMAT, EntryFile, StatementBody, to_bytes
from keepless.receipts.checkpoint import NoteError, TreeHead, VerifierKey, decode_base64
from keepless.receipts.checks import verify_proof
from keepless.receipts.log import Log
from keepless.receipts.statement import SALT_BYTES, VERSION, canonical, commitment

__all__ = ["Stated", "included", "is_entry_file", "verify_entry"]

_END: Final = f'"format":"{ENTRY_FORMAT}"}}'.encode()


@dataclass(frozen=True, slots=True)
class Stated:
    """What a valid file proves: that the log says `statement` at `index`."""

    statement: StatementBody
    index: int
    heads: tuple[TreeHead, ...]


def is_entry_file(data: bytes) -> bool:
    """Whether some bytes are meant to be a file of this kind (canonical bytes end with the format)."""
    return data.endswith(_END)


def verify_entry(data: bytes, key: VerifierKey) -> Stated | None:
    """What the bytes of such a file prove under a log key; None: nothing."""
    try:
        file = msgspec.json.decode(data, type=EntryFile)
        if file.format != ENTRY_FORMAT or to_bytes(file) != data or file.entry.statement.get("v") != VERSION:
            return None
        salt = decode_base64(file.entry.salt)
        if len(salt) != SALT_BYTES:
            return None
        leaf = merkle.leaf_hash(commitment(salt, canonical(file.entry.statement)))
        index, head = verify_proof(file.entry.proof, leaf, key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NoteError):
        return None
    return Stated(file.entry.statement, index, (head,))


def included(db: Database, log: Log, indexes: Sequence[int]) -> dict[int, bool]:
    """Which of some entries are proved now: text and salt give the leaf, its path leads to the root that is signed.

    An entry whose text was erased is left out: its leaf stands, what it said cannot be shown any more. Raises
    `LogForkError`.
    """
    head, _ = log.signed_head()
    with db.read() as tx:
        told = [one for one in log.some(tx, indexes) if one.index < head.size]
        paths = log.inclusions(tx, [one.index for one in told], head.size)
    return {
        one.index: merkle.verify_inclusion(
            merkle.leaf_hash(commitment(one.salt, one.body)), one.index, head.size, paths[one.index], head.root
        )
        for one in told
        if one.salt is not None and one.body is not None
    }
