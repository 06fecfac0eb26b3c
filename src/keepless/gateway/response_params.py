"""The parameters of /responses, in one table.

Holds: `PARAMETERS` (see rules for what a row says), `ResponseRules` (the table bound to one model, made once),
`ResponseRequest`, what a checked request comes to. Leaves out: input items (response_items), JSON (json_body), privacy
switches (switches), what an upstream is asked (response_bridge, responses).

Nothing of a response is kept, so whatever would need one that was kept is refused in OpenAI's words for organizations
with Zero Data Retention; clients know them. A bridged model can at most what chat completions can.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from keepless.config import ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway import switches, values
from keepless.gateway.chat_params import CAPABILITIES, EFFORTS, TIERS
from keepless.gateway.response_items import ITEMS_ONLY_NATIVE, check_input
from keepless.gateway.rules import (
    Capabilities,
    Parameter,
    Rules,
    anything,
    check_name,
    fixed,
    lacks,
    plain,
    stream_options,
    tools,
)
from keepless.gateway.values import Check, bad_type, bad_value, members, missing, unsupported
from keepless.policy.controls import RequestControls

__all__ = ["PARAMETERS", "ResponseRequest", "ResponseRules", "bridged_capabilities"]

_FUNCTION: Final = frozenset(
    {"type", "name", "description", "parameters", "strict", "allowed_callers", "defer_loading", "output_schema"}
)
_FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
# What only an upstream that speaks /responses itself can do, or not: a bridge has no words for it.
_ONLY_NATIVE: Final = frozenset(
    {"builtin_tools", "reasoning_summary", "truncation", "max_tool_calls", "context_management", "prompt"}
    | {"access_programs", "image_options", "moderation", "include"}
) | frozenset(ITEMS_ONLY_NATIVE)
_INCLUDABLE: Final = {
    # No capability: a model that gives no reasoning has none to encrypt, and clients ask every model alike.
    "reasoning.encrypted_content": None,
    "message.output_text.logprobs": "logprobs",
    "message.input_image.image_url": "include",
    "computer_call_output.output.image_url": "include",
    "code_interpreter_call.outputs": "include",
    "file_search_call.results": "include",
    "web_search_call.results": "include",
    "web_search_call.action.sources": "include",
}


@dataclass(slots=True)
class ResponseRequest:
    """A checked request. `body`: parameters of the table only, no switches, no nulls; `logprobs`: they are wanted.

    `asked`: what an engine is asked, once that is known; `timed`: the answer is to say what took how long.
    """

    body: dict[str, Any]
    stream: bool
    controls: RequestControls
    max_tokens: int | None
    logprobs: bool
    asked: dict[str, Any] = field(default_factory=dict)
    timed: bool = False


def bridged_capabilities(capabilities: Capabilities) -> frozenset[str]:
    """What a model can do that is asked for chat instead. `capabilities`: of its chat (None: all of chat)."""
    return (CAPABILITIES if capabilities is None else capabilities) - _ONLY_NATIVE


def _refused(param: str, what: str) -> Check:
    """For what would need something kept: OpenAI's words for organizations with Zero Data Retention."""

    def check(value: Any) -> None:
        if value is not False:
            raise Problem(
                400,
                Code.UNSUPPORTED_PARAMETER,
                f"{what} cannot be used for this organization due to Zero Data Retention.",
                param=param,
                retry=False,
            )

    return check


def _previous(value: Any) -> None:
    if type(value) is not str:
        raise bad_type("previous_response_id", "a string", value)
    _refused("previous_response_id", "Previous response")(value)


def _background(value: Any) -> None:
    values.boolean("background")(value)
    _refused("background", "Background mode")(value)


def _metadata(value: Any) -> None:
    """OpenAI's bounds. It is echoed to whoever sent it, and not kept."""
    if type(value) is not dict:
        raise bad_type("metadata", "an object", value)
    if len(value) > 16:
        raise bad_value("metadata", "at most 16 pairs")
    for key, text in value.items():
        if len(key) > 64:
            raise bad_value("metadata", "names of at most 64 characters")
        if type(text) is not str or len(text) > 512:
            raise bad_value("metadata", "strings of at most 512 characters")


