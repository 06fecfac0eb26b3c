"""What the form of an upload says, and what is refused of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from keepless.content import Content, Purpose
from keepless.errors import Problem
from keepless.files.values import FilePurpose
from keepless.gateway.file_form import FileForm, ends_after, purpose_of, tell_encoding
from keepless.policy.controls import NO_REQUEST, RequestControls

TYPE = b"multipart/form-data; boundary=b0"


def encoded(*parts: tuple[str, str | None, bytes]) -> bytes:
    out = b""
    for name, file_name, data in parts:
        extra = "" if file_name is None else f'; filename="{file_name}"'
        out += f'--b0\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"
    return out + b"--b0--\r\n"


class Target:
    def __init__(self) -> None:
        self.form = FileForm(TYPE, most=3_000_000)
        self.pieces: list[bytes] = []
        self.known: object = "not begun"

    async def begin(self) -> None:
        self.known = self.form.purpose

    async def write(self, piece: Content) -> None:
        self.pieces.append(piece.reveal(Purpose.PROVE))


def read(body: bytes, size: int = 65536) -> Target:
    target = Target()

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    asyncio.run(target.form.read(chunks(), target.begin, target.write))
    return target


FILE = ("file", "a.jsonl", b"x" * 2_500_000)
PURPOSE = ("purpose", None, b"batch")


def test_a_file_is_handed_on_in_pieces() -> None:
    target = read(encoded(FILE, PURPOSE))
    assert b"".join(target.pieces) == FILE[2]
    assert max(map(len, target.pieces)) < 1_200_000
    assert (target.form.file_name, target.form.purpose, target.known) == (b"a.jsonl", FilePurpose.BATCH, None)
    assert target.form.ends_after_s is None
    assert target.form.controls is NO_REQUEST


def test_what_comes_before_the_file_is_known_when_it_begins() -> None:
    more = [("expires_after[anchor]", None, b"created_at"), ("expires_after[seconds]", None, b"3600")]
    target = read(encoded(PURPOSE, *more, ("file", None, b"x")))
    assert (target.known, target.form.ends_after_s, target.form.file_name) == (FilePurpose.BATCH, 3600, b"file")


def test_switches_are_read() -> None:
    assert read(encoded(PURPOSE, FILE, ("store", None, b"false"))).form.controls == RequestControls(keep_nothing=True)
    for value in (b"true", b"maybe"):
        form = read(encoded(PURPOSE, FILE, ("store", None, value))).form
        with pytest.raises(Problem):
            _ = form.controls


BAD = {
    "no file": encoded(PURPOSE),
    "two files": encoded(FILE, FILE),
    "unknown": encoded(FILE, ("what", None, b"x")),
    "repeated": encoded(PURPOSE, PURPOSE, FILE),
    "a file in a field": encoded(("purpose", "a", b"batch"), FILE),
    "a long field": encoded(("purpose", None, b"x" * 2000), FILE),
    "not UTF-8": encoded(("purpose", None, b"\xff"), FILE),
    "a long name": encoded(("file", "n" * 901, b"x")),
    "cut": encoded(FILE)[:-3],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_forms(case: str) -> None:
    with pytest.raises(Problem) as caught:
        read(BAD[case])
    assert caught.value.status == 400


def test_a_file_that_is_too_large_is_refused_as_soon_as_it_is() -> None:
    with pytest.raises(Problem) as caught:
        read(encoded(("file", "a", b"x" * 3_000_001), PURPOSE))
    assert caught.value.status == 413
    assert read(encoded(("file", "a", b"x" * 3_000_000), PURPOSE)).form.file_name == b"a"


def test_purposes() -> None:
    assert purpose_of("batch") is FilePurpose.BATCH
    assert purpose_of("fine-tune") is purpose_of("fine_tuning") is FilePurpose.FINE_TUNE
    for text in (None, "", "batch_output", "vision", 5, ["batch"]):
        with pytest.raises(Problem) as caught:
            purpose_of(text)
        assert caught.value.param == "purpose"
        assert "batch, fine-tune, fine_tuning" in caught.value.message


def test_ends() -> None:
    assert ends_after(None, None) is None
    assert ends_after("created_at", 2_592_000) == 2_592_000
    late = "created_at"
    for anchor, seconds in ((None, 3600), (late, None), ("x", 3600), (late, "3600"), (late, True), (late, 3599)):
        with pytest.raises(Problem):
            ends_after(anchor, seconds)


def test_encodings() -> None:
    for encoding in (None, "", "identity", " Identity "):
        tell_encoding(encoding)
    with pytest.raises(Problem) as caught:
        tell_encoding("gzip")
    assert caught.value.status == 415
