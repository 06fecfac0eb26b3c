"""The way of an answer back, asked by the thread that answers and by the loop that watches over it."""

import socket
import threading

from keepless.inference.embedded.child import Channel


def test_several_threads_may_ask_at_once_whether_the_client_has_left() -> None:
    """Who answers asks before each piece, and the loop that watches asks all the time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        found: list[object] = []

        def ask() -> None:
            try:
                found.extend({channel.gone for _ in range(20_000)})
            except RuntimeError as error:
                found.append(error)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for one in asking:
            one.start()
        for one in asking:
            one.join(90)
        assert found == [False] * 4
        theirs.close()
        assert channel.gone
        ours.close()
        assert channel.gone  # whoever watches may still have it in hand
