"""The objects of /responses as we make them: the response, its items, their parts, its usage.

Holds: `Draft` (one response while it is made) and the makers of items. Leaves out: reading an engine's answer
(response_answer), events (response_events).

A draft echoes what was asked, says `store: false`, and is the only place where ids of responses are minted: nothing is
kept under them, they only tell one answer from another.
"""

from typing import Any, Final

from keepless.gateway.response_params import ResponseRequest
from keepless.ids import Prefix, mint

__all__ = [
    "Draft",
    "Json",
    "Usage",
    "function_call",
    "message",
    "output_text",
    "reasoning",
    "reasoning_text",
    "refusal",
]

Json = dict[str, Any]
Usage = tuple[int, int, int, int]  # tokens: input, cached, output, reasoning

_TEXT: Final = {"type": "text"}
_ECHOED: Final = (
    "instructions", "max_output_tokens", "prompt_cache_key", "safety_identifier", "temperature", "top_p", "user",
)  # fmt: skip


class Draft:
    """One response. `output`: its finished items, in their order."""

    __slots__ = ("_echo", "_timed", "output", "times", "usage")

    def __init__(self, checked: ResponseRequest, model_id: str, created_s: int) -> None:
        body = checked.body
        effort = body.get("reasoning", {}).get("effort")
        self.output: list[Json] = []
        self.usage: Usage | None = None
        self.times: dict[str, str] = {}  # that the engine says it took
        self._timed: Final = checked.timed
        self._echo: Json = {
            "id": str(mint(Prefix.RESPONSE)),
            "object": "response",
            "created_at": created_s,
            "model": model_id,
            "background": False,
            "previous_response_id": None,
            "store": False,
            "max_tool_calls": None,
            "metadata": body.get("metadata", {}),
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "reasoning": {"effort": effort, "summary": None},
            "service_tier": "default",
            "text": {**body.get("text", {}), "format": body.get("text", {}).get("format") or _TEXT},
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "top_logprobs": body.get("top_logprobs", 0),
            "truncation": body.get("truncation", "disabled"),
            **{name: body.get(name) for name in _ECHOED},
        }

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self._echo["id"])

    def response(
        self, status: str, *, completed_s: int | None = None, reason: str | None = None, error: Json | None = None
    ) -> Json:
        """The response as it stands. `reason`: why it is incomplete."""
        times: Json = {"metadata": {**self._echo["metadata"], **self.times}} if self._timed and self.times else {}
        return {
            **self._echo,
            **times,
            "status": status,
            "completed_at": completed_s,
            "error": error,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": self.output,
            "usage": None if self.usage is None else _usage(self.usage),
        }


def _usage(usage: Usage) -> Json:
    asked, cached, answered, reasoned = usage
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": reasoned},
        "total_tokens": asked + answered,
    }


def message(item_id: str, status: str, content: list[Json]) -> Json:
    """What the model says."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def output_text(text: str, logprobs: list[Any]) -> Json:
    """A part of a message."""
    return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}


def refusal(text: str) -> Json:
    """A part of a message that refuses."""
    return {"type": "refusal", "refusal": text}


def reasoning(item_id: str, status: str, content: list[Json]) -> Json:
    """What the model thought, where its engine says so."""
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "content": content,
        "encrypted_content": None,
        "status": status,
    }


def reasoning_text(text: str) -> Json:
    """A part of a reasoning."""
    return {"type": "reasoning_text", "text": text}


def function_call(item_id: str, status: str, call_id: str, name: str, arguments: str) -> Json:
    """A call of a function."""
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "arguments": arguments,
        "call_id": call_id,
        "name": name,
    }
