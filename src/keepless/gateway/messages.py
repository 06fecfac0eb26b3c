"""The messages of a conversation: which role says what, in which parts.

Holds: `check_messages`, driven by one table of roles and one of content parts. Leaves out: every other parameter
(chat_params). Parts and names that need a capability of the model are refused in Groq's words when it lacks it.
"""

from dataclasses import dataclass
from typing import Any, Final

from keepless.errors import Code, Problem
from keepless.gateway.values import bad_type, bad_value, members, missing, unknown_member, unsupported

__all__ = ["PARTS", "ROLES", "check_messages"]


@dataclass(frozen=True, slots=True)
class Role:
    """What a message of one role may hold. `silent`: its content may be absent when it has one of these instead."""

    keys: frozenset[str]
    parts: frozenset[str]
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of content part: the member that carries it, its type and members, the capability it needs."""

    carrier: str
    inner: frozenset[str] | None = None  # None: the carrier is a string
    required: str = ""
    capability: str | None = None


_TEXT: Final = frozenset({"text"})
_BASE: Final = {"role", "content", "name"}

ROLES: Final = {
    "system": Role(frozenset(_BASE), _TEXT),
    "developer": Role(frozenset(_BASE), _TEXT),
    "user": Role(frozenset(_BASE), frozenset({"text", "image_url", "input_audio", "file"})),
    "assistant": Role(
        # Clients send back the message they were answered, with every member that both vendors put into one.
        frozenset(
            {*_BASE, "tool_calls", "refusal", "reasoning", "reasoning_content", "function_call"}
            | {"annotations", "audio", "executed_tools"}
        ),
        frozenset({"text", "refusal"}),
        silent=("tool_calls", "function_call", "refusal", "audio"),
    ),
    "tool": Role(frozenset({*_BASE, "tool_call_id"}), _TEXT),
    "function": Role(frozenset(_BASE), _TEXT),
}

PARTS: Final = {
    "text": Part("text"),
    "refusal": Part("refusal"),
    "image_url": Part("image_url", frozenset({"url", "detail"}), "url", "vision"),
    "input_audio": Part("input_audio", frozenset({"data", "format"}), "data", "audio_input"),
    "file": Part("file", frozenset({"file_data", "file_id", "filename"}), "", "file_input"),
}
_CALL: Final = frozenset({"id", "type", "function", "index"})
_FUNCTION: Final = frozenset({"name", "arguments"})
_SAID: Final = (  # what an answer brings back
    ("refusal", str, "a string"),
    ("reasoning", str, "a string"),
    ("reasoning_content", str, "a string"),
    ("audio", dict, "an object"),
    ("annotations", list, "an array"),
    ("executed_tools", list, "an array"),
)


def check_messages(messages: Any, capabilities: frozenset[str] | None) -> None:
    """Check the structure of a conversation. `capabilities` None: all. Raises `Problem` (400)."""
    if type(messages) is not list:
        raise bad_type("messages", "an array", messages)
    if not messages:
        raise bad_value("messages", "at least one message")
    asked: set[str] = set()  # ids of tool calls that a tool message may answer
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise bad_type(f"messages[{index}]", "an object", message)
        name = message.get("role")
        role = ROLES.get(name) if type(name) is str else None
        if role is None:
            raise _bad_role(index, message)
        content = message.get("content")
        if type(content) is not str:
            _check_content(f"messages[{index}].content", content, role, message, capabilities)
        if len(message) == 2 and "content" in message and name not in ("tool", "function"):
            continue  # a role and a content: the common case
        _check_rest(f"messages[{index}]", message, role, asked, capabilities)


def _bad_role(index: int, message: dict[str, Any]) -> Problem:
    param = f"messages[{index}].role"
    if "role" not in message:
        return missing(param)
    if type(message["role"]) is not str:
        return bad_type(param, "a string", message["role"])
    return bad_value(param, f"one of {', '.join(sorted(ROLES))}")


def _check_content(
    param: str, content: Any, role: Role, message: dict[str, Any], capabilities: frozenset[str] | None
) -> None:
    if content is None:
        if any(message.get(key) is not None for key in role.silent):
            return
        raise missing(param)
    if type(content) is not list:
        raise bad_type(param, "a string or an array of content parts", content)
    if not content:
        raise bad_value(param, "at least one content part")
    for index, item in enumerate(content):
        _check_part(f"{param}[{index}]", item, role, capabilities)


def _check_part(param: str, item: Any, role: Role, capabilities: frozenset[str] | None) -> None:
    if type(item) is not dict:
        raise bad_type(param, "an object", item)
    kind = item.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    if type(kind) is not str or kind not in role.parts:
        raise bad_value(f"{param}.type", f"one of {', '.join(sorted(role.parts))}")
    part = PARTS[kind]
    if part.capability is not None and capabilities is not None and part.capability not in capabilities:
        raise unsupported(f"{param}.type", kind)
    members(param, item, {"type", part.carrier})
    value = item.get(part.carrier)
    if value is None:
        raise missing(f"{param}.{part.carrier}")
    _check_carrier(f"{param}.{part.carrier}", value, part)


def _check_carrier(param: str, value: Any, part: Part) -> None:
    if part.inner is None:
        if type(value) is not str:
            raise bad_type(param, "a string", value)
        return
    inner = members(param, value, part.inner)
    if part.required and part.required not in inner:
        raise missing(f"{param}.{part.required}")
    for key, text in inner.items():
        if type(text) is not str:
            raise bad_type(f"{param}.{key}", "a string", text)


def _check_rest(
    param: str, message: dict[str, Any], role: Role, asked: set[str], capabilities: frozenset[str] | None
) -> None:
    if not message.keys() <= role.keys:
        position = next(i for i, key in enumerate(message) if key not in role.keys)
        raise unknown_member(param, position, role.keys)
    if message.get("name") is not None:
        if type(message["name"]) is not str:
            raise bad_type(f"{param}.name", "a string", message["name"])
        if capabilities is not None and "name" not in capabilities and message["role"] not in ("tool", "function"):
            raise unsupported(f"{param}.name", "messages[].name")
    if message.get("tool_calls") is not None:
        _check_calls(f"{param}.tool_calls", message["tool_calls"], asked)
    if message.get("function_call") is not None:
        _check_function(f"{param}.function_call", message["function_call"])
    for key, type_, what in _SAID:
        if message.get(key) is not None and type(message[key]) is not type_:
            raise bad_type(f"{param}.{key}", what, message[key])
    if message["role"] == "tool":
        _check_answer(f"{param}.tool_call_id", message.get("tool_call_id"), asked)


def _check_calls(param: str, calls: Any, asked: set[str]) -> None:
    if type(calls) is not list:
        raise bad_type(param, "an array", calls)
    for index, item in enumerate(calls):
        where = f"{param}[{index}]"
        call = members(where, item, _CALL)
        if type(call.get("id")) is not str:
            raise missing(f"{where}.id") if "id" not in call else bad_type(f"{where}.id", "a string", call["id"])
        if call.get("type", "function") != "function":
            raise bad_value(f"{where}.type", "function")
        _check_function(f"{where}.function", call.get("function"))
        asked.add(call["id"])


def _check_function(param: str, function: Any) -> None:
    function = members(param, function, _FUNCTION)
    for key in ("name", "arguments"):
        if type(function.get(key)) is not str:
            raise bad_type(f"{param}.{key}", "a string", function.get(key))


def _check_answer(param: str, call_id: Any, asked: set[str]) -> None:
    if call_id is None:
        raise missing(param)
    if type(call_id) is not str:
        raise bad_type(param, "a string", call_id)
    if call_id not in asked:
        raise Problem(
            400,
            Code.INVALID_VALUE,
            "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
            param=param,
        )
