"""The lines of a batch's input or of a dataset: found in a stream, read, in bounded memory.

Holds: `split` (a stream of pieces -> lines with their places), `Found`. Leaves out: what is read of a line that was
validated (line_shapes), whether a line is a request that may be run (validate), running it (shard).

A byte order mark at the beginning, CRLF and line ends at the end of the file are tolerated; an empty line between
others is a line, and no request.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from keepless.content import Content, Purpose

__all__ = ["Found", "split"]

_BOM: Final = b"\xef\xbb\xbf"


class Found(NamedTuple):
    """One line. `data` None: it is longer than a line may be. The bytes [start, stop) hold it with its end."""

    number: int  # from 1
    start: int
    stop: int
    data: bytes | None


def split(
    pieces: Iterable[Content], longest: int, *, number: int = 1, offset: int = 0, purpose: Purpose = Purpose.INFERENCE
) -> Iterator[Found]:
    """The lines of a stream whose first byte is that of line `number` and stands at `offset`.

    Empty lines at the end are not told. Never holds more than a piece and a line of at most `longest` bytes.
    """
    empty: list[Found] = []
    start = at = offset  # of the line; of the byte after those that were looked at
    rest: list[bytes] = []  # of the line that is not whole yet
    held = 0
    for piece in pieces:
        data = piece.reveal(purpose)
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            whole: bytes | None
            if not held:
                whole = data[begin:end] if end - begin <= longest + 1 else None
            else:
                whole = None if held + end - begin > longest + 1 else b"".join([*rest, data[begin:end]])
                held = 0
                rest.clear()
            at += end + 1 - begin
            found = _found(number, start, at, whole, longest)
            number, start, begin = number + 1, at, end + 1
            if found.data is not None and not found.data.strip(b" \t"):
                empty.append(found)
                continue
            if empty:
                yield from empty
                empty.clear()
            yield found
        held += len(data) - begin
        at += len(data) - begin
        if held <= longest + 1:
            rest.append(data[begin:])
        else:
            rest.clear()
    if at > start:
        last = _found(number, start, at, None if held > longest + 1 else b"".join(rest), longest)
        if last.data is None or last.data.strip(b" \t"):
            yield from empty
            yield last


def _found(number: int, start: int, stop: int, whole: bytes | None, longest: int) -> Found:
    if whole is not None:
        whole = whole.removesuffix(b"\r")
        if start == 0:
            whole = whole.removeprefix(_BOM)
        if len(whole) > longest:
            whole = None
    return Found(number, start, stop, whole)
