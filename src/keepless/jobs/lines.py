"""The lines of a batch's input or of a dataset: found in a stream, read, in bounded memory.

Holds: `split` (a stream of pieces -> lines with their places), `Found`, `Line`, `read_line` and `model_of`. Leaves out:
whether a line is a request that may be run (validate), running it (shard). Not compiled (msgspec's structs).

A byte order mark at the beginning, CRLF and line ends at the end of the file are tolerated; an empty line between
others is a line, and no request.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from keepless.content import Content, Purpose

__all__ = ["Found", "Line", "model_of", "read_line", "split"]

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Found:
    """One line. `data` None: it is longer than a line may be. The bytes [start, stop) hold it with its end."""

    number: int  # from 1
    start: int
    stop: int
    data: bytes | None


class Line(msgspec.Struct, gc=False, frozen=True):
    """A line that was validated; `body` as it was sent."""

    custom_id: str
    url: str
    body: msgspec.Raw


class _Model(msgspec.Struct, gc=False):
    model: str = ""


_decode: Final = msgspec.json.Decoder(Line).decode
_decode_model: Final = msgspec.json.Decoder(_Model).decode


def read_line(data: bytes) -> Line:
    """Read a line again that was validated before."""
    return _decode(data)


def model_of(body: bytes) -> str:
    """The model that a body which was validated asks for."""
    return _decode_model(body).model


def split(
    pieces: Iterable[Content], longest: int, *, number: int = 1, offset: int = 0, purpose: Purpose = Purpose.INFERENCE
) -> Iterator[Found]:
    """The lines of a stream whose first byte is that of line `number` and stands at `offset`.

    Empty lines at the end are not told. Never holds more than a piece and a line of at most `longest` bytes.
    """
    empty: list[Found] = []
    opened = (piece.reveal(purpose) for piece in pieces)
    for found in _lines(opened, longest, number, offset):
        if found.data is not None and not found.data.strip(b" \t"):
            empty.append(found)
            continue
        yield from empty
        empty.clear()
        yield found


def _lines(pieces: Iterable[bytes], longest: int, number: int, offset: int) -> Iterator[Found]:
    start = at = offset  # of the line; of the byte after those that were looked at
    rest: list[bytes] = []  # of the line that is not whole yet
    held = 0
    for data in pieces:
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            length = held + end - begin
            whole = None if length > longest + 1 else b"".join([*rest, data[begin:end]])
            at += end + 1 - begin
            yield _found(number, start, at, whole, longest)
            number, start, begin, held = number + 1, at, end + 1, 0
            rest.clear()
        held += len(data) - begin
        at += len(data) - begin
        if held <= longest + 1:
            rest.append(data[begin:])
        else:
            rest.clear()
    if at > start:
        yield _found(number, start, at, None if held > longest + 1 else b"".join(rest), longest)


def _found(number: int, start: int, stop: int, whole: bytes | None, longest: int) -> Found:
    if whole is not None:
        whole = whole.removesuffix(b"\r")
        if start == 0:
            whole = whole.removeprefix(_BOM)
        if len(whole) > longest:
            whole = None
    return Found(number, start, stop, whole)
