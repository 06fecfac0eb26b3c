"""Forms that come piece by piece: the same fields however they are cut, and nothing doubtful is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.errors import Problem
from keepless.gateway.form_stream import FIELD_END, Field, FormStream, boundary_of

BOUNDARY = b"b0"


def encoded(*parts: tuple[str, bytes], end: bytes = b"--b0--\r\n") -> bytes:
    out = b""
    for disposition, data in parts:
        out += b"--b0\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"
    return out + end


def read(body: bytes, size: int = 1 << 20) -> list[tuple[str, bytes | None, bytes]]:
    stream = FormStream(BOUNDARY)
    found: list[tuple[str, bytes | None, bytes]] = []
    open_field: Field | None = None
    data = b""
    for at in range(0, len(body), size):
        for event in stream.feed(body[at : at + size]):
            if isinstance(event, Field):
                assert open_field is None
                open_field, data = event, b""
            elif event is FIELD_END:
                assert open_field is not None
                found.append((*open_field, data))
                open_field = None
            else:
                data += event
    stream.finish()
    assert open_field is None
    return found


@given(
    data=st.lists(st.binary(max_size=60) | st.sampled_from([b"\r\n", b"\r\n--b", b"\r\n--b0x"[:6], b"--", b""])),
    size=st.integers(1, 50),
)
def test_fields_are_the_same_however_they_are_cut(data: list[bytes], size: int) -> None:
    data = [one for one in data if b"\r\n--b0" not in b"\r\n" + one + b"\r\n"]
    body = encoded(*((f'name="f{n}"', one) for n, one in enumerate(data[:20])))
    if data:
        assert read(body, size) == [(f"f{n}", None, one) for n, one in enumerate(data[:20])]


def test_memory_holds_no_more_than_a_piece() -> None:
    stream = FormStream(BOUNDARY)
    list(stream.feed(encoded(('name="file"; filename="a"', b""), end=b"")[:-2]))
    for _ in range(50):
        list(stream.feed(b"x" * 65536))
        assert len(stream._waiting) < 100


def test_a_piece_of_a_file_is_handed_on_uncopied() -> None:
    stream = FormStream(BOUNDARY)
    list(stream.feed(encoded(('name="file"; filename="a"', b""), end=b"")[:-2]))
    for piece in (b"x" * 1000, b"\r\n--b" + b"x" * 1000, b"x\rx"):
        (given,) = stream.feed(piece)
        assert given is piece


def test_a_delimiter_is_found_behind_many_line_ends() -> None:
    data = b"\r\n" * 1000 + b"\r" * 1000 + b"\r\n--b"
    for size in (1 << 20, 1000, 7):
        assert read(encoded(('name="a"', data), ('name="b"', b"")), size) == [("a", None, data), ("b", None, b"")]


NAMES = {
    'name="file"; filename="a b.txt"': b"a b.txt",
    "name=file; filename=a.txt": b"a.txt",
    'name="file"; filename="a%22b%0D%0A%41.txt"': b'a"b\r\n%41.txt',
    'name="file"; filename="a\\"b\\\\.txt"': b'a"b\\.txt',
    'name="file"; filename="é"': "é".encode(),
    'name="file"; filename="x"; filename*=UTF-8\'\'%c3%a9%20y': "é y".encode(),
    'name="file"; filename=""': b"",
    'name="file"': None,
}


@pytest.mark.parametrize("disposition", NAMES)
def test_names_of_files(disposition: str) -> None:
    assert read(encoded((disposition, b"x"))) == [("file", NAMES[disposition], b"x")]


BODY = encoded(('name="a"', b"x"))
BAD = {
    "cut before its end": BODY[:-4],
    "cut in a part": BODY[:-12],
    "cut in a head": BODY[:30],
    "nothing": b"",
    "a preamble": b"hello\r\n" + BODY,
    "an epilogue": BODY + b"hello",
    "a part without a name": encoded(("x=y", b"x")),
    "an empty name": encoded(('name=""', b"x")),
    "a name that is not ASCII": encoded(('name="é"', b"x")),
    "no disposition": b"--b0\r\ncontent-type: text/plain\r\n\r\nx\r\n--b0--\r\n",
    "another disposition": BODY.replace(b"form-data", b"attachment"),
    "a repeated parameter": encoded(('name="a"; name="b"', b"x")),
    "a repeated header": BODY.replace(b"\r\n\r\nx", b'\r\ncontent-disposition: form-data; name="b"\r\n\r\nx'),
    "a folded header": BODY.replace(b"\r\n\r\nx", b"\r\n folded\r\n\r\nx"),
    "an encoding": BODY.replace(b"\r\n\r\nx", b"\r\ncontent-transfer-encoding: base64\r\n\r\nx"),
    "a long head": encoded((f'name="a"; filename="{"n" * 9000}"', b"x")),
    "too many parts": encoded(*[('name="a"', b"x")] * 101),
    "a name that is not UTF-8": BODY.replace(b'name="a"', b'name="a"; filename="\xff"'),
    "another charset": encoded(("name=\"a\"; filename*=latin1''%e9", b"x")),
    "an unquoted line": encoded(('name="a"; junk', b"x")),
    "a delimiter with more": BODY.replace(b"--b0--\r\n", b"--b0xx\r\n"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_doubtful_is_refused(case: str) -> None:
    for size in (1, 7, 1 << 20):
        with pytest.raises(Problem) as caught:
            read(BAD[case], size)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b"multipart/form-data; boundary=abc; charset=UTF-8", b"abc"),
        (b'multipart/form-data; charset="utf-8"; boundary="abc"', b"abc"),
        (b"multipart/form-data; boundary=abc; boundary=def", None),
        (b"multipart/form-data; boundary=abc; charset=", None),
        (b'Multipart/Form-Data; boundary="a b"', b"a b"),
        (b'Multipart/Form-Data; BOUNDARY="b0"', b"b0"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b"", None),
        (b"multipart/mixed; boundary=abc", None),
        (b"multipart/form-data; boundary=" + b"a" * 71, None),
        (b"application/json", None),
    ],
)
def test_the_boundary(kind: bytes, boundary: bytes | None) -> None:
    assert boundary_of(kind) == boundary
