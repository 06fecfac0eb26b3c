"""What is read of a line of a batch's input that was validated before.

Holds: `Line`, `read_line` and `model_of`. Leaves out: finding lines (lines), judging them (validate). Not compiled
(msgspec's structs).
"""

from typing import Final

import msgspec

__all__ = ["Line", "model_of", "read_line"]


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
