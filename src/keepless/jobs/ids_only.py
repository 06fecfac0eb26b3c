"""What may enter the job store: ids of ours, whole numbers, enums of our own words. Everything else is refused.

Holds: `IdsOnly`, the engine's serializer. An exception becomes one of two fixed words: neither its text nor its class
is stored, for both can come from a library that quotes what it was given.
"""

import re
from typing import Any, Final

import msgspec
from dbos import Serializer

from keepless.jobs.port import JobFailedError

__all__ = ["IdsOnly", "NotAnIdError"]

_ID: Final = re.compile(r"[a-z]{2,6}[_-][a-z2-7]{24}(?:[.][a-z0-9.]{1,40})?\Z")
_WORD: Final = frozenset({"args", "kwargs"})  # the engine's own
_FAILED: Final = b'{"failed":true}'
_DEPTH: Final = 4


class NotAnIdError(TypeError):
    """Something that is not an id or a whole number was about to enter the job store."""


class IdsOnly(Serializer):
    """See the module."""

    def name(self) -> str:
        """The engine stores it beside each value."""
        return "keepless_ids_only"

    def serialize(self, data: Any) -> str:
        """Raises `NotAnIdError`, with a fixed text."""
        if isinstance(data, BaseException):
            return _FAILED.decode("ascii")
        if not _allowed(data, _DEPTH):
            raise NotAnIdError("only ids and whole numbers may enter the job store")
        return msgspec.json.encode(data, enc_hook=str).decode("ascii")

    def deserialize(self, serialized_data: str) -> Any:
        """Read back what `serialize` wrote."""
        if serialized_data.encode("ascii") == _FAILED:
            return JobFailedError("a job failed")
        return msgspec.json.decode(serialized_data)


def _allowed(value: Any, depth: int) -> bool:
    if value is None or type(value) in (bool, int):
        return True
    if isinstance(value, str):
        return _ID.match(value) is not None
    if depth and isinstance(value, list | tuple):
        return all(_allowed(item, depth - 1) for item in value)
    if depth and isinstance(value, dict):
        return all(key in _WORD and _allowed(item, depth - 1) for key, item in value.items())
    return False
