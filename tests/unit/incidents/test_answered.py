"""What is held of an answer: exactly what was answered, in little memory."""

import random

import pytest

from keepless.incidents.answered import Answered

EVENT = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'


@pytest.mark.parametrize("sizes", [(0,), (1, 2), (65_535, 1), (65_536,), (200_000, 3, 65_536, 65_535)], ids=str)
def test_what_was_held_is_given_back_in_order(sizes: tuple[int, ...]) -> None:
    pieces = [random.Random(size).randbytes(size) for size in sizes]
    held, whole = Answered(), Answered()
    for piece in pieces:
        held.hold(piece)
        whole.add(piece)
    assert held.whole() == whole.whole() == b"".join(pieces)
    assert whole.size == sum(sizes)


def test_a_long_stream_takes_a_tenth_of_its_size_and_what_follows_it_a_block_at_most() -> None:
    draw, held, sent = random.Random(1), Answered(), 0
    while sent < 4 << 20:
        event = EVENT % draw.randbytes(4).hex().encode()
        held.hold(event)
        sent += len(event)
    assert held.size < sent / 10 + 65_536
    assert len(held.whole()) == sent


def test_nothing_is_left_of_what_is_forgotten() -> None:
    held = Answered()
    held.hold(b"x" * 70_000)
    held.hold(b"y")
    held.clear()
    assert held.size == 0
    assert held.whole() == b""
    held.hold(b"z")
    assert held.whole() == b"z"
