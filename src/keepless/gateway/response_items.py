"""The input of /responses: a text, or items (messages, calls of functions and their outputs, reasoning).

Holds: `check_input`, driven by one table of items and one of content parts. Leaves out: every other parameter
(response_params), their translation for chat (response_bridge). What a model lacks is refused in Groq's words.

An item that only names something kept earlier is refused in OpenAI's words: nothing was kept.
"""

from typing import Any, Final

from keepless.errors import Code, Problem
from keepless.gateway.values import bad_type, bad_value, members, missing, unsupported

__all__ = ["ITEMS_ONLY_NATIVE", "PARTS", "ROLES", "check_input"]

_Capabilities = frozenset[str] | None
_ITEMS: Final = frozenset({"message", "function_call", "function_call_output", "reasoning", "item_reference"})
ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
_MESSAGE: Final = frozenset({"type", "id", "role", "content", "status", "phase"})
_CALL: Final = frozenset({"type", "id", "call_id", "name", "arguments", "status", "namespace", "caller"})
_OUTPUT: Final = frozenset({"type", "id", "call_id", "output", "status", "name", "namespace", "caller"})
_REASONING: Final = frozenset({"type", "id", "summary", "content", "encrypted_content", "status"})

# Content part -> its members, and which capability it needs.
PARTS: Final[dict[str, tuple[frozenset[str], str | None]]] = {
    "input_text": (frozenset({"text", "prompt_cache_breakpoint"}), None),
    "output_text": (frozenset({"text", "annotations", "logprobs"}), None),
    "text": (frozenset({"text"}), None),
    "refusal": (frozenset({"refusal"}), None),
    "input_image": (frozenset({"image_url", "file_id", "detail", "prompt_cache_breakpoint"}), "vision"),
    "input_file": (
        frozenset({"file_data", "file_url", "file_id", "filename", "detail", "prompt_cache_breakpoint"}),
        "file_input",
    ),
    "input_audio": (frozenset({"input_audio"}), "audio_input"),
}
_IN_ASSISTANT: Final = frozenset({"output_text", "refusal", "text", "input_text"})
_IN_OTHERS: Final = frozenset({"input_text", "text", "input_image", "input_file", "input_audio"})
_IN_OUTPUT: Final = frozenset({"input_text", "input_image", "input_file"})

