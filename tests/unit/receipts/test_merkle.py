"""The tree's arithmetic: the reference vectors of RFC 6962's test suite, and every proof up to 130 leaves."""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import pytest

from keepless.receipts import merkle
from keepless.receipts.merkle import Frontier, Node, consistency_proof, inclusion_proof, leaf_hash, node_hash

REFERENCE_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
# Published with the reference implementation of RFC 6962: the root after each leaf.
REFERENCE_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = 130


class Tree:
    """A tree grown leaf by leaf, every complete subtree remembered."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self.nodes: dict[Node, bytes] = {}
        self.leaves: list[bytes] = []
        self.roots = [merkle.EMPTY_ROOT]
        frontier = Frontier()
        for data in leaves:
            self.leaves.append(leaf_hash(data))
            for level, index, digest in frontier.append(self.leaves[-1]):
                self.nodes[level, index] = digest
            frontier = Frontier(frontier.size, frontier.to_bytes())  # as the log stores and loads it
            self.roots.append(frontier.root())

    def read(self, wanted: Iterable[Node]) -> Mapping[Node, bytes]:
        return {node: self.nodes[node] for node in wanted}


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(b"leaf %d" % i for i in range(SIZES))


def test_the_reference_roots() -> None:
    grown = Tree(REFERENCE_LEAVES)
    assert [root.hex() for root in grown.roots[1:]] == REFERENCE_ROOTS
    assert sha256(b"").digest() == merkle.EMPTY_ROOT


def test_a_published_inclusion_proof() -> None:
    # Leaf 5 (counted from 0) of the 8 reference leaves, from the same test suite.
    path = inclusion_proof(5, 8, Tree(REFERENCE_LEAVES).read)
    assert [node.hex() for node in path] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1 as it is written, without any cleverness."""
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return node_hash(plain_root(leaves[:middle]), plain_root(leaves[middle:]))


def test_roots_are_those_of_the_definition(tree: Tree) -> None:
    for size in range(1, SIZES + 1):
        expected = plain_root(tree.leaves[:size])
        assert tree.roots[size] == expected
        assert merkle.root(size, tree.read) == expected
    assert merkle.root(0, tree.read) == merkle.EMPTY_ROOT


def test_every_inclusion_proof_verifies_and_no_other(tree: Tree) -> None:
    for size in range(1, SIZES + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, tree.read)
            leaf, root = tree.leaves[index], tree.roots[size]
            assert merkle.verify_inclusion(leaf, index, size, proof, root)
            assert not merkle.verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
            assert not merkle.verify_inclusion(leaf, index, size, proof, tree.roots[size - 1])
            assert not merkle.verify_inclusion(leaf, index, size, [*proof, leaf], root)
            assert not merkle.verify_inclusion(leaf, (index + 1) % size, size, proof, root) or size == 1
            if proof:
                assert not merkle.verify_inclusion(leaf, index, size, proof[:-1], root)


def test_every_consistency_proof_verifies_and_no_other(tree: Tree) -> None:
    for new in range(1, SIZES + 1):
        for old in range(1, new + 1):
            proof = consistency_proof(old, new, tree.read)
            was, now = tree.roots[old], tree.roots[new]
            assert merkle.verify_consistency(old, new, was, now, proof)
            assert not merkle.verify_consistency(old, new, leaf_hash(b""), now, proof)
            assert not merkle.verify_consistency(old, new, was, leaf_hash(b""), proof)
            assert not merkle.verify_consistency(old, new, was, now, [*proof, was])
            if proof:
                assert not merkle.verify_consistency(old, new, was, now, proof[:-1])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_proof_for_what_is_not_there(tree: Tree, index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(index, size, tree.read)
    assert not merkle.verify_inclusion(tree.leaves[0], index, size, [], tree.roots[1])


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 2)])
def test_no_consistency_with_nothing_or_the_future(tree: Tree, old: int, new: int) -> None:
    with pytest.raises(ValueError, match="consistency"):
        consistency_proof(old, new, tree.read)
    assert not merkle.verify_consistency(old, new, tree.roots[0], tree.roots[3], [tree.roots[1]])


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier(3, b"x" * 32)
