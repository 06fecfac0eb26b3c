"""Is this an example to learn from? One line of a dataset, in OpenAI's chat format, before anything is trained.

Holds: `check`. Pure. Leaves out: finding the lines of a file and how many there may be (jobs), making text and tokens
of them (training).

An example is `{"messages": [...], "tools": [...], "parallel_tool_calls": bool}`. What is told is a closed code and the
part it is about, never what stands there. What the training could not read must be refused here.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from keepless.tuning.faults import FaultCode, FaultParam

__all__ = ["check"]

Wrong = tuple[FaultCode, FaultParam]
Json = Mapping[str, Any]
_C: Final = FaultCode
_P: Final = FaultParam
_EXAMPLE: Final = frozenset({"messages", "tools", "parallel_tool_calls"})
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_MEMBERS: Final = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "weight", "tool_calls", "refusal"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
_FIRST: Final = ("system", "developer")
_MOST_MESSAGES: Final = 2048
_MOST_TOOLS: Final = 128


def check(example: Json) -> tuple[FaultCode, FaultParam | None] | None:
    """What is wrong with an example; None = nothing."""
    if not example.keys() <= _EXAMPLE:
        return _C.UNKNOWN_PARAMETER, None
    messages = example.get("messages")
    if messages is None:
        return _C.MISSING, _P.MESSAGES
    if type(messages) is not list:
        return _C.INVALID_TYPE, _P.MESSAGES
    if not 0 < len(messages) <= _MOST_MESSAGES:
        return _C.INVALID_VALUE, _P.MESSAGES
    if example.get("parallel_tool_calls") not in (None, True, False):
        return _C.INVALID_TYPE, _P.PARALLEL
    wrong = _tools(example.get("tools"))
    if wrong is not None:
        return wrong
    reader = _Messages()
    for message in messages:
        wrong = reader.read(message)
        if wrong is not None:
            return wrong
    return None if reader.learned else (_C.NOTHING_TO_LEARN, _P.WEIGHT)


class _Messages:
    """The messages of one example, in their order."""

    def __init__(self) -> None:
        self.learned = False
        self._seen = 0
        self._spoken = False  # somebody but the system
        self._open: set[str] = set()  # calls that were made and may be answered

    def read(self, message: object) -> Wrong | None:
        """The next one."""
        if type(message) is not dict:
            return _C.INVALID_TYPE, _P.MESSAGES
        role = message.get("role")
        if type(role) is not str or role not in _MEMBERS:
            return _C.INVALID_ROLE, _P.ROLE
        if not message.keys() <= _MEMBERS[role]:
            return _C.UNKNOWN_PARAMETER, _P.MESSAGES
        name = message.get("name")
        if name is not None and (type(name) is not str or not _NAME.match(name)):
            return _C.INVALID_VALUE, _P.NAME
        if role in _FIRST and self._spoken:
            return _C.INVALID_ORDER, _P.ROLE
        self._spoken = self._spoken or role not in _FIRST
        wrong = self._assistant(message) if role == "assistant" else self._other(role, message)
        self._seen += 1
        return wrong

    def _other(self, role: str, message: Json) -> Wrong | None:
        if role == "tool":
            call_id = message.get("tool_call_id")
            if type(call_id) is not str:
                return _C.MISSING if call_id is None else _C.INVALID_TYPE, _P.TOOL_CALL_ID
            if call_id not in self._open:
                return _C.INVALID_ORDER, _P.TOOL_CALL_ID
            self._open.discard(call_id)
        return _content(message.get("content"))

    def _assistant(self, message: Json) -> Wrong | None:
        weight, calls = message.get("weight"), message.get("tool_calls")
        if weight is not None and (type(weight) not in (int, float) or weight not in (0, 1)):
            return _C.INVALID_VALUE, _P.WEIGHT
        if message.get("refusal") is not None:
            return _C.UNKNOWN_PARAMETER, _P.MESSAGES
        if calls is not None:
            wrong = self._calls(calls)
            if wrong is not None:
                return wrong
        if calls is None or message.get("content") is not None:
            wrong = _content(message.get("content"))
            if wrong is not None:
                return wrong
        # An answer that stands first answers nothing: it is read, not learned.
        self.learned = self.learned or (weight != 0 and self._seen > 0)
        return None

    def _calls(self, calls: object) -> Wrong | None:
        if type(calls) is not list:
            return _C.INVALID_TYPE, _P.TOOL_CALLS
        if not 0 < len(calls) <= _MOST_TOOLS:
            return _C.INVALID_VALUE, _P.TOOL_CALLS
        for call in calls:
            if type(call) is not dict or type(call.get("id")) is not str or type(call.get("function")) is not dict:
                return _C.INVALID_TYPE, _P.TOOL_CALLS
            function = call["function"]
            if call.get("type", "function") != "function" or not _named(function) or not _arguments(function):
                return _C.INVALID_VALUE, _P.TOOL_CALLS
            self._open.add(call["id"])
        return None


def _content(content: object) -> Wrong | None:
    """A text, or texts in parts."""
    if content is None:
        return _C.MISSING, _P.CONTENT
    if type(content) is str:
        return None
    if type(content) is not list or not content:
        return _C.INVALID_TYPE, _P.CONTENT
    for part in content:
        if type(part) is not dict or part.get("type") != "text" or type(part.get("text")) is not str:
            return _C.INVALID_TYPE, _P.CONTENT
    return None


def _tools(tools: object) -> Wrong | None:
    if tools is None:
        return None
    if type(tools) is not list:
        return _C.INVALID_TYPE, _P.TOOLS
    if len(tools) > _MOST_TOOLS:
        return _C.INVALID_VALUE, _P.TOOLS
    for tool in tools:
        if type(tool) is not dict or type(tool.get("function")) is not dict:
            return _C.INVALID_TYPE, _P.TOOLS
        function = tool["function"]
        if tool.get("type") != "function" or not _named(function) or not _is(function, "parameters", dict):
            return _C.INVALID_VALUE, _P.TOOLS
        if not _is(function, "description", str):
            return _C.INVALID_VALUE, _P.TOOLS
    return None


def _named(function: Json) -> bool:
    name = function.get("name")
    return type(name) is str and _NAME.match(name) is not None


def _is(function: Json, member: str, kind: type) -> bool:
    return function.get(member) is None or type(function[member]) is kind


def _arguments(function: Json) -> bool:
    """The JSON of an object, as a model writes it."""
    text = function.get("arguments")
    if type(text) is not str:
        return False
    try:
        return type(_loads(text or "{}")) is dict
    except (ValueError, RecursionError):
        return False


_loads: Final[Callable[[str], Any]] = json.loads
