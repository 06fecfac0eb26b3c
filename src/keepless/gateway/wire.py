"""The wire formats of answers: header lines and the few members of an engine's answer that we read.

Holds: `head_lines`, `read_answer`, `refusal_of`, `tokens_of`. Leaves out: streams (stream), errors (http.problems). An
answer is read for its usage and for being one at all; its bytes go to the client as they came.
"""

from typing import Any, Final

import msgspec

from keepless.gateway.chat_shapes import Answer, Choices, UsageOnly
from keepless.http.problems import rejected_json
from keepless.inference.asking import NO_TOKENS, Tokens

__all__ = ["JSON", "SSE", "clamped", "head_lines", "read_answer", "refusal_of", "tokens_of"]

JSON: Final = b"application/json"
SSE: Final = b"text/event-stream; charset=utf-8"
_MOST: Final = 2**40  # tokens; what an upstream says is not believed beyond this


_answer: Final = msgspec.json.Decoder(Answer).decode
_choices: Final = msgspec.json.Decoder(Choices).decode
_object: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode


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


def refusal_of(body: bytes) -> bytes | None:
    """An engine's refusal as OpenAI's clients read it: as it came, or what it says in that shape. None: it is no JSON.

    FastAPI's engines say `detail`, Ollama says a text as `error`, older ones put `message` at the top.
    """
    try:
        found = _object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = found.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return body
    for said in (error, found.get("message"), found.get("detail")):
        if said:
            return rejected_json(said if isinstance(said, str) else _encode(said).decode())
    return None


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
