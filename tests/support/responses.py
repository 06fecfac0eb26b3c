"""Chat engines' chunks for tests of /responses, and what came out of them."""

import json
from typing import Any

import msgspec
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
_events: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def delta(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": members, "finish_reason": None}]}


def call(index: int | None, arguments: str = "", **more: Any) -> dict[str, Any]:
    """A piece of a call; `call_id` and `name` begin one."""
    piece: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        piece["index"] = index
    if "name" in more:
        piece["function"]["name"] = more["name"]
    if "call_id" in more:
        piece |= {"id": more["call_id"], "type": "function"}
    return delta(tool_calls=[piece])


def sse(*chunks: dict[str, Any], done: bool = True) -> list[bytes]:
    """The chunks as an engine sends them."""
    events = [b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks]
    return [*events, b"data: [DONE]\n\n"] if done else events


def read(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream. Each must be one that OpenAI's client knows, named twice and numbered."""
    events = []
    for block in body.decode().split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(events)
        _events.validate_python(event)
        events.append(event)
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types of events without what all of them have in common."""
    return [event["type"].removeprefix("response.") for event in events]
