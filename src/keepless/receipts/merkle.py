"""Merkle trees of transparency logs: RFC 6962 section 2.1, verification as in RFC 9162 sections 2.1.3.2 and 2.1.4.2.
Pure.

Holds: leaf and interior hashes, the frontier that makes an append cheap, inclusion and consistency proofs, and
their verification. Leaves out: where hashes are stored (`keepless.receipts.log`), what a leaf says (`statement`),
signatures.

A tree is addressed by `Node`: (level, index) of a *complete* subtree, the only hashes that are ever stored. A proof
is first planned as ranges of leaves, then every range is cut into complete subtrees, so one query fetches all of
them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "Node",
    "Reader",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

Node = tuple[int, int]  # (level, index): the subtree over leaves [index << level, (index + 1) << level)
Range = tuple[int, int]  # leaves [low, high)
Reader = Callable[[Iterable[Node]], Mapping[Node, bytes]]


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an interior node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: one hash for each set bit of its size, largest subtree first.

    It is all that is needed to append and to know the root; `size` is the number of leaves.
    """

    def __init__(self, size: int = 0, hashes: bytes = b"") -> None:
        if len(hashes) != HASH_BYTES * size.bit_count():
            raise ValueError("a frontier has one hash for each set bit of its size")
        self.size = size
        self._hashes = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add one leaf hash; returns the subtrees that became complete, as (level, index, hash)."""
        complete = [(0, self.size, leaf)]
        level, index, top = 0, self.size, leaf
        while index & 1:
            top = node_hash(self._hashes.pop(), top)
            level, index = level + 1, index >> 1
            complete.append((level, index, top))
        self._hashes.append(top)
        self.size += 1
        return complete

    def root(self) -> bytes:
        """The root of the present tree."""
        return _fold(self._hashes) if self._hashes else EMPTY_ROOT

    def to_bytes(self) -> bytes:
        """The hashes, concatenated, as the constructor takes them."""
        return b"".join(self._hashes)


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join neighbouring subtrees, largest first, as MTH does with what is right of the largest power of two."""
    top = hashes[-1]
    for left in reversed(hashes[:-1]):
        top = node_hash(left, top)
    return top


def _split(width: int) -> int:
    """The largest power of two smaller than `width` (which is at least 2)."""
    return 1 << ((width - 1).bit_length() - 1)


def _subtrees(low: int, high: int) -> list[Node]:
    """Cut a range that RFC 6962 hashes as one tree into complete subtrees, left to right."""
    nodes: list[Node] = []
    while low < high:
        level = (high - low).bit_length() - 1
        nodes.append((level, low >> level))
        low += 1 << level
    return nodes


def _hashes_of(ranges: Sequence[Range], read: Reader) -> list[bytes]:
    cut = [_subtrees(low, high) for low, high in ranges]
    known = read({node for nodes in cut for node in nodes})
    return [_fold([known[node] for node in nodes]) for nodes in cut]


def root(size: int, read: Reader) -> bytes:
    """The root of the first `size` leaves."""
    return _hashes_of([(0, size)], read)[0] if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: Reader) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves. Raises ValueError when it is not in that tree."""
    if not 0 <= index < size:
        raise ValueError("no such leaf in a tree of this size")
    ranges: list[Range] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return _hashes_of(ranges[::-1], read)


def consistency_proof(old: int, new: int, read: Reader) -> list[bytes]:
    """The proof that the tree of `old` leaves is a prefix of that of `new`. Raises ValueError unless 0 < old <= new."""
    if not 0 < old <= new:
        raise ValueError("a consistency proof needs 0 < old <= new")
    ranges: list[Range] = []
    low, high, whole = 0, new, True
    while old < high:
        middle = low + _split(high - low)
        if old <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low, whole = middle, False
    if not whole:
        ranges.append((low, high))
    return _hashes_of(ranges[::-1], read)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether `proof` shows that the leaf hash stands at `index` of the tree with this size and root."""
    if not 0 <= index < size:
        return False
    node, last, top = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            top = node_hash(sibling, top)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            top = node_hash(top, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and top == expected_root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree (old, old_root) is a prefix of the tree (new, new_root)."""
    if old == new:
        return old_root == new_root and not proof
    if not 0 < old < new or not proof:
        return False
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    was = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            was, now = node_hash(sibling, was), node_hash(sibling, now)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            now = node_hash(now, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and was == old_root and now == new_root
