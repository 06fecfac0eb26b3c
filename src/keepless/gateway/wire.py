"""The wire formats of answers: header lines and the few members of an engine's answer that we read.

Holds: `head_lines`, `read_answer`, `tokens_of`. Leaves out: streams (stream), errors (http.problems). An answer is read
for its usage and for being one at all; its bytes go to the client as they came.
"""

from typing import Any, Final

import msgspec

from keepless.gateway.chat_shapes import Answer, Choices, UsageOnly
from keepless.inference.asking import NO_TOKENS, Tokens

__all__ = ["JSON", "SSE", "clamped", "head_lines", "is_object", "read_answer", "tokens_of"]

JSON: Final = b"application/json"
SSE: Final = b"text/event-stream; charset=utf-8"
_MOST: Final = 2**40  # tokens; what an upstream says is not believed beyond this


_answer: Final = msgspec.json.Decoder(Answer).decode
_choices: Final = msgspec.json.Decoder(Choices).decode
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def head_lines(request_id: str, retention: bytes, content_type: bytes, more: bytes = b"") -> bytes:
    """The header lines of an answer, each with its CRLF."""
    return b"".join(
        (
            b"content-type: ",
            content_type,
            b"\r\nx-request-id: ",
            request_id.encode("ascii"),
            b"\r\nx-keepless-retention: ",
            retention,
            b"\r\ncache-control: no-store\r\n",
            more,
        )
    )


def read_answer(body: bytes) -> Tokens | None:
    """The usage of a complete answer (zeros when it says none); None when it is no answer."""
    try:
        found = _answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # A usage in a shape of its own does not make an answer useless.
        return NO_TOKENS if _readable(_choices, body) else None
    return NO_TOKENS if found.usage is None else tokens_of(found.usage)


def is_object(body: bytes) -> bool:
    """Whether bytes are one JSON object."""
    return _readable(_object, body)


def tokens_of(usage: UsageOnly) -> Tokens:
    """Counts, never negative and never absurd."""
    details = usage.prompt_tokens_details
    return Tokens(
        clamped(usage.prompt_tokens),
        clamped(usage.completion_tokens),
        clamped(details.cached_tokens or 0) if details is not None else 0,
    )


def clamped(count: int) -> int:
    """A count of tokens as an upstream gives it, never negative and never absurd."""
    return count if 0 <= count <= _MOST else max(0, min(count, _MOST))


def _readable(decode: Any, body: bytes) -> bool:
    try:
        decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
