"""What a bridge reads of chat engines' answers, and what is read of native responses, as msgspec reads them.

Holds: `Chunk` (an answer or a chunk) with `Choice`, `Delta`, `Call` and `ChunkUsage`; `NativeEvent`, `NativeResponse`,
`NativeOutput`, `NativeUsage`; `InputTokens`. All other members are dropped. Leaves out: reading. Not compiled, as
chat_shapes.
"""

from typing import Any, Final

import msgspec

__all__ = [
    "Call",
    "Choice",
    "Chunk",
    "ChunkUsage",
    "Delta",
    "InputTokens",
    "NativeEvent",
    "NativeOutput",
    "NativeResponse",
    "NativeUsage",
]

_NULL: Final = msgspec.Raw(b"null")


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, gc=False):
    """A call of a function, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class Delta(msgspec.Struct, gc=False):
    """A message, or a piece of one. Reasoning has two names among vendors."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Any] | None = None


class Choice(msgspec.Struct, gc=False):
    """A choice of an answer (`message`) or of a chunk (`delta`)."""

    message: Delta | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class ChunkUsage(msgspec.Struct, gc=False):
    """The `usage` of an answer or a chunk."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None
    # Groq's, in seconds; whatever else an engine may say there is none of our business
    queue_time: Any = None
    prompt_time: Any = None
    completion_time: Any = None
    total_time: Any = None


class _Groq(msgspec.Struct, gc=False):
    usage: ChunkUsage | None = None


class Chunk(msgspec.Struct, gc=False):
    """An answer, or a chunk of a stream."""

    choices: list[Choice] | None = None
    usage: ChunkUsage | None = None
    x_groq: _Groq | None = None
    error: msgspec.Raw = _NULL

    @property
    def failed(self) -> bool:
        """Whether it is an error event."""
        return bytes(self.error) != b"null"


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class NativeUsage(msgspec.Struct, gc=False):
    """The `usage` of a response."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Details | None = None


class _Used(msgspec.Struct, gc=False):
    usage: NativeUsage | None = None


class NativeEvent(msgspec.Struct, gc=False):
    """What matters of an event."""

    type: str | None = None
    sequence_number: int | None = None
    response: _Used | None = None
    error: msgspec.Raw = _NULL


class NativeResponse(msgspec.Struct, gc=False):
    """A whole response."""

    output: list[msgspec.Raw]
    usage: NativeUsage | None = None
    status: Any = None


class NativeOutput(msgspec.Struct, gc=False):
    """A whole response whose usage has a shape of its own."""

    output: list[msgspec.Raw]
    status: Any = None


class InputTokens(msgspec.Struct, gc=False):
    """How many tokens an input is."""

    input_tokens: int
