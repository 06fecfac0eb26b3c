"""The captured object: one request and what was answered so far, in one container (format `keepless-capture/1`).

Holds: `pack` and `unpack`. Leaves out: encryption (vault), whether anything may be captured (capture).

    keepless-capture/1 LF
    <header: canonical JSON, content-free facts, with request_bytes and answer_bytes> LF
    <request_bytes bytes: the request as received> <answer_bytes bytes: the answer as far as it came>

Canonical JSON has no line feed, so the header ends at the second one. The two lengths account for every byte that
follows.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from keepless.content import Content, Purpose
from keepless.errors import KeeplessError
from keepless.ids import Id
from keepless.receipts.statement import canonical

__all__ = ["ContainerError", "Unpacked", "pack", "unpack"]

_MAGIC: Final = b"keepless-capture/1\n"
HeaderValue = Id | StrEnum | int | bool | None


class ContainerError(KeeplessError):
    """The bytes are not a captured object."""


class Unpacked(msgspec.Struct, frozen=True):
    """A captured object taken apart."""

    header: dict[str, str | int | bool | None]
    request: Content
    answer: Content


def pack(facts: Mapping[str, HeaderValue], request: Content, answer: Content | None) -> Content:
    """One container. Facts are ids, enum members and whole numbers; raises TypeError for anything else."""
    if not all(isinstance(value, Id | StrEnum | int | None) for value in facts.values()):
        raise TypeError("a capture's header takes ids, enum members and whole numbers")
    body = request.reveal(Purpose.SEAL)
    so_far = b"" if answer is None else answer.reveal(Purpose.SEAL)
    header = {name: str(value) if isinstance(value, str) else value for name, value in facts.items()}
    sizes = {"request_bytes": len(body), "answer_bytes": len(so_far)}
    return Content(b"".join((_MAGIC, canonical(header | sizes), b"\n", body, so_far)))


def unpack(data: bytes) -> Unpacked:
    """Take a container apart. Raises `ContainerError`."""
    end = data.find(b"\n", len(_MAGIC))
    if not data.startswith(_MAGIC) or end < 0:
        raise ContainerError("not a captured object")
    try:
        header = msgspec.json.decode(data[len(_MAGIC) : end], type=dict[str, str | int | bool | None])
    except msgspec.MsgspecError:
        raise ContainerError("the header of a captured object is not readable") from None
    request_bytes, answer_bytes = header.get("request_bytes"), header.get("answer_bytes")
    if type(request_bytes) is not int or type(answer_bytes) is not int or min(request_bytes, answer_bytes) < 0:
        raise ContainerError("the header of a captured object has no lengths")
    middle = end + 1 + request_bytes
    if middle + answer_bytes != len(data):
        raise ContainerError("a captured object is cut short or has too much")
    return Unpacked(header, Content(data[end + 1 : middle]), Content(data[middle:]))