def _include(capabilities: Capabilities) -> Check:
    def check(value: Any) -> None:
        if type(value) is not list:
            raise bad_type("include", "an array", value)
        for index, item in enumerate(value):
            if type(item) is not str or item not in _INCLUDABLE:
                raise bad_value(f"include[{index}]", f"one of {', '.join(sorted(_INCLUDABLE))}")
            if lacks(capabilities, _INCLUDABLE[item]):
                raise unsupported(f"include[{index}]", item)

    return check


def _reasoning(capabilities: Capabilities) -> Check:
    allowed = {"effort", "summary", "generate_summary", "context", "mode"}
    efforts = values.choice("reasoning.effort", EFFORTS)

    def check(value: Any) -> None:
        for key, item in members("reasoning", value, allowed).items():
            if item is None:
                continue
            if key == "effort":
                efforts(item)
                if item != "none" and lacks(capabilities, "reasoning"):
                    raise unsupported("reasoning.effort")
            else:
                values.text(f"reasoning.{key}", 64)(item)
                if lacks(capabilities, "reasoning_summary"):
                    raise unsupported(f"reasoning.{key}")

    return check


def _truncation(capabilities: Capabilities) -> Check:
    one_of = values.choice("truncation", frozenset({"auto", "disabled"}))

    def check(value: Any) -> None:
        one_of(value)
        if value == "auto" and lacks(capabilities, "truncation"):
            raise unsupported("truncation", "truncation auto")

    return check


def _text(capabilities: Capabilities) -> Check:
    verbosity = values.choice("text.verbosity", frozenset({"low", "medium", "high"}))

    def check(value: Any) -> None:
        members("text", value, {"format", "verbosity"})
        if value.get("verbosity") is not None:
            verbosity(value["verbosity"])
            if value["verbosity"] != "medium" and lacks(capabilities, "verbosity"):
                raise unsupported("text.verbosity")
        if value.get("format") is not None:
            _format(value["format"], capabilities)

    return check


def _format(value: Any, capabilities: Capabilities) -> None:
    kind = members("text.format", value, {"type", "name", "description", "schema", "strict"}).get("type")
    if kind is None:
        raise missing("text.format.type")
    if type(kind) is not str or kind not in _FORMATS:
        raise bad_value("text.format.type", "one of json_object, json_schema, text")
    if kind != "text" and lacks(capabilities, kind):
        raise unsupported("text.format", f"text.format.type {kind}")
    if kind == "json_schema":
        check_name("text.format.name", value.get("name"))
        if value.get("schema") is None:
            raise missing("text.format.schema")
        if type(value["schema"]) is not dict:
            raise bad_type("text.format.schema", "an object", value["schema"])
        if value.get("description") is not None and type(value["description"]) is not str:
            raise bad_type("text.format.description", "a string", value["description"])
        if value.get("strict") is not None and type(value["strict"]) is not bool:
            raise bad_type("text.format.strict", "a boolean", value["strict"])


