"""The shape of a request of /responses without its content: see shape, which does the same for chat.

Holds: `sketch_of`, `estimate`. Leaves out: what becomes of them (usage, http.limits).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from keepless.gateway.response_params import PARAMETERS, ResponseRequest
from keepless.gateway.shape import CHARACTERS_A_TOKEN, MOST, TOKENS_A_MEDIUM, TOKENS_A_MESSAGE
from keepless.gateway.switches import BODY
from keepless.usage.record import Flag, Phase, Sketch, roles_from

__all__ = ["estimate", "sketch_of"]

_FLAGS: Final = {
    "tools": Flag.TOOLS,
    "tool_choice": Flag.TOOL_CHOICE,
    "top_logprobs": Flag.LOGPROBS,
    "reasoning": Flag.REASONING,
    "instructions": Flag.SYSTEM,
    **{member.path[0]: Flag.PRIVACY_SWITCH for member in BODY},
}
_PARTS: Final = {"input_image": Flag.IMAGES, "input_audio": Flag.AUDIO, "input_file": Flag.FILES}
_FORMATS: Final = {"json_object": Flag.JSON_OBJECT, "json_schema": Flag.JSON_SCHEMA}
_SPOKEN_BY: Final = {"function_call": "assistant", "reasoning": "assistant", "function_call_output": "tool"}

_encode: Final = msgspec.json.Encoder().encode


def sketch_of(
    body: Mapping[str, Any] | None,
    phase: Phase,
    *,
    body_bytes: int,
    max_tokens: int | None = None,
    upstream_status: int = 0,
    answered_bytes: int = 0,
    switched: bool = False,
) -> Sketch:
    """The sketch of a request; works on any JSON. `body` None = it could not even be read."""
    flags = Flag.PRIVACY_SWITCH if switched else Flag(0)
    body = {} if body is None else body
    items = list(_items(body))
    tools = body.get("tools")
    flags |= _flags(body)
    for item in items:
        flags |= _flags_of_parts(item)
    return Sketch(
        phase=phase,
        flags=flags,
        roles=roles_from(_role(item) for item in items),
        messages=len(items),
        tools=len(tools) if type(tools) is list else 0,
        body_bytes=body_bytes,
        largest_message_bytes=max((len(_encode(item)) for item in items), default=0),
        max_tokens=min(max_tokens or 0, MOST),
        upstream_status=upstream_status,
        answered_bytes=answered_bytes,
    )


def estimate(checked: ResponseRequest) -> int:
    """About how many tokens a checked request can cost: its texts, and as much answer as it asked for."""
    characters = len(checked.body.get("instructions", ""))
    media = 0
    items = list(_items(checked.body))
    for item in items:
        for text in (item.get(name) for name in ("content", "output", "arguments")):
            if type(text) is str:
                characters += len(text)
            elif type(text) is list:
                said = [part.get("text", part.get("refusal")) for part in text if type(part) is dict]
                characters += sum(len(part) for part in said if type(part) is str)
                media += sum(part is None for part in said)
    prompt = characters // CHARACTERS_A_TOKEN + len(items) * TOKENS_A_MESSAGE + media * TOKENS_A_MEDIUM
    return prompt + (checked.max_tokens or 0)


def _items(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    given = body.get("input")
    if type(given) is str:
        yield {"role": "user", "content": given}
    elif type(given) is list:
        yield from (item for item in given if type(item) is dict)


def _role(item: Mapping[str, Any]) -> str:
    kind = item.get("type")
    return _SPOKEN_BY.get(kind) or str(item.get("role")) if type(kind) is str else str(item.get("role"))


def _flags(body: Mapping[str, Any]) -> Flag:
    flags = Flag(0)
    for name, value in body.items():
        if value is not None and name in _FLAGS:
            flags |= _FLAGS[name]
        elif name not in PARAMETERS:
            flags |= Flag.EXTRA_PARAMETERS
    if body.get("stream") is True:
        flags |= Flag.STREAM
    text = body.get("text")
    form = text.get("format") if type(text) is dict else None
    if type(form) is dict and type(form.get("type")) is str:
        flags |= _FORMATS.get(form["type"], Flag(0))
    return flags


def _flags_of_parts(item: Mapping[str, Any]) -> Flag:
    flags = Flag.SYSTEM if item.get("role") in ("system", "developer") else Flag(0)
    content = item.get("content")
    if type(content) is list:
        for part in content:
            kind = part.get("type") if type(part) is dict else None
            flags |= _PARTS.get(kind, Flag(0)) if type(kind) is str else Flag(0)
    return flags
