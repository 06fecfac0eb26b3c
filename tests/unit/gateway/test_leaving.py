"""When bytes leave a connection, and in which order."""

import asyncio
from collections.abc import Callable

from keepless.gateway.leaving import Turn, Wire


class Transport:
    """Remembers what was done to it, in order; one journal may be shared by several."""

    def __init__(self, journal: list[object]) -> None:
        self.journal = journal

    def write(self, data: bytes) -> None:
        self.journal.append(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.journal.append("closed")

    def abort(self) -> None:
        self.journal.append("aborted")


def journal_of(script: Callable[[Callable[[], Wire], list[object]], object]) -> list[object]:
    """What a script did within one turn of the loop, "end" where that turn ended, and what followed."""
    journal: list[object] = []

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())

        def wire() -> Wire:
            made = Wire(turn)
            made.transport = Transport(journal)
            return made

        script(wire, journal)
        journal.append("end")
        await asyncio.sleep(0)

    asyncio.run(main())
    return journal


def test_what_one_turn_writes_leaves_at_its_end_in_one_write_a_connection() -> None:
    def script(wire: Callable[[], Wire], _: object) -> None:
        one, other = wire(), wire()
        one.write(b"a")
        other.write(b"x")
        one.write(b"b")

    assert journal_of(script) == ["end", b"ab", b"x"]


def test_a_source_is_asked_at_the_end_and_stands_behind_what_was_written_before() -> None:
    def script(wire: Callable[[], Wire], journal: list[object]) -> None:
        one = wire()
        pieces: list[bytes] = []
        one.write(b"a")
        one.write_of(lambda: b"".join(pieces))
        pieces.append(b"b")
        pieces.append(b"c")
        wire().write_of(lambda: b"")  # has nothing after all

    assert journal_of(script) == ["end", b"abc"]


def test_closing_writes_what_waits_and_cutting_forgets_it() -> None:
    def script(wire: Callable[[], Wire], _: object) -> None:
        closed, cut, gone = wire(), wire(), wire()
        for one in (closed, cut, gone):
            one.write(b"a")
            one.write_of(lambda: b"b")
        closed.close()
        cut.cut()
        gone.forget()

    assert journal_of(script) == [b"ab", "closed", "aborted", "end"]


def test_a_burst_is_bounded() -> None:
    def connections(wire: Callable[[], Wire], _: object) -> None:
        for _number in range(17):
            wire().write(b"a")

    assert journal_of(connections) == [*[b"a"] * 16, "end", b"a"]

    def much(wire: Callable[[], Wire], _: object) -> None:
        one = wire()
        for piece in (b"a" * 16_000, b"b" * 384, b"c" * 16_384, b"d"):
            one.write(piece)

    assert journal_of(much) == [b"a" * 16_000 + b"b" * 384, b"c" * 16_384, "end", b"d"]


def test_one_that_cannot_be_written_to_is_cut_and_keeps_nobody_elses() -> None:
    class Broken(Transport):
        def write(self, data: bytes) -> None:
            raise RuntimeError

    class Closing(Transport):
        def is_closing(self) -> bool:
            return True

    def script(wire: Callable[[], Wire], journal: list[object]) -> None:
        broken, closing, well = wire(), wire(), wire()
        broken.transport, closing.transport = Broken(journal), Closing(journal)
        for one in (broken, closing, well):
            one.write(b"a")

    assert journal_of(script) == ["end", "aborted", b"a"]


def test_what_is_written_while_a_turn_leaves_is_not_lost() -> None:
    class Answering(Transport):
        def __init__(self, journal: list[object], other: Wire) -> None:
            super().__init__(journal)
            self.other = other

        def write(self, data: bytes) -> None:
            super().write(data)
            self.other.write(b"late")

    async def main() -> list[object]:
        journal: list[object] = []
        turn = Turn(asyncio.get_running_loop())
        other = Wire(turn)
        other.transport = Transport(journal)
        one = Wire(turn)
        one.transport = Answering(journal, other)
        one.write(b"a")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return journal

    assert asyncio.run(main()) == [b"a", b"late"]