def _function_of(param: str, tool: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return param, members(param, tool, _FUNCTION)


def _tool_choice(capabilities: Capabilities) -> Check:
    def check(value: Any) -> None:
        if type(value) is str:
            if value not in ("none", "auto", "required"):
                raise bad_value("tool_choice", "none, auto, required or a function")
            return
        if type(value) is not dict:
            raise bad_type("tool_choice", "a string or an object", value)
        kind = value.get("type")
        if kind == "function":
            members("tool_choice", value, {"type", "name"})
            check_name("tool_choice.name", value.get("name"))
        elif kind == "allowed_tools":
            _allowed_tools(members("tool_choice", value, {"type", "mode", "tools"}))
        elif type(kind) is not str or lacks(capabilities, "builtin_tools"):
            raise bad_value("tool_choice.type", "function or allowed_tools")

    return check


def _allowed_tools(value: dict[str, Any]) -> None:
    values.choice("tool_choice.mode", frozenset({"auto", "required"}))(value.get("mode"))
    tools = value.get("tools")
    if type(tools) is not list or not tools:
        raise bad_value("tool_choice.tools", "at least one tool")
    for index, tool in enumerate(tools):
        if type(tool) is not dict or type(tool.get("type")) is not str:
            raise bad_value(f"tool_choice.tools[{index}]", "an object with a type")
        if tool["type"] == "function":
            check_name(f"tool_choice.tools[{index}].name", tool.get("name"))


def _input(capabilities: Capabilities) -> Check:
    return lambda value: check_input(value, capabilities)


_UNCHECKED: Final = fixed(anything)

PARAMETERS: Final[dict[str, Parameter]] = {
    "model": Parameter(_UNCHECKED),  # looked up before
    "input": Parameter(_input),
    "instructions": Parameter(plain(values.text, "instructions", 2**24)),
    "stream": Parameter(plain(values.boolean, "stream"), "streaming", (False,)),
    "stream_options": Parameter(plain(stream_options, "include_obfuscation")),
    "max_output_tokens": Parameter(plain(values.integer, "max_output_tokens", 1, 2**31)),
    "max_tool_calls": Parameter(plain(values.integer, "max_tool_calls", 1, 2**31), "max_tool_calls"),
    "temperature": Parameter(plain(values.number, "temperature", 0, 2)),
    "top_p": Parameter(plain(values.number, "top_p", 0, 1)),
    "top_logprobs": Parameter(plain(values.integer, "top_logprobs", 0, 20), "logprobs", (0,)),
    "tools": Parameter(tools(_function_of), "tools", ([],)),
    "tool_choice": Parameter(_tool_choice, "tools", ("none", "auto")),
    "parallel_tool_calls": Parameter(plain(values.boolean, "parallel_tool_calls")),
    "text": Parameter(_text),
    "reasoning": Parameter(_reasoning),
    "include": Parameter(_include),
    "truncation": Parameter(_truncation),
    "metadata": Parameter(fixed(_metadata)),
    "user": Parameter(plain(values.text, "user", 512)),
    "safety_identifier": Parameter(plain(values.text, "safety_identifier", 128)),
    "prompt_cache_key": Parameter(plain(values.text, "prompt_cache_key", 1024)),
    "prompt_cache_options": Parameter(_UNCHECKED, "prompt_cache_options", ({},)),
    "service_tier": Parameter(plain(values.choice, "service_tier", TIERS)),
    "previous_response_id": Parameter(fixed(_previous)),
    "conversation": Parameter(plain(_refused, "conversation", "Conversation"), never=True),
    "background": Parameter(fixed(_background)),
    "background_options": Parameter(plain(_refused, "background_options", "Background mode"), never=True),
    "prompt": Parameter(_UNCHECKED, "prompt"),
    "context_management": Parameter(_UNCHECKED, "context_management", ([],)),
    "access_programs": Parameter(_UNCHECKED, "access_programs"),
    "image": Parameter(_UNCHECKED, "image_options"),
    "moderation": Parameter(_UNCHECKED, "moderation"),
    **{member.path[0]: Parameter(_UNCHECKED) for member in switches.BODY},
}


class ResponseRules(Rules):
    """The table bound to one model's capabilities. `only`: which of the parameters an endpoint has (default: all)."""

    def __init__(
        self, model: ModelConfig, capabilities: Capabilities, *, only: Callable[[str], bool] | None = None
    ) -> None:
        table = {name: row for name, row in PARAMETERS.items() if only is None or only(name)}
        super().__init__(model, table, capabilities)
        self._most = model.max_completion_tokens

    def check(self, body: dict[str, Any]) -> ResponseRequest:
        """Check a decoded body; takes switches and nulls out of it. Raises `Problem` (400)."""
        controls = self._read(body)
        if "input" not in body and "prompt" not in body:
            raise missing("input")
        limit = body.get("max_output_tokens")
        if limit is not None and limit > self._most:
            raise bad_value("max_output_tokens", f"at most {self._most}, the most that this model completes")
        _combinations(body)
        return ResponseRequest(
            body=body,
            stream=body.get("stream", False),
            controls=controls,
            max_tokens=None if limit is None else int(limit),
            logprobs="message.output_text.logprobs" in body.get("include", ()) or bool(body.get("top_logprobs")),
        )


def _combinations(body: dict[str, Any]) -> None:
    if "stream_options" in body and body.get("stream") is not True:
        raise Problem(
            400,
            Code.INVALID_VALUE,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    choice = body.get("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return
    tools = body.get("tools")
    if not tools:
        raise bad_value("tool_choice", "'tools' to choose from")
    if type(choice) is dict and choice["type"] in ("function", "allowed_tools"):
        names = {tool.get("name") for tool in tools if tool["type"] == "function"}
        for wanted in choice.get("tools", [choice]):
            if wanted["type"] == "function" and wanted["name"] not in names:
                raise bad_value("tool_choice.name", "the name of one of 'tools'")
