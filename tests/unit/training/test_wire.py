"""Frames between who orders a run and the process that does it."""

import socket
import struct
import threading

import pytest

from keepless.training.wire import Kind, WireError, receive, send


def test_a_frame_comes_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair()
    big = bytes(range(256)) * 20_000
    with ours, theirs:
        thread = threading.Thread(target=send, args=(ours, Kind.CHECKPOINT, b"head", big))
        thread.start()
        assert receive(theirs) == (Kind.CHECKPOINT, b"head" + big)
        thread.join()
        send(ours, Kind.SAVE)
        assert receive(theirs) == (Kind.SAVE, b"")


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x01", struct.pack(">BQ", 1, 5) + b"1234", struct.pack(">BQ", 99, 0), struct.pack(">BQ", 1, 2**63)],
    ids=["nothing", "half a prefix", "half a payload", "no such kind", "too long"],
)
def test_anything_else_is_an_error(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(sent)
        with pytest.raises(WireError):
            receive(theirs)
        with pytest.raises(WireError):
            send(theirs, Kind.SAVE)
    with pytest.raises(WireError):
        receive(theirs)
