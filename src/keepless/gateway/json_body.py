"""The body of a request as JSON, strictly (RFC 8259 as RFC 7493 narrows it).

Holds: `decode_object`, which accepts one object in UTF-8 and nothing doubtful: no byte order mark, NaN, number out of
range, lone surrogate, duplicate name, trailing bytes, nesting beyond a limit or more than `MOST_VALUES` values. Leaves
out: what the members mean.

Duplicate names are the dangerous ones: an engine that takes the first and a policy that takes the last would see two
requests. Decoding and encoding again gives back a body without its spaces byte for byte if and only if no name came
twice, which costs microseconds; anything else (escapes, long numbers) takes the exact and slower way.

No error here says what was read: the parsers' own texts quote the body.
"""

import json
import re
from typing import Any, Final

import msgspec

from keepless.errors import Code, Problem

__all__ = ["MOST_VALUES", "decode_object"]

MOST_VALUES: Final = 100_000  # in one body: millions of empty objects would cost seconds and a gigabyte
_SHORT: Final = 1024  # bytes

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_compact: Final = msgspec.json.format
_step: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{,]', re.DOTALL).finditer  # a text, or where a value begins


class _DuplicateNameError(Exception):
    """A name came twice in one object."""


def decode_object(body: bytes, depth: int) -> tuple[dict[str, Any], bytes]:
    """The object that `body` is, nested at most `depth` deep, and our own encoding of it.

    Raises `Problem` (400) otherwise.
    """
    if not body:
        raise _problem("The request body is empty; a JSON object is expected.")
    if len(body) > MOST_VALUES and _holds_too_many(body):  # each of them takes a byte at least
        raise _problem(f"The request body holds more than {MOST_VALUES} values.")
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _problem("The request body is not valid JSON in UTF-8.") from None
    except RecursionError:
        raise _problem(f"The request body is nested deeper than {depth} levels.") from None
    if type(value) is not dict:
        raise _problem("The request body must be a JSON object.")
    if _opens_more_than(body, depth) and _deeper_than(value, depth):
        raise _problem(f"The request body is nested deeper than {depth} levels.")
    encoded = _encode(value)
    if encoded != body and encoded != _compact(body, indent=-1):
        _refuse_duplicates(body)
    return value, encoded


def _holds_too_many(body: bytes) -> bool:
    """Whether more values than allowed begin outside of texts; stops counting there."""
    if body.count(b",") + body.count(b"{") + body.count(b"[") <= MOST_VALUES:
        return False
    found = 0
    for step in _step(body):
        if body[step.start()] != 34:
            found += 1
            if found > MOST_VALUES:
                return True
    return False


def _opens_more_than(body: bytes, most: int) -> bool:
    """Whether there are more brackets than that, in texts too. Finding them skips what lies between, in a long body."""
    if len(body) < _SHORT:
        return body.count(b"{") + body.count(b"[") > most
    for bracket in (b"{", b"["):
        at = body.find(bracket)
        while at >= 0:
            most -= 1
            if most < 0:
                return True
            at = body.find(bracket, at + 1)
    return False


def _refuse_duplicates(body: bytes) -> None:
    try:
        json.loads(body, object_pairs_hook=_unique)
    except _DuplicateNameError:
        raise _problem("The request body has an object with a duplicate name.") from None
    except (ValueError, RecursionError):
        raise _problem("The request body is not valid JSON in UTF-8.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateNameError
    return found


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        below: list[Any] = []
        for item in level:
            members = item.values() if type(item) is dict else item
            below += [member for member in members if type(member) in (dict, list)]
        if not below:
            return False
        level = below
    return True


def _problem(message: str) -> Problem:
    return Problem(400, Code.INVALID_JSON, message)
