"""Groups of sealed records: they open where they were written, in their order, whole."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.vault.errors import NotOpenedError
from keepless.vault.journal_format import BEGINNING, opened_records, seal_group

DEK = bytes(range(32))


def written(groups: list[list[bytes]], journal: str = "jrnl_a") -> bytes:
    out = BEGINNING
    for records in groups:
        out += seal_group(DEK, journal, len(out), records)
    return out


def chunks(data: bytes, size: int = 7) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def opened(data: bytes, journal: str = "jrnl_a", dek: bytes = DEK) -> list[bytes]:
    return list(opened_records(dek, journal, len(data), chunks(data)))


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=5))
def test_what_was_written_opens_in_order(groups: list[list[bytes]]) -> None:
    assert opened(written(groups)) == [record for group in groups for record in group]


@given(data=st.data())
def test_any_changed_byte_is_detected(data: st.DataObject) -> None:
    sealed = bytearray(written([[b"one", b"two"], [b"three"]]))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NotOpenedError):
        opened(bytes(sealed))


def test_groups_and_records_open_in_their_own_place_only() -> None:
    records = [os.urandom(20) for _ in range(4)]
    first, second = written([records[:2]]), written([records[:2], records[2:]])
    group = second[len(first) :]
    for moved in (BEGINNING + group + second[1 : len(first)], BEGINNING + group, second + group):
        with pytest.raises(NotOpenedError):
            opened(moved)
    one = seal_group(DEK, "jrnl_a", 1, [b"a" * 8, b"b" * 8])
    size = (len(one) - 40) // 2
    with pytest.raises(NotOpenedError):
        opened(BEGINNING + one[:40] + one[40 + size :] + one[40 : 40 + size])


@pytest.mark.parametrize("cut", [0, 1, 20, 41, -1, -17])
def test_a_journal_that_was_cut_does_not_open(cut: int) -> None:
    sealed = written([[b"one", b"two"], [b"three"]])
    with pytest.raises(NotOpenedError):
        list(opened_records(DEK, "jrnl_a", len(sealed), chunks(sealed[:cut])))
    if cut not in (0, 1):
        with pytest.raises(NotOpenedError):
            opened(sealed[:cut])


def test_what_lies_beyond_the_length_is_noise() -> None:
    sealed = written([[b"one"]])
    assert list(opened_records(DEK, "jrnl_a", len(sealed), chunks(sealed + b"torn group"))) == [b"one"]


def test_another_journal_or_key_does_not_open() -> None:
    sealed = written([[b"one"]])
    for journal, dek in (("jrnl_b", DEK), ("jrnl_a", bytes(32))):
        with pytest.raises(NotOpenedError):
            opened(sealed, journal, dek)


def test_the_same_group_is_never_sealed_twice_alike() -> None:
    assert seal_group(DEK, "jrnl_a", 1, [b"x"])[:32] != seal_group(DEK, "jrnl_a", 1, [b"x"])[:32]
