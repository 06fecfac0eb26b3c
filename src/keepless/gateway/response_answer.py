"""A chat engine's whole answer as a response, and what chunks of streams are read with too.

Holds: `whole` (answer -> response), `decode_chunk`, `usage_of`, `times_of`, `ended`. Leaves out: what answers look like
(response_shapes), streams (response_events).
"""

from typing import Final

import msgspec

from keepless.gateway.response_object import (
    Draft,
    Json,
    Usage,
    function_call,
    message,
    output_text,
    reasoning,
    reasoning_text,
    refusal,
)
from keepless.gateway.response_shapes import Call, Chunk, ChunkUsage
from keepless.gateway.wire import clamped
from keepless.ids import Prefix, mint
from keepless.inference.asking import MalformedError

__all__ = ["decode_chunk", "ended", "times_of", "usage_of", "whole"]

_LONGEST_S: Final = 10**6

_decode: Final = msgspec.json.Decoder(Chunk).decode


def decode_chunk(data: bytes) -> Chunk:
    """An answer or a chunk. Raises `MalformedError`."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedError from None


def usage_of(chunk: Chunk) -> Usage | None:
    """The tokens that an answer or a chunk counts; never negative and never absurd."""
    usage = _usage(chunk)
    if not usage:
        return None
    cached, reasoned = usage.prompt_tokens_details, usage.completion_tokens_details
    counts = (
        usage.prompt_tokens,
        (cached.cached_tokens if cached is not None else 0) or 0,
        usage.completion_tokens,
        (reasoned.reasoning_tokens if reasoned is not None else 0) or 0,
    )
    asked, again, answered, thought = (clamped(count) for count in counts)
    return asked, again, answered, thought


def times_of(chunk: Chunk) -> dict[str, str]:
    """The seconds that an answer or a chunk says it took, as Groq writes them; what it does not say is left out."""
    usage = _usage(chunk)
    if not usage:
        return {}
    found = {
        "completion_time": usage.completion_time,
        "prompt_time": usage.prompt_time,
        "queue_time": usage.queue_time,
        "total_time": usage.total_time,
    }
    return {
        name: f"{time:.9f}" for name, time in found.items() if type(time) in (int, float) and 0 <= time < _LONGEST_S
    }


def _usage(chunk: Chunk) -> ChunkUsage | None:
    return chunk.usage or (chunk.x_groq.usage if chunk.x_groq is not None else None)


def ended(finish: str | None) -> tuple[str, str | None]:
    """The status of a response whose choice ended so, and why it is incomplete."""
    if finish == "length":
        return "incomplete", "max_output_tokens"
    if finish == "content_filter":
        return "incomplete", "content_filter"
    return "completed", None


def whole(draft: Draft, body: bytes, now_s: int) -> Json:
    """The response that a whole answer comes to; fills the draft. Raises `MalformedError`."""
    answer = decode_chunk(body)
    if not answer.choices or answer.choices[0].message is None:
        raise MalformedError
    choice, said = answer.choices[0], answer.choices[0].message
    status, reason = ended(choice.finish_reason)
    thought = said.reasoning or said.reasoning_content
    if thought:
        draft.output.append(reasoning(str(mint(Prefix.REASONING)), "completed", [reasoning_text(thought)]))
    calls = said.tool_calls or []
    parts: list[Json] = []
    if said.content or not (said.refusal or calls):
        logprobs = choice.logprobs.content if choice.logprobs is not None else None
        parts.append(output_text(said.content or "", logprobs or []))
    if said.refusal:
        parts.append(refusal(said.refusal))
    if parts:
        draft.output.append(message(str(mint(Prefix.MESSAGE)), status, parts))
    draft.output += [_call(call, status) for call in calls]
    draft.usage, draft.times = usage_of(answer), times_of(answer)
    return draft.response(status, completed_s=now_s if status == "completed" else None, reason=reason)


def _call(call: Call, status: str) -> Json:
    if call.function is None or not call.function.name or not call.id:
        raise MalformedError
    item_id = str(mint(Prefix.FUNCTION_CALL))
    return function_call(item_id, status, call.id, call.function.name, call.function.arguments or "")
