"""What becomes of a line: a line of the output or of the error file, and its record in the work of the batch.

Holds: `answered`, `unanswered` (lines of the result files), `Undone`, `Record` with `seal` and `unseal`. Leaves out:
where they are written (recorder, finish).

A record is the number of its line, whether it belongs into the output file, and the very bytes that will stand there.
"""

import struct
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from keepless.content import Content, Purpose
from keepless.ids import Id, Prefix, mint

__all__ = ["Record", "Undone", "answered", "seal", "unanswered", "unseal"]

_HEAD: Final = struct.Struct(">I?")
_encode: Final = msgspec.json.Encoder().encode


class Undone(Enum):
    """Why a line was not run; the code and the words of OpenAI."""

    EXPIRED = (b"batch_expired", b"This request could not be executed before the completion window expired.")
    CANCELLED = (b"batch_cancelled", b"This request was not executed: the batch was cancelled.")


class Record(NamedTuple):
    """What is recorded of one line."""

    number: int
    succeeded: bool
    line: bytes


def answered(custom_id: str, request_id: Id, status: int, body: Content) -> bytes:
    """The line of a request that was answered, well or not."""
    told = _on_one_line(body.reveal(Purpose.CUSTOMER))
    letters = request_id.removeprefix(Prefix.REQUEST).encode("ascii")
    return (
        b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":%d,"request_id":"%b","body":%b},"error":null}'
        % (letters, _encode(custom_id), status, request_id.encode("ascii"), told)
    )


def unanswered(custom_id: str, why: Undone) -> bytes:
    """The line of a request that was not run."""
    letters = mint(Prefix.REQUEST).removeprefix(Prefix.REQUEST).encode("ascii")
    code, message = why.value
    return b'{"id":"batch_req_%b","custom_id":%b,"response":null,"error":{"code":"%b","message":"%b"}}' % (
        letters,
        _encode(custom_id),
        code,
        message,
    )


def seal(record: Record) -> Content:
    """A record on its way into the vault."""
    return Content(_HEAD.pack(record.number, record.succeeded) + record.line)


def unseal(content: Content) -> Record:
    """A record as it comes out of the vault."""
    data = content.reveal(Purpose.CUSTOMER)
    number, succeeded = _HEAD.unpack_from(data)
    return Record(number, succeeded, data[_HEAD.size :])


def _on_one_line(body: bytes) -> bytes:
    """A body within a line: JSON without line ends, and text (some transcriptions are) as a JSON string."""
    if b"\n" not in body and b"\r" not in body and body[:1] in (b"{", b"["):
        return body
    try:
        return msgspec.json.format(body, indent=-1)
    except msgspec.DecodeError:
        return _encode(body.decode("utf-8", "replace"))