# Items of tools that an upstream runs, or that steer it: it knows what they hold.
ITEMS_ONLY_NATIVE: Final = frozenset(
    {"file_search_call", "web_search_call", "computer_call", "computer_call_output", "image_generation_call"}
    | {"code_interpreter_call", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"}
    | {"apply_patch_call", "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request"}
    | {"mcp_approval_response", "mcp_call", "custom_tool_call", "custom_tool_call_output", "compaction"}
    | {"compaction_trigger", "tool_search_call", "tool_search_output", "additional_tools", "program", "program_output"}
)


def check_input(value: Any, capabilities: _Capabilities) -> None:
    """Check the structure of an input. `capabilities` None: all. Raises `Problem` (400, 404)."""
    if type(value) is str:
        return
    if type(value) is not list:
        raise bad_type("input", "a string or an array", value)
    if not value:
        raise bad_value("input", "at least one item")
    walk = _Walk(capabilities)
    for index, item in enumerate(value):
        where = f"input[{index}]"
        if type(item) is not dict:
            raise bad_type(where, "an object", item)
        walk.item(where, item)


class _Walk:
    """Through the items of one input, in their order."""

    def __init__(self, capabilities: _Capabilities) -> None:
        self._capabilities = capabilities
        self._called: set[str] = set()  # ids of calls that an output may answer

    def item(self, where: str, item: dict[str, Any]) -> None:
        """Check one item. Raises `Problem`."""
        kind = item.get("type", "message" if "role" in item else None)
        if kind is None:
            raise missing(f"{where}.type")
        if type(kind) is not str:
            raise bad_type(f"{where}.type", "a string", kind)
        if kind == "message":
            self._message(where, item)
        elif kind == "function_call":
            self._call(where, item)
        elif kind == "function_call_output":
            self._output(where, item)
        elif kind == "reasoning":
            _reasoning(where, item)
        else:
            self._other(f"{where}.type", kind)

    def _other(self, where: str, kind: str) -> None:
        if kind == "item_reference":
            raise _not_persisted()
        if kind not in ITEMS_ONLY_NATIVE:
            raise bad_value(where, f"one of {', '.join(sorted(_ITEMS | ITEMS_ONLY_NATIVE))}")
        if self._capabilities is not None and kind not in self._capabilities:
            raise unsupported(where, kind)

    def _call(self, where: str, item: dict[str, Any]) -> None:
        members(where, item, _CALL)
        for key in ("call_id", "name", "arguments"):
            _text(where, item, key)
        self._called.add(item["call_id"])

    def _message(self, where: str, item: dict[str, Any]) -> None:
        role = members(where, item, _MESSAGE).get("role")
        if role is None:
            raise missing(f"{where}.role")
        if type(role) is not str or role not in ROLES:
            raise bad_value(f"{where}.role", f"one of {', '.join(sorted(ROLES))}")
        content = item.get("content")
        if type(content) is not str:
            self._parts(f"{where}.content", content, _IN_ASSISTANT if role == "assistant" else _IN_OTHERS)

    def _output(self, where: str, item: dict[str, Any]) -> None:
        members(where, item, _OUTPUT)
        _text(where, item, "call_id")
        if type(item.get("output")) is not str:
            self._parts(f"{where}.output", item.get("output"), _IN_OUTPUT)
        if item["call_id"] not in self._called:
            message = "No tool call found for a function call output."
            raise Problem(400, Code.INVALID_VALUE, message, param=f"{where}.call_id")

    def _parts(self, where: str, content: Any, allowed: frozenset[str]) -> None:
        if content is None:
            raise missing(where)
        if type(content) is not list:
            raise bad_type(where, "a string or an array of content parts", content)
        for index, part in enumerate(content):
            _part(f"{where}[{index}]", part, allowed, self._capabilities)


def _reasoning(where: str, item: dict[str, Any]) -> None:
    members(where, item, _REASONING)
    for key in ("summary", "content"):
        if item.get(key) is not None and type(item[key]) is not list:
            raise bad_type(f"{where}.{key}", "an array", item[key])
    sealed = item.get("encrypted_content")
    if sealed is not None and type(sealed) is not str:
        raise bad_type(f"{where}.encrypted_content", "a string", sealed)


def _not_persisted() -> Problem:
    return Problem(
        404,
        Code.NOT_FOUND,
        "Item not found. Items are not persisted for Zero Data Retention organizations. Remove this item from your "
        "input and try again.",
        param="input",
        retry=False,
    )


def _text(where: str, item: dict[str, Any], key: str) -> None:
    value = item.get(key)
    if value is None:
        raise missing(f"{where}.{key}")
    if type(value) is not str:
        raise bad_type(f"{where}.{key}", "a string", value)


def _part(where: str, part: Any, allowed: frozenset[str], capabilities: _Capabilities) -> None:
    if type(part) is not dict:
        raise bad_type(where, "an object", part)
    kind = part.get("type")
    if kind is None:
        raise missing(f"{where}.type")
    if type(kind) is not str or kind not in allowed:
        raise bad_value(f"{where}.type", f"one of {', '.join(sorted(allowed))}")
    names, capability = PARTS[kind]
    if capability is not None and capabilities is not None and capability not in capabilities:
        raise unsupported(f"{where}.type", kind)
    members(where, part, names | {"type"})
    if kind in ("input_text", "output_text", "text"):
        _text(where, part, "text")
    elif kind == "refusal":
        _text(where, part, "refusal")
    elif kind == "input_audio":
        sound = members(f"{where}.input_audio", part.get("input_audio"), {"data", "format"})
        _text(f"{where}.input_audio", sound, "data")
    else:
        _media(where, part)


def _media(where: str, part: dict[str, Any]) -> None:
    """An image or a file: by its URL, its data or its id, all of them texts."""
    sources = [key for key in ("image_url", "file_data", "file_url", "file_id") if part.get(key) is not None]
    if not sources:
        raise missing(f"{where}.{'image_url' if part['type'] == 'input_image' else 'file_data'}")
    for key in (*sources, "detail", "filename"):
        if part.get(key) is not None and type(part[key]) is not str:
            raise bad_type(f"{where}.{key}", "a string", part[key])
