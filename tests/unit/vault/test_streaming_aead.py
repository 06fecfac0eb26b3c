"""The stream format, with Google's own Tink as the oracle: it opens ours and we open its."""

import io
import os

import pytest
import tink
from hypothesis import given
from hypothesis import strategies as st
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from keepless.vault.streaming_aead import (
    HEADER,
    SEGMENT,
    Decryptor,
    Encryptor,
    NotAuthenticError,
    Segments,
    ciphertext_size,
)

KEY = bytes(range(32))
ASSOCIATED = b"organization|project|class"
FIRST, NEXT = SEGMENT - HEADER - 16, SEGMENT - 16
SIZES = [0, 1, 100, FIRST - 1, FIRST, FIRST + 1, FIRST + NEXT, FIRST + NEXT + 1, 5_000_001]


def oracle() -> streaming_aead.StreamingAead:
    streaming_aead.register()
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        version=0,
        key_value=KEY,
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=SEGMENT, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
        ),
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=1,
        key=[
            tink_pb2.Keyset.Key(
                key_data=tink_pb2.KeyData(
                    type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    value=key.SerializeToString(),
                    key_material_type=tink_pb2.KeyData.SYMMETRIC,
                ),
                status=tink_pb2.ENABLED,
                key_id=1,
                output_prefix_type=tink_pb2.RAW,
            )
        ],
    )
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


class Kept(io.BytesIO):
    """A sink that remembers what it held when it was closed."""

    value = b""

    def close(self) -> None:
        self.value = self.getvalue()


def seal(plaintext: bytes, step: int = 70_001, associated: bytes = ASSOCIATED) -> bytes:
    sealed = bytearray()
    encryptor = Encryptor(KEY, associated, sealed.extend)
    for at in range(0, len(plaintext), step):
        encryptor.update(plaintext[at : at + step])
    encryptor.finish()
    return bytes(sealed)


def unseal(ciphertext: bytes, step: int = 33_333, key: bytes = KEY, associated: bytes = ASSOCIATED) -> bytes:
    decryptor = Decryptor(key, associated)
    parts = [decryptor.update(ciphertext[i : i + step]) for i in range(0, len(ciphertext), step)]
    return b"".join([*parts, decryptor.finish()])


@pytest.mark.parametrize("size", SIZES)
def test_tink_opens_ours_and_we_open_tinks(size: int) -> None:
    plaintext, tinks = os.urandom(size), oracle()
    ours = seal(plaintext)
    assert len(ours) == ciphertext_size(size)
    assert tinks.new_decrypting_stream(io.BytesIO(ours), ASSOCIATED).read() == plaintext
    sink = Kept()
    with tinks.new_encrypting_stream(sink, ASSOCIATED) as stream:
        stream.write(plaintext)
    assert len(sink.value) == len(ours)
    assert unseal(sink.value) == plaintext


@pytest.mark.parametrize("size", [0, 1, FIRST, FIRST + 1, FIRST + NEXT + 5])
def test_a_shortened_stream_does_not_open(size: int) -> None:
    ciphertext = seal(os.urandom(size))
    cuts = {0, 1, HEADER - 1, HEADER, HEADER + 15, len(ciphertext) - 1, SEGMENT, 2 * SEGMENT}
    for cut in cuts:
        if cut < len(ciphertext):
            with pytest.raises(NotAuthenticError):
                unseal(ciphertext[:cut])


def test_a_changed_order_of_segments_does_not_open() -> None:
    ciphertext = seal(os.urandom(FIRST + 2 * NEXT + 9))
    first, second, third, rest = (ciphertext[i * SEGMENT : (i + 1) * SEGMENT] for i in range(4))
    with pytest.raises(NotAuthenticError):
        unseal(first + third + second + rest)
    with pytest.raises(NotAuthenticError):
        unseal(first + second + rest)


@given(plaintext=st.binary(max_size=64), data=st.data())
def test_any_changed_byte_is_detected(plaintext: bytes, data: st.DataObject) -> None:
    ciphertext = bytearray(seal(plaintext))
    position = data.draw(st.integers(0, len(ciphertext) - 1))
    ciphertext[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NotAuthenticError):
        unseal(bytes(ciphertext))


def test_another_key_or_other_associated_data_does_not_open() -> None:
    ciphertext = seal(b"marker")
    for key, associated in ((bytes(32), ASSOCIATED), (KEY, ASSOCIATED + b"|"), (KEY, b"")):
        with pytest.raises(NotAuthenticError):
            unseal(ciphertext, key=key, associated=associated)
    with pytest.raises(ValueError, match="32 bytes"):
        Encryptor(b"short", b"", bytearray().extend)


def test_the_same_plaintext_never_makes_the_same_ciphertext() -> None:
    assert seal(b"same") != seal(b"same")


@pytest.mark.parametrize("size", [0, 5, FIRST, FIRST + 1, FIRST + 2 * NEXT + 7])
def test_a_range_reads_only_the_segments_that_hold_it(size: int) -> None:
    plaintext = os.urandom(size)
    ciphertext = seal(plaintext)
    edges = sorted({0, 1, FIRST - 1, FIRST, FIRST + NEXT - 1, FIRST + NEXT, max(0, size - 1), size, size + 5})
    for start in edges:
        for length in (0, 1, 17, NEXT + 3, size + 10):
            fetched: list[tuple[int, int]] = []

            def fetch(offset: int, count: int, fetched: list[tuple[int, int]] = fetched) -> bytes:
                fetched.append((offset, count))
                return ciphertext[offset : offset + count]

            segments = Segments(KEY, ASSOCIATED, ciphertext[:HEADER], len(ciphertext))
            assert segments.size == size
            stop = min(start + length, size)
            if start >= stop:
                continue
            window = segments.window(start, stop)
            got = segments.open(window, fetch(*segments.place(window)))
            begin = segments.begins(window.start)
            assert got[start - begin : stop - begin] == plaintext[start:stop]
            assert fetched[0][1] <= (2 + length // NEXT) * SEGMENT


def test_a_range_of_a_shortened_or_changed_stream_fails() -> None:
    ciphertext = seal(os.urandom(FIRST + NEXT))
    for associated, length in ((ASSOCIATED, SEGMENT), (b"other", len(ciphertext)), (ASSOCIATED, len(ciphertext) + 1)):
        segments = Segments(KEY, associated, ciphertext[:HEADER], length)
        window = range(1) if length == SEGMENT else range(2)
        begin, count = segments.place(window)
        with pytest.raises(NotAuthenticError):
            segments.open(window, ciphertext[begin : begin + count])
    for header, length in ((ciphertext[: HEADER - 1], len(ciphertext)), (ciphertext[:HEADER], HEADER + 15)):
        with pytest.raises(NotAuthenticError):
            Segments(KEY, ASSOCIATED, header, length)
