"""The shape of a chat request without its content: the sketch of a failure, and the estimate of its tokens.

Holds: `sketch_of`, `estimate`. Leaves out: what becomes of them (usage, http.limits). Everything here is a count, a
size or a member of a closed list (DECISIONS 19); it works on any JSON, also on a body that was refused.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from keepless.gateway.chat_params import PARAMETERS
from keepless.gateway.switches import BODY
from keepless.usage.record import Flag, Phase, Sketch, roles_from

__all__ = ["CHARACTERS_A_TOKEN", "MOST", "TOKENS_A_MEDIUM", "TOKENS_A_MESSAGE", "estimate", "sketch_of"]

_FLAGS: Final = {
    "tools": Flag.TOOLS,
    "functions": Flag.TOOLS,
    "tool_choice": Flag.TOOL_CHOICE,
    "logprobs": Flag.LOGPROBS,
    "n": Flag.SEVERAL,
    "seed": Flag.SEED,
    "stop": Flag.STOP,
    "reasoning_effort": Flag.REASONING,
    "reasoning_format": Flag.REASONING,
    **{member.path[0]: Flag.PRIVACY_SWITCH for member in BODY},
}
_PARTS: Final = {"image_url": Flag.IMAGES, "input_audio": Flag.AUDIO, "file": Flag.FILES}
_FORMATS: Final = {"json_object": Flag.JSON_OBJECT, "json_schema": Flag.JSON_SCHEMA}
MOST: Final = 2**31
CHARACTERS_A_TOKEN: Final = 4
TOKENS_A_MESSAGE: Final = 4
TOKENS_A_MEDIUM: Final = 800  # an image, a recording: unknowable, so a guess

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
    """The sketch of a request; `body` None = it could not even be read. `switched`: privacy switches were sent."""
    flags = Flag.PRIVACY_SWITCH if switched else Flag(0)
    messages: list[Mapping[str, Any]] = []
    tools = 0
    if body is not None:
        flags |= _flags(body)
        found = body.get("messages")
        messages = [item for item in found if type(item) is dict] if type(found) is list else []
        tools = len(body["tools"]) if type(body.get("tools")) is list else 0
        for message in messages:
            flags |= _flags_of_parts(message)
    return Sketch(
        phase=phase,
        flags=flags,
        roles=roles_from(str(message.get("role")) for message in messages),
        messages=len(messages),
        tools=tools,
        body_bytes=body_bytes,
        largest_message_bytes=max((len(_encode(message)) for message in messages), default=0),
        max_tokens=min(max_tokens or 0, MOST),
        upstream_status=upstream_status,
        answered_bytes=answered_bytes,
    )


def estimate(body: Mapping[str, Any], max_tokens: int | None, choices: int) -> int:
    """About how many tokens a checked request can cost: its texts, and as much answer as it asked for."""
    characters = media = 0
    messages = body["messages"]
    for message in messages:
        content = message.get("content")
        if type(content) is str:
            characters += len(content)
        elif type(content) is list:
            texts = [part.get("text") for part in content]
            characters += sum(len(text) for text in texts if type(text) is str)
            media += sum(text is None for text in texts)
    prompt = characters // CHARACTERS_A_TOKEN + len(messages) * TOKENS_A_MESSAGE + media * TOKENS_A_MEDIUM
    return prompt + (max_tokens or 0) * choices


def _flags(body: Mapping[str, Any]) -> Flag:
    flags = Flag(0)
    for name, value in body.items():
        if value is not None and name in _FLAGS and not (name == "n" and value == 1):
            flags |= _FLAGS[name]
        elif name not in PARAMETERS:
            flags |= Flag.EXTRA_PARAMETERS
    if body.get("stream") is True:
        flags |= Flag.STREAM
    options, wanted = body.get("stream_options"), body.get("response_format")
    if type(options) is dict and options.get("include_usage") is True:
        flags |= Flag.INCLUDE_USAGE
    if type(wanted) is dict and type(wanted.get("type")) is str:
        flags |= _FORMATS.get(wanted["type"], Flag(0))
    return flags


def _flags_of_parts(message: Mapping[str, Any]) -> Flag:
    flags = Flag.SYSTEM if message.get("role") in ("system", "developer") else Flag(0)
    content = message.get("content")
    if type(content) is list:
        for part in content:
            kind = part.get("type") if type(part) is dict else None
            flags |= _PARTS.get(kind, Flag(0)) if type(kind) is str else Flag(0)
    return flags
