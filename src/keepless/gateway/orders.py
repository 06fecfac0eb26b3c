"""What the bodies and lists of batches and of fine-tunings have in common.

Holds: `whole_body`, `repeat_key_of` and `json_answer` (the HTTP side), `known`, `text_of`, `metadata_of`, `limit_of`,
`pairs_of` (checks that name a parameter of ours and echo nothing), `invalid`. Leaves out: what each of them has of its
own (batch_order, tuning_order), bodies of inference (json_body, rules).
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keepless.content import Content
from keepless.errors import Code, Problem

__all__ = [
    "invalid",
    "json_answer",
    "known",
    "limit_of",
    "metadata_of",
    "pairs_of",
    "repeat_key_of",
    "text_of",
    "whole_body",
]

_BODY_BYTES: Final = 64 * 1024
_PAIRS, _KEY, _VALUE = 16, 64, 512  # of metadata
_DEFAULT, _MOST = 20, 100  # of a page
_repeat_key: Final = re.compile(rb"[\x21-\x7e]{1,255}\Z").match
_limit: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII).fullmatch
_encode: Final = msgspec.json.Encoder().encode


async def whole_body(request: Request) -> bytes:
    """A body of at most 64 KiB. Raises `Problem` 413."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY_BYTES:
            raise Problem(413, Code.REQUEST_TOO_LARGE, f"The body is larger than {_BODY_BYTES} bytes.")
        parts.append(part)
    return b"".join(parts)


def repeat_key_of(request: Request) -> bytes | None:
    """What tells a repeated creation from a new one (`Idempotency-Key`). Raises `Problem` 400."""
    sent = request.headers.get("idempotency-key")
    if sent is None:
        return None
    key = sent.encode("latin-1", "replace")
    if not _repeat_key(key):
        raise invalid("idempotency-key", "it must be 1 to 255 printable ASCII letters")
    return key


def json_answer(value: object) -> Response:
    """An answer of 200."""
    return Response(_encode(value), media_type="application/json")


def known(body: Mapping[str, Any], names: frozenset[str]) -> None:
    """Raises `Problem` 400 for a member that is none of these."""
    if not body.keys() <= names:
        told = ", ".join(sorted(names))
        raise Problem(400, Code.UNKNOWN_PARAMETER, f"There is a parameter that is not known here. Known: {told}.")


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A text that must be there. Raises `Problem` 400."""
    value = body.get(name)
    if value is None:
        raise Problem(400, Code.MISSING_PARAMETER, f"Missing required parameter: {name}.", param=name)
    if type(value) is not str:
        raise Problem(400, Code.INVALID_TYPE, f"Invalid type for {name}: expected a text.", param=name)
    return value


def metadata_of(value: object) -> Content | None:
    """OpenAI's metadata, sealed as JSON; None when there is none. Raises `Problem` 400."""
    if value is None or value == {}:
        return None
    if type(value) is not dict or len(value) > _PAIRS:
        raise invalid("metadata", f"at most {_PAIRS} pairs of texts")
    for key, text in value.items():
        if type(text) is not str or len(key) > _KEY or len(text) > _VALUE:
            raise invalid("metadata", f"keys are texts of at most {_KEY} letters, values of at most {_VALUE}")
    return Content(_encode(value))


def pairs_of(query: bytes, most: int) -> list[tuple[str, str]]:
    """A query string, taken apart: at most `most` fields. Raises `Problem` 400."""
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most)
    except (ValueError, UnicodeDecodeError):
        raise Problem(400, Code.INVALID_VALUE, "The query string is not valid.") from None


def limit_of(text: str | None) -> int:
    """How long a page is to be; 20 unless it says so. Raises `Problem` 400."""
    if text is None:
        return _DEFAULT
    if not _limit(text) or int(text) > _MOST:
        raise invalid("limit", f"a whole number from 1 to {_MOST}")
    return int(text)


def invalid(name: str, says: str) -> Problem:
    """A parameter whose value is not one of those that are allowed."""
    return Problem(400, Code.INVALID_VALUE, f"Invalid value for {name}: {says}.", param=name)
