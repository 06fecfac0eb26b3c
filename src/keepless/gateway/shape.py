"""The shape of a conversation without its content: the sketch of a failure, and the estimate of its tokens.

Holds: `CHAT` and `RESPONSES`, the `Shape` of requests of either endpoint. Leaves out: requests of one input
(input_shape), what becomes of both (usage, http.limits). Everything here is a count, a size or a member of a closed
list (DECISIONS 19); it works on any JSON, also on a body that was refused.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from keepless.gateway import chat_params, response_params
from keepless.gateway.rules import Parameter
from keepless.gateway.switches import BODY
from keepless.usage.record import Flag, Phase, Sketch, roles_from

__all__ = ["CHAT", "RESPONSES", "Shape"]

Json = Mapping[str, Any]
_NONE: Final = Flag(0)
_FORMATS: Final = {"json_object": Flag.JSON_OBJECT, "json_schema": Flag.JSON_SCHEMA}
_SPOKEN_BY: Final = {"function_call": "assistant", "reasoning": "assistant", "function_call_output": "tool"}
_SAID: Final = ("content", "output", "arguments")  # members of a message that may be texts or parts
_MOST: Final = 2**31
_CHARACTERS_A_TOKEN: Final = 4
_TOKENS_A_MESSAGE: Final = 4
_TOKENS_A_MEDIUM: Final = 800  # an image, a recording: unknowable, so a guess

_encode: Final = msgspec.json.Encoder().encode


class Shape:
    """Of one endpoint's requests. `flags`: what a parameter's presence means; `parts`: what a part of a message does.

    `conversation` gives the messages of a body, `format` the `type` that its answer is to have.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        flags: Mapping[str, Flag],
        parts: Mapping[str, Flag],
        *,
        conversation: Callable[[Json], Iterator[Json]],
        format: Callable[[Json], Any],
    ) -> None:
        self._parameters: Final = parameters
        self._flags: Final = {**flags, **{member.path[0]: Flag.PRIVACY_SWITCH for member in BODY}}
        self._parts: Final = parts
        self._conversation: Final = conversation
        self._format: Final = format

    def sketch(
        self,
        body: Json | None,
        phase: Phase,
        *,
        body_bytes: int,
        max_tokens: int | None = None,
        upstream_status: int = 0,
        answered_bytes: int = 0,
        switched: bool = False,
    ) -> Sketch:
        """The sketch of a request; `body` None = it could not even be read. `switched`: privacy switches were sent."""
        body = {} if body is None else body
        messages = list(self._conversation(body))
        tools = body.get("tools")
        flags = Flag.PRIVACY_SWITCH if switched else _NONE
        flags |= self._flags_of(body)
        for message in messages:
            flags |= self._flags_of_parts(message)
        return Sketch(
            phase=phase,
            flags=flags,
            roles=roles_from(_role(message) for message in messages),
            messages=len(messages),
            tools=len(tools) if type(tools) is list else 0,
            body_bytes=body_bytes,
            largest_message_bytes=max((len(_encode(message)) for message in messages), default=0),
            max_tokens=min(max_tokens or 0, _MOST),
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
        )

    def estimate(self, body: Json, max_tokens: int | None, choices: int = 1) -> int:
        """About how many tokens a checked request can cost: its texts, and as much answer as it asked for."""
        characters = len(body.get("instructions", ""))
        count = media = 0
        for message in self._conversation(body):
            count += 1
            for name in _SAID:
                said = message.get(name)
                if type(said) is str:
                    characters += len(said)
                elif type(said) is list:
                    texts = [part.get("text", part.get("refusal")) for part in said if type(part) is dict]
                    characters += sum(len(text) for text in texts if type(text) is str)
                    media += sum(text is None for text in texts)
        prompt = characters // _CHARACTERS_A_TOKEN + count * _TOKENS_A_MESSAGE + media * _TOKENS_A_MEDIUM
        return prompt + (max_tokens or 0) * choices

    def _flags_of(self, body: Json) -> Flag:
        flags = _NONE
        for name, value in body.items():
            if value is not None and name in self._flags and not (name == "n" and value == 1):
                flags |= self._flags[name]
            elif name not in self._parameters:
                flags |= Flag.EXTRA_PARAMETERS
        if body.get("stream") is True:
            flags |= Flag.STREAM
        if _member(body, "stream_options", "include_usage") is True:
            flags |= Flag.INCLUDE_USAGE
        wanted = self._format(body)
        return flags | _FORMATS.get(wanted, _NONE) if type(wanted) is str else flags

    def _flags_of_parts(self, message: Json) -> Flag:
        flags = Flag.SYSTEM if message.get("role") in ("system", "developer") else _NONE
        content = message.get("content")
        if type(content) is list:
            for part in content:
                kind = part.get("type") if type(part) is dict else None
                flags |= self._parts.get(kind, _NONE) if type(kind) is str else _NONE
        return flags


def _member(value: Any, *path: str) -> Any:
    """What stands at the end of a path through objects; None where there is none."""
    for name in path:
        value = value.get(name) if type(value) is dict else None
    return value


def _messages(body: Json) -> Iterator[Json]:
    found = body.get("messages")
    return iter([item for item in found if type(item) is dict] if type(found) is list else [])


def _items(body: Json) -> Iterator[Json]:
    given = body.get("input")
    if type(given) is str:
        return iter([{"role": "user", "content": given}])
    return iter([item for item in given if type(item) is dict] if type(given) is list else [])


def _role(message: Json) -> str:
    kind = message.get("type")
    return (_SPOKEN_BY.get(kind) if type(kind) is str else None) or str(message.get("role"))


CHAT: Final = Shape(
    chat_params.PARAMETERS,
    {
        "tools": Flag.TOOLS,
        "functions": Flag.TOOLS,
        "tool_choice": Flag.TOOL_CHOICE,
        "logprobs": Flag.LOGPROBS,
        "n": Flag.SEVERAL,
        "seed": Flag.SEED,
        "stop": Flag.STOP,
        "reasoning_effort": Flag.REASONING,
        "reasoning_format": Flag.REASONING,
    },
    {"image_url": Flag.IMAGES, "input_audio": Flag.AUDIO, "file": Flag.FILES},
    conversation=_messages,
    format=lambda body: _member(body, "response_format", "type"),
)
RESPONSES: Final = Shape(
    response_params.PARAMETERS,
    {
        "tools": Flag.TOOLS,
        "tool_choice": Flag.TOOL_CHOICE,
        "top_logprobs": Flag.LOGPROBS,
        "reasoning": Flag.REASONING,
        "instructions": Flag.SYSTEM,
    },
    {"input_image": Flag.IMAGES, "input_audio": Flag.AUDIO, "input_file": Flag.FILES},
    conversation=_items,
    format=lambda body: _member(body, "text", "format", "type"),
)
