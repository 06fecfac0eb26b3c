"""A form with a file (RFC 7578), read as it comes: memory holds one piece and never a file.

Holds: `FormStream`, fed with the body piece by piece, and what it gives back: `Field` (a part begins), pieces of its
data, `FIELD_END`; and `boundary_of` a content type. Leaves out: what the fields mean (each endpoint), where the data
goes.

Strict: the framing that browsers and the official clients write; anything doubtful is refused, never guessed. A file's
name is content: it leaves here as bytes that nothing else looks into.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from keepless.errors import Code, Problem

__all__ = ["FIELD_END", "Field", "FieldEnd", "FormStream", "boundary_of"]

_MOST_FIELDS: Final = 100
_HEAD_LIMIT: Final = 8192
_FORM: Final = re.compile(
    rb"multipart/form-data[ \t]*;[ \t]*boundary="
    rb"(?:\"([A-Za-z0-9'()+_,./:=? -]{1,70})\"|([A-Za-z0-9'+_.-]{1,70}))[ \t]*\Z",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([^\r\n]*)\Z")
_DISPOSITION: Final = re.compile(rb"form-data[ \t]*(;.*)?\Z", re.IGNORECASE | re.DOTALL)
_PARAMETER: Final = re.compile(
    rb"[ \t]*;[ \t]*([a-z]+\*?)=(?:\"((?:[^\"\\\r\n]|\\[\"\\])*)\"|([^\s\";\\]+))", re.IGNORECASE
)
_ESCAPED: Final = re.compile(rb"\\([\"\\])")
_BROWSERS: Final = re.compile(rb"%(22|0D|0A)", re.IGNORECASE)  # what browsers escape in a name, and nothing else
_ENCODINGS: Final = frozenset({b"binary", b"8bit", b"7bit"})


class Field(NamedTuple):
    """A part begins. `file_name`: it was sent as a file, and how it is called."""

    name: str
    file_name: bytes | None


class FieldEnd(Enum):
    """The part is complete."""

    END = auto()


FIELD_END: Final = FieldEnd.END


class _State(Enum):
    PREAMBLE = auto()  # the first delimiter
    AFTER_DELIMITER = auto()
    HEAD = auto()
    DATA = auto()
    END = auto()


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary, None when the body is no form."""
    match = _FORM.match(content_type.strip())
    return (match[1] or match[2]) if match is not None else None


class FormStream:
    """One form being read. Everything that it refuses is a `Problem` (400)."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter: Final = b"\r\n--" + boundary
        self._waiting = bytearray(b"\r\n")  # so that the first delimiter is like every other one
        self._state = _State.PREAMBLE
        self._fields = 0

    def feed(self, data: bytes) -> Iterator[Field | bytes | FieldEnd]:
        """What the next piece of the body brings, in order."""
        self._waiting += data
        while True:
            if self._state is _State.DATA:
                piece, ended = self._piece()
                if piece:
                    yield piece
                if not ended:
                    return
                self._state = _State.AFTER_DELIMITER
                yield FIELD_END
            elif self._state is _State.HEAD:
                field = self._field()
                if field is None:
                    return
                self._state = _State.DATA
                yield field
            elif not self._framing():
                return

    def finish(self) -> None:
        """The body is complete."""
        if self._state is not _State.END:
            raise _bad()

    def _framing(self) -> bool:
        """Read what stands between parts; False when more must come first."""
        waiting = self._waiting
        if self._state is _State.PREAMBLE:
            if not waiting.startswith(self._delimiter[: len(waiting)]):
                raise _bad()
            if len(waiting) < len(self._delimiter):
                return False
            del waiting[: len(self._delimiter)]
            self._state = _State.AFTER_DELIMITER
        elif self._state is _State.AFTER_DELIMITER:
            if len(waiting) < 2:
                return False
            if waiting[:2] == b"\r\n":
                self._state = _State.HEAD
            elif waiting[:2] == b"--":
                self._state = _State.END
                del waiting[:2]
            else:
                raise _bad()
        else:
            if waiting.strip(b" \t\r\n") or len(waiting) > _HEAD_LIMIT:
                raise _bad()
            return False
        return True

    def _field(self) -> Field | None:
        end = self._waiting.find(b"\r\n\r\n", 0, _HEAD_LIMIT)
        if end < 0:
            if len(self._waiting) >= _HEAD_LIMIT:
                raise _bad()
            return None
        head = bytes(self._waiting[2:end])
        del self._waiting[: end + 4]
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise _bad()
        return _read_head(head)

    def _piece(self) -> tuple[bytes, bool]:
        """What is surely data of this part, and whether it ends here."""
        waiting, delimiter = self._waiting, self._delimiter
        at = waiting.find(delimiter)
        if at >= 0:
            piece = bytes(waiting[:at])
            del waiting[: at + len(delimiter)]
            return piece, True
        sure = max(0, len(waiting) - len(delimiter) + 1)
        piece = bytes(memoryview(waiting)[:sure])
        del waiting[:sure]
        return piece, False


def _read_head(head: bytes) -> Field:
    found: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        match = _HEADER.match(line)
        if match is None or match[1].lower() in found:
            raise _bad()
        found[match[1].lower()] = match[2]
    match = _DISPOSITION.match(found.get(b"content-disposition", b""))
    if match is None or found.get(b"content-transfer-encoding", b"binary").strip().lower() not in _ENCODINGS:
        raise _bad()
    parameters = _parameters(match[1] or b"")
    name = parameters.get(b"name", b"")
    if not name or not name.isascii():
        raise _bad()
    return Field(name.decode("ascii"), _file_name(parameters))


def _parameters(text: bytes) -> dict[bytes, bytes]:
    parameters: dict[bytes, bytes] = {}
    at = 0
    while at < len(text.rstrip(b" \t")):
        match = _PARAMETER.match(text, at)
        if match is None or match[1].lower() in parameters:
            raise _bad()
        parameters[match[1].lower()] = _ESCAPED.sub(rb"\1", match[2]) if match[2] is not None else match[3]
        at = match.end()
    return parameters


def _file_name(parameters: dict[bytes, bytes]) -> bytes | None:
    extended = parameters.get(b"filename*")
    if extended is not None:  # RFC 5987
        charset, _, rest = extended.partition(b"'")
        name = unquote_to_bytes(rest.partition(b"'")[2])
        if charset.lower() != b"utf-8":
            raise _bad()
    elif b"filename" in parameters:
        name = _BROWSERS.sub(lambda found: bytes([int(found[1], 16)]), parameters[b"filename"])
    else:
        return None
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad() from None
    return name


def _bad() -> Problem:
    return Problem(400, Code.INVALID_VALUE, "The request body is not a valid multipart form.")
