"""A form is read as it was written, or refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.errors import Problem
from keepless.gateway.multipart import Part, new_boundary, read_form, write_form

B = b"XX"
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_[]-", min_size=1, max_size=12)


@given(fields=st.lists(st.tuples(NAMES, st.binary(max_size=60)), max_size=5), file=st.binary(max_size=200))
def test_what_is_written_is_read(fields: list[tuple[str, bytes]], file: bytes) -> None:
    boundary = new_boundary()
    body = write_form(boundary, fields, file, extension="wav")
    assert read_form(body, boundary) == [*(Part(*field) for field in fields), Part("file", file, True)]


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with contextlib.suppress(Problem):
        assert all(len(part.data) <= len(data) for part in read_form(b"--XX" + data, B))


def one(head: bytes, data: bytes = b"x", end: bytes = b"\r\n--XX--\r\n") -> bytes:
    return b"--XX\r\n" + head + b"\r\n\r\n" + data + end


GOOD = b'Content-Disposition: form-data; name="a"'


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (one(GOOD), [Part("a", b"x")]),
        (one(GOOD + b'; filename="a\\"b.wav"'), [Part("a", b"x", True)]),
        (one(GOOD, b""), [Part("a", b"")]),
        (one(GOOD, b"\r\n--XY\r\n"), [Part("a", b"\r\n--XY\r\n")]),
        (one(GOOD + b'; filename="Zebra \xc3\xa4.wav"\r\nContent-Type: audio/x'), [Part("a", b"x", True)]),
        (one(b"content-disposition:form-data;name=a;filename*=UTF-8''z"), [Part("a", b"x", True)]),
        (one(GOOD, end=b"\r\n--XX--"), [Part("a", b"x")]),
        (b"--XX--\r\n", []),
    ],
)
def test_as_clients_write_them(body: bytes, found: list[Part]) -> None:
    assert read_form(body, B) == found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + one(GOOD),
        one(GOOD)[:-6],
        one(GOOD) + b"epilogue",
        one(GOOD, end=b""),
        one(b"Content-Type: x"),
        one(b'Content-Disposition: attachment; name="a"'),
        one(b"Content-Disposition: form-data"),
        one(b'Content-Disposition: form-data; name=""'),
        one(b'Content-Disposition: form-data; name="\xc3\xa4"'),
        one(b'Content-Disposition: form-data; name="a"; name="b"'),
        one(GOOD + b"\r\n" + GOOD),
        one(GOOD + b"\r\nContent-Transfer-Encoding: base64"),
        one(GOOD + b"\r\n folded"),
        one(GOOD + b"\r\nX: " + b"y" * 9000),
        (one(GOOD, end=b"\r\n") * 101) + b"--XX--\r\n",
    ],
)
def test_what_is_doubtful_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_form(body, B)
    assert caught.value.status == 400
