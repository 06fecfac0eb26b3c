"""The parameters of chat/completions: OpenAI's and Groq's, in one table.

Holds: `PARAMETERS` (every parameter, its check, the capability it needs and the values that need none; see rules),
`ChatRules` (the table bound to one model, made once) and `ChatRequest`, what a checked request comes to. Leaves out:
JSON (json_body), messages (messages), privacy switches (switches), what an engine makes of the parameters (inference).
"""

from typing import Any, Final

from keepless.config import ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway import switches, values
from keepless.gateway.messages import PARTS, check_messages
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

__all__ = ["CAPABILITIES", "EFFORTS", "PARAMETERS", "TIERS", "ChatRequest", "ChatRules"]

EFFORTS: Final = frozenset({"none", "default", "minimal", "low", "medium", "high", "xhigh", "max"})
TIERS: Final = frozenset({"auto", "default", "on_demand", "flex", "performance", "scale", "priority", "fast"})


class ChatRequest:
    """A checked request. `body` is what an engine may see: parameters of the tables only, no switches, no nulls.

    `changed`: `body` says less than what was received, so the received bytes are not what is sent on.
    """

    __slots__ = ("body", "changed", "choices", "controls", "include_usage", "max_tokens", "stream")

    def __init__(
        self,
        body: dict[str, Any],
        *,
        stream: bool,
        include_usage: bool,
        controls: RequestControls,
        max_tokens: int | None,
        choices: int,
        changed: bool,
    ) -> None:
        self.body: Final = body
        self.stream = stream
        self.include_usage: Final = include_usage
        self.controls = controls
        self.max_tokens: Final = max_tokens
        self.choices: Final = choices
        self.changed: Final = changed


def _stop(value: Any) -> None:
    stops = [value] if type(value) is str else value
    if type(stops) is not list:
        raise bad_type("stop", "a string or an array of strings", value)
    if len(stops) > 4:
        raise bad_value("stop", "at most 4 sequences")
    for item in stops:
        if type(item) is not str:
            raise bad_type("stop", "a string or an array of strings", item)
        if not item:
            raise bad_value("stop", "sequences that are not empty")


def _logit_bias(value: Any) -> None:
    if type(value) is not dict:
        raise bad_type("logit_bias", "an object", value)
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit()) or len(token) > 9:
            raise bad_value("logit_bias", "token ids as names")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise bad_value("logit_bias", "numbers from -100 to 100")


def _modalities(capabilities: Capabilities) -> Check:
    def check(value: Any) -> None:
        if type(value) is not list or not all(item in ("text", "audio") for item in value):
            raise bad_value("modalities", "an array of text and audio")
        if "audio" in value and lacks(capabilities, "audio_output"):
            raise unsupported("modalities", "audio output")

    return check


