"""What is bound to a DEK and a blob: changing any of it keeps it shut."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.content import Purpose
from keepless.vault.envelope import (
    FORMAT,
    STREAMED,
    Facts,
    StreamOpener,
    StreamSealer,
    new_dek,
    seal,
    seal_label,
    unseal,
    unseal_label,
    unwrap,
    wrap,
)
from keepless.vault.errors import NotOpenedError

FACTS = Facts("org_a", "proj_b", "reliability_log", "obj_c", 1_790_000_000_000, 1_792_592_000_000)
KEK, DEK = bytes(range(32)), bytes(range(32, 64))


def opened(dek: bytes, facts: Facts, ciphertext: bytes) -> bytes:
    return unseal(dek, facts, "blob_a", ciphertext).reveal(Purpose.PROVE)


@given(st.binary(max_size=300))
def test_what_was_sealed_opens(plaintext: bytes) -> None:
    ciphertext = b"".join(seal(DEK, FACTS, plaintext))
    assert ciphertext[0] == FORMAT
    assert opened(DEK, FACTS, ciphertext) == plaintext


def test_large_plaintext_comes_in_pieces_of_bounded_size() -> None:
    pieces = seal(DEK, FACTS, b"x" * 5_000_000)
    assert max(map(len, pieces)) <= (1 << 20) + 100
    assert opened(DEK, FACTS, b"".join(pieces)) == b"x" * 5_000_000


def test_a_wrapped_key_is_sixty_one_bytes_and_fits_its_column() -> None:
    wrapped = wrap(KEK, DEK, FACTS)
    assert len(wrapped) == 61
    assert unwrap(KEK, wrapped, FACTS) == DEK
    assert wrap(KEK, DEK, FACTS) != wrapped


CHANGES = [
    replace(FACTS, organization_id="org_x"),
    replace(FACTS, project_id="proj_x"),
    replace(FACTS, data_class="abuse_log"),
    replace(FACTS, object_id="obj_x"),
    replace(FACTS, created_at=FACTS.created_at + 1),
    replace(FACTS, expires_at=FACTS.expires_at + 1),
    replace(FACTS, expires_at=None),
    # The same letters, cut elsewhere.
    replace(FACTS, organization_id="org_ap", project_id="roj_b"),
]


@pytest.mark.parametrize("facts", CHANGES)
def test_other_facts_open_neither_key_nor_blob(facts: Facts) -> None:
    with pytest.raises(NotOpenedError):
        unwrap(KEK, wrap(KEK, DEK, FACTS), facts)
    with pytest.raises(NotOpenedError):
        unseal(DEK, facts, "blob_a", b"".join(seal(DEK, FACTS, b"text")))


def test_every_field_is_bound() -> None:
    changed = {
        field.name
        for facts in CHANGES
        for field in fields(Facts)
        if getattr(facts, field.name) != getattr(FACTS, field.name)
    }
    assert changed == {field.name for field in fields(Facts)}


@given(st.lists(st.tuples(*[st.text(max_size=6)] * 4), min_size=2, max_size=2, unique=True))
def test_two_sets_of_facts_never_encode_alike(texts: list[tuple[str, str, str, str]]) -> None:
    one, two = (Facts(*four, created_at=0, expires_at=None) for four in texts)
    assert one.associated(b"dek") != two.associated(b"dek")
    assert one.associated(b"dek") != one.associated(b"blob")


def test_another_key_a_changed_byte_or_another_format_does_not_open() -> None:
    wrapped = wrap(KEK, DEK, FACTS)
    with pytest.raises(NotOpenedError):
        unwrap(bytes(32), wrapped, FACTS)
    for position in range(len(wrapped)):
        bad = wrapped[:position] + bytes([wrapped[position] ^ 1]) + wrapped[position + 1 :]
        with pytest.raises(NotOpenedError):
            unwrap(KEK, bad, FACTS)
    for bad in (b"", wrapped[:1], wrapped[:20]):
        with pytest.raises(NotOpenedError):
            unwrap(KEK, bad, FACTS)
    for bad in (b"", b"\x01", b"\x02" + b"x" * 80):
        with pytest.raises(NotOpenedError):
            unseal(DEK, FACTS, "blob_a", bad)


def test_keys_are_random() -> None:
    assert len({new_dek() for _ in range(100)}) == 100
    assert len(new_dek()) == 32


def test_an_error_says_nothing_of_what_it_failed_on() -> None:
    with pytest.raises(NotOpenedError) as caught:
        unwrap(bytes(32), wrap(KEK, DEK, FACTS), FACTS)
    assert caught.value.__suppress_context__
    assert "org_a" not in str(caught.value)


def streamed(pieces: list[bytes], blob: str = "blob_a") -> bytes:
    sealed = bytearray()
    sealer = StreamSealer(DEK, blob, sealed.extend)
    for piece in pieces:
        sealer.update(piece)
    sealer.finish()
    return bytes(sealed)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_what_comes_piece_by_piece_opens_whole(pieces: list[bytes]) -> None:
    ciphertext = streamed(pieces)
    assert ciphertext[0] == STREAMED
    assert opened(DEK, FACTS, ciphertext) == b"".join(pieces)


def test_a_streamed_blob_is_bound_to_its_own_id_and_format() -> None:
    ciphertext = streamed([b"text"])
    for blob, changed in (
        ("blob_b", ciphertext),
        ("blob_a", b"\1" + ciphertext[1:]),
        ("blob_a", b"\3" + ciphertext[1:]),
    ):
        with pytest.raises(NotOpenedError):
            unseal(DEK, FACTS, blob, changed)
    whole = b"".join(seal(DEK, FACTS, b"text"))
    with pytest.raises(NotOpenedError):
        unseal(DEK, FACTS, "blob_a", b"\2" + whole[1:])


@pytest.mark.parametrize("whole", [True, False])
def test_parts_open_with_the_segments_that_hold_them(whole: bool) -> None:
    plaintext = bytes(range(251)) * 15_000
    ciphertext = b"".join(seal(DEK, FACTS, plaintext)) if whole else streamed([plaintext])
    opener = StreamOpener(DEK, FACTS, "blob_a", ciphertext[: StreamOpener.HEAD], len(ciphertext))
    assert opener.size == len(plaintext)
    for start, stop in ((0, 1), (1_048_000, 1_049_000), (3_000_000, len(plaintext)), (0, len(plaintext))):
        out = b""
        while start + len(out) < stop:
            window, at, length = opener.window(start + len(out), stop, 2)
            assert len(window) <= 2
            out += opener.open(window, ciphertext[at : at + length], start + len(out), stop)
        assert out == plaintext[start:stop]
    window, at, length = opener.window(0, 1, 1)
    with pytest.raises(NotOpenedError):
        opener.open(window, ciphertext[at + 1 : at + length], 0, 1)
    for head in (b"", b"\7" + ciphertext[1 : StreamOpener.HEAD], ciphertext[: StreamOpener.HEAD - 1]):
        with pytest.raises(NotOpenedError):
            StreamOpener(DEK, FACTS, "blob_a", head, len(ciphertext))


def test_a_label_opens_with_its_own_key_and_facts_alone() -> None:
    sealed = seal_label(DEK, FACTS, b"a name")
    assert seal_label(DEK, FACTS, b"a name") != sealed
    assert unseal_label(DEK, FACTS, sealed) == b"a name"
    assert len(seal_label(DEK, FACTS, b"x" * 900)) <= 1024
    for dek, facts, bad in (
        (KEK, FACTS, sealed),
        (DEK, replace(FACTS, object_id="obj_x"), sealed),
        (DEK, replace(FACTS, expires_at=None), sealed),
        (DEK, FACTS, b""),
        (DEK, FACTS, b"\2" + sealed[1:]),
        (DEK, FACTS, sealed[:-1]),
    ):
        with pytest.raises(NotOpenedError):
            unseal_label(dek, facts, bad)
