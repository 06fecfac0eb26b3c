"""Frames come out as they went in, however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.inference.embedded.frames import HEADER_LIMIT, FrameError, Frames, Kind, frame, pack

FRAMES = st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=40)), max_size=6)


@given(sent=FRAMES, cuts=st.lists(st.integers(0, 300), max_size=8))
def test_frames_in_any_pieces(sent: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    data = b"".join(frame(kind, payload) for kind, payload in sent)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    frames, came = Frames(1000), []
    for start, end in itertools.pairwise(edges):
        came += frames.feed(data[start:end])
    assert came == sent


def test_a_request_is_a_header_and_a_content() -> None:
    assert list(Frames(1000).feed(pack(b"{}", b"sound"))) == [(Kind.HEADER, b"{}"), (Kind.CONTENT, b"sound")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00\x00",
        b"\x09\x00\x00\x00\x00",
        frame(Kind.CONTENT, b"x" * 11),
        bytes([Kind.HEADER]) + (HEADER_LIMIT + 1).to_bytes(4, "big"),
    ],
    ids=["no kind", "unknown kind", "content", "header"],
)
def test_what_is_none_or_too_large_is_refused_before_it_is_held(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(Frames(10).feed(data[:5]))