def _function_of(param: str, tool: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    members(param, tool, {"type", "function"})
    place = f"{param}.function"
    return place, members(place, tool.get("function"), {"name", "description", "parameters", "strict"})


def _tool_choice(capabilities: Capabilities) -> Check:
    def check(value: Any) -> None:
        if type(value) is str:
            if value not in ("none", "auto", "required"):
                raise bad_value("tool_choice", "none, auto, required or a function")
            return
        if type(value) is not dict:
            raise bad_type("tool_choice", "a string or an object", value)
        if value.get("type") != "function":
            if value.get("type") == "allowed_tools" and not lacks(capabilities, "allowed_tools"):
                return
            raise bad_value("tool_choice.type", "function")
        members("tool_choice", value, {"type", "function"})
        function = members("tool_choice.function", value.get("function"), {"name"})
        check_name("tool_choice.function.name", function.get("name"))

    return check


def _response_format(capabilities: Capabilities) -> Check:
    def check(value: Any) -> None:
        kind = members("response_format", value, {"type", "json_schema"}).get("type")
        if kind is None:
            raise missing("response_format.type")
        if kind not in ("text", "json_object", "json_schema"):
            raise bad_value("response_format.type", "one of json_object, json_schema, text")
        if kind != "text" and lacks(capabilities, kind):
            raise unsupported("response_format", f"response_format.type {kind}")
        if kind == "json_schema":
            param = "response_format.json_schema"
            if value.get("json_schema") is None:
                raise missing(param)
            schema = members(param, value["json_schema"], {"name", "description", "schema", "strict"})
            check_name(f"{param}.name", schema.get("name"))
            if schema.get("schema") is not None and type(schema["schema"]) is not dict:
                raise bad_type(f"{param}.schema", "an object", schema["schema"])

    return check


def _messages(capabilities: Capabilities) -> Check:
    return lambda value: check_messages(value, capabilities)


_64: Final = (-(2**63), 2**63 - 1)
_UNCHECKED: Final = fixed(anything)

PARAMETERS: Final[dict[str, Parameter]] = {
    "model": Parameter(_UNCHECKED),  # looked up before
    "messages": Parameter(_messages),
    "stream": Parameter(plain(values.boolean, "stream"), "streaming", (False,)),
    "stream_options": Parameter(plain(stream_options, "include_usage", "include_obfuscation")),
    "max_tokens": Parameter(plain(values.integer, "max_tokens", 1, 2**31)),
    "max_completion_tokens": Parameter(plain(values.integer, "max_completion_tokens", 1, 2**31)),
    "temperature": Parameter(plain(values.number, "temperature", 0, 2)),
    "top_p": Parameter(plain(values.number, "top_p", 0, 1)),
    "frequency_penalty": Parameter(plain(values.number, "frequency_penalty", -2, 2)),
    "presence_penalty": Parameter(plain(values.number, "presence_penalty", -2, 2)),
    "seed": Parameter(plain(values.integer, "seed", *_64), "seed"),
    "stop": Parameter(fixed(_stop), "stop", ([],)),
    "n": Parameter(plain(values.integer, "n", 1, 128), "n", (1,)),
    "logprobs": Parameter(plain(values.boolean, "logprobs"), "logprobs", (False,)),
    "top_logprobs": Parameter(plain(values.integer, "top_logprobs", 0, 20), "logprobs", (0,)),
    "logit_bias": Parameter(fixed(_logit_bias), "logit_bias", ({},)),
    "tools": Parameter(tools(_function_of), "tools", ([],)),
    "tool_choice": Parameter(_tool_choice, "tools", ("none", "auto")),
    "parallel_tool_calls": Parameter(plain(values.boolean, "parallel_tool_calls")),
    "functions": Parameter(_UNCHECKED, "functions", ([],)),
    "function_call": Parameter(_UNCHECKED, "functions", ("none", "auto")),
    "response_format": Parameter(_response_format),
    "user": Parameter(plain(values.text, "user", 512)),
    "safety_identifier": Parameter(plain(values.text, "safety_identifier", 128)),
    "prompt_cache_key": Parameter(plain(values.text, "prompt_cache_key", 1024)),
    "prompt_cache_options": Parameter(_UNCHECKED, "prompt_cache_options", ({},)),
    "service_tier": Parameter(plain(values.choice, "service_tier", TIERS)),
    "reasoning_effort": Parameter(plain(values.choice, "reasoning_effort", EFFORTS), "reasoning", ("none",)),
    "reasoning_format": Parameter(
        plain(values.choice, "reasoning_format", frozenset({"hidden", "raw", "parsed"})), "reasoning"
    ),
    "include_reasoning": Parameter(plain(values.boolean, "include_reasoning"), "reasoning", (False,)),
    "verbosity": Parameter(plain(values.choice, "verbosity", frozenset({"low", "medium", "high"})), "verbosity"),
    "modalities": Parameter(_modalities),
    "audio": Parameter(_UNCHECKED, "audio_output"),
    "prediction": Parameter(_UNCHECKED, "prediction"),
    "moderation": Parameter(_UNCHECKED, "moderation"),
    "web_search_options": Parameter(_UNCHECKED, "web_search"),
    "search_settings": Parameter(_UNCHECKED, "compound"),
    "compound_custom": Parameter(_UNCHECKED, "compound"),
    "include_domains": Parameter(_UNCHECKED, "compound", ([],)),
    "exclude_domains": Parameter(_UNCHECKED, "compound", ([],)),
    "documents": Parameter(_UNCHECKED, "documents", ([],)),
    "citation_options": Parameter(_UNCHECKED, "documents"),
    "disable_tool_validation": Parameter(
        plain(values.boolean, "disable_tool_validation"), "disable_tool_validation", (False,)
    ),
    "metadata": Parameter(_UNCHECKED, neutral=({},), never=True),
    **{member.path[0]: Parameter(_UNCHECKED) for member in switches.BODY},
}


CAPABILITIES: Final = frozenset(
    {parameter.capability for parameter in PARAMETERS.values() if parameter.capability is not None}
    | {part.capability for part in PARTS.values() if part.capability is not None}
    | {"name", "json_object", "json_schema", "builtin_tools", "allowed_tools"}
)


class ChatRules(Rules):
    """The table bound to one model's capabilities, so that a request costs one look-up a parameter."""

    def __init__(self, model: ModelConfig, capabilities: Capabilities) -> None:
        super().__init__(model, PARAMETERS, capabilities)
        self._most = model.max_completion_tokens

    def check(self, body: dict[str, Any]) -> ChatRequest:
        """Check a decoded body; takes switches and nulls out of it. Raises `Problem` (400)."""
        size = len(body)
        controls = self._read(body, "messages")
        get = body.get
        stream, options = get("stream", False), get("stream_options")
        limit = self._limit(get("max_completion_tokens"), get("max_tokens"))
        self._combinations(body)
        return ChatRequest(
            body=body,
            stream=stream,
            include_usage=options is not None and options.get("include_usage") is True,
            controls=controls,
            max_tokens=limit,
            choices=int(get("n", 1)),
            changed=len(body) != size,
        )

    def _limit(self, completion: Any, deprecated: Any) -> int | None:
        if completion is not None and deprecated is not None:
            raise Problem(
                400,
                Code.INVALID_VALUE,
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
                param="max_tokens",
            )
        limit = deprecated if completion is None else completion
        if limit is None:
            return None
        if limit > self._most:
            param = "max_completion_tokens" if deprecated is None else "max_tokens"
            raise bad_value(param, f"at most {self._most}, the most that this model completes")
        return int(limit)

    @staticmethod
    def _combinations(body: dict[str, Any]) -> None:
        if "stream_options" in body and body.get("stream") is not True:
            raise Problem(
                400,
                Code.INVALID_VALUE,
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
            )
        if body.get("top_logprobs") and body.get("logprobs") is not True:
            raise bad_value("top_logprobs", "'logprobs' to be true")
        if "include_reasoning" in body and "reasoning_format" in body:
            raise bad_value("include_reasoning", "not to be sent together with 'reasoning_format'")
        choice = body.get("tool_choice")
        if choice is None or choice in ("none", "auto"):
            return
        tools = body.get("tools")
        if not tools:
            raise bad_value("tool_choice", "'tools' to choose from")
        if type(choice) is dict and choice.get("type") == "function":
            name = choice["function"]["name"]
            if not any(tool["type"] == "function" and tool["function"]["name"] == name for tool in tools):
                raise bad_value("tool_choice.function.name", "the name of one of 'tools'")
