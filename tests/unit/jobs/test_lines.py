"""Lines of a stream: the same whatever the pieces, with their places, in bounded memory."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.content import Content
from keepless.jobs.line_shapes import read_line
from keepless.jobs.lines import Found, split


def pieces(data: bytes, *cuts: int) -> Iterator[Content]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in pairwise(edges):
        yield Content(data[start:stop])


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", [(0, 1, b"a")]),
        (b"a\n", [(0, 2, b"a")]),
        (b"a\nb", [(0, 2, b"a"), (2, 3, b"b")]),
        (b"a\r\nb\r\n", [(0, 3, b"a"), (3, 6, b"b")]),
        (b"\xef\xbb\xbfa\nb\n", [(0, 5, b"a"), (5, 7, b"b")]),
        (b"a\n\n \r\n\n", [(0, 2, b"a")]),
        (b"a\n\nb", [(0, 2, b"a"), (2, 3, b""), (3, 4, b"b")]),
        (b"\n\n", []),
        (b"12345\n6", [(0, 6, b"12345"), (6, 7, b"6")]),
        (b"12345\r\n6", [(0, 7, b"12345"), (7, 8, b"6")]),
        (b"123456\n7", [(0, 7, None), (7, 8, b"7")]),
        (b"1\n23456789", [(0, 2, b"1"), (2, 10, None)]),
    ],
)
def test_lines_and_where_they_stand(data: bytes, lines: list[tuple[int, int, bytes | None]]) -> None:
    for cuts in ((), (1,), (1, 2, 3), range(20)):
        found = [(line.start, line.stop, line.data) for line in split(pieces(data, *cuts), 5)]
        assert found == lines


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\0", b"\n")), st.lists(st.integers(1, 199)))
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    assert list(split(pieces(data, *cuts), 20)) == list(split(pieces(data), 20))


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda one: not set(one) & set(b"\n\r \t")), min_size=1))
def test_a_part_of_a_file_holds_the_same_lines(texts: list[bytes]) -> None:
    data = b"\n".join(texts) + b"\n"
    whole = list(split(pieces(data), 20))
    assert [line.data for line in whole] == [text.removeprefix(b"\xef\xbb\xbf") if not at else text
                                             for at, text in enumerate(texts)]  # fmt: skip
    for at, line in enumerate(whole):
        part = split(pieces(data[line.start :]), 20, number=line.number, offset=line.start)
        assert list(part) == whole[at:]


def test_a_line_that_is_far_too_long_is_not_held() -> None:
    def endless() -> Iterator[Content]:
        for _ in range(1000):
            yield Content(b"x" * 1000)
        yield Content(b"\nlast")

    assert list(split(endless(), 100)) == [Found(1, 0, 1_000_001, None), Found(2, 1_000_001, 1_000_005, b"last")]


def test_a_body_is_read_as_it_was_sent() -> None:
    line = read_line(b'{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {"b" : [1,  2]}}')
    assert (line.custom_id, line.url, bytes(line.body)) == ("a", "/v1/x", b'{"b" : [1,  2]}')
