"""What every endpoint's table of parameters is made of: its rows, and the walk over a body along them.

Holds: `Parameter` (a row), `Rules` (a table bound to one model, made once, so that a request costs one look-up a
parameter), `fixed`, `plain` and `anything` (how rows make their checks), and the checks that several tables share: the
model's name, the name of a function, tools, stream options. Leaves out: the tables (chat_params and its like), JSON
(json_body), privacy switches (switches), checks of single values (values).

What a model can do is passed on; what it cannot is 400 in Groq's words. null means "not sent". A name that stands in no
table is refused by its position: passing it on would let a client steer an engine past every check here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keepless.config import ModelConfig
from keepless.gateway import switches, values
from keepless.gateway.values import Check, bad_type, bad_value, members, missing, unsupported
from keepless.policy.controls import RequestControls

__all__ = [
    "Capabilities",
    "Parameter",
    "Rules",
    "anything",
    "check_name",
    "fixed",
    "lacks",
    "model_name",
    "plain",
    "stream_options",
    "tools",
]

Capabilities = frozenset[str] | None  # None: all
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_MOST_TOOLS: Final = 128
_OF_FUNCTIONS: Final = (
    ("description", str, "a string"),
    ("parameters", dict, "an object"),
    ("strict", bool, "a boolean"),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """How one parameter is checked. `neutral`: values that ask for nothing beyond the default."""

    check: Callable[[Capabilities], Check]
    capability: str | None = None
    neutral: tuple[Any, ...] = ()
    never: bool = False  # no engine is asked: it would only be stored


def fixed(check: Check) -> Callable[[Capabilities], Check]:
    """A check that is the same whatever a model can do."""
    return lambda _: check


def plain(make: Callable[..., Check], *arguments: Any) -> Callable[[Capabilities], Check]:
    """A check that is made of its arguments, the same for all models."""
    return fixed(make(*arguments))


def anything(_: Any) -> None:
    """For what only one vendor's engine understands: the capability is the check."""


def lacks(capabilities: Capabilities, capability: str | None) -> bool:
    """Whether a model cannot do what is needed (None: nothing)."""
    return capability is not None and capabilities is not None and capability not in capabilities


class Rules:
    """A table bound to one model's capabilities."""

    def __init__(self, model: ModelConfig, parameters: Mapping[str, Parameter], capabilities: Capabilities) -> None:
        self._checks = {name: _bound(name, parameter, capabilities) for name, parameter in parameters.items()}
        self._checks.update(dict.fromkeys(model.extra_params, anything))

    def _read(self, body: dict[str, Any], *required: str) -> RequestControls:
        """Check a decoded body; takes switches and nulls out of it. Raises `Problem` (400)."""
        checks, absent = self._checks, False
        for name, value in body.items():
            check = checks.get(name)
            if check is None:
                raise values.unknown_member(None, list(body).index(name), checks)
            if value is None:
                absent = True
            else:
                check(value)
        for name in required:
            if body.get(name) is None:
                raise missing(name)
        controls = switches.from_body(body)
        if absent:
            for name in [name for name, value in body.items() if value is None]:
                del body[name]
        return controls


def _bound(name: str, parameter: Parameter, capabilities: Capabilities) -> Check:
    """The check of one parameter for one model."""
    check = parameter.check(capabilities)
    if not lacks(capabilities, parameter.capability) and not parameter.never:
        return check
    neutral = parameter.neutral

    def refuse(value: Any) -> None:
        check(value)
        if not any(type(value) is type(item) and value == item for item in neutral):
            raise unsupported(name)

    return refuse


# -- what several tables share -------------------------------------------------------------------------------------


def model_name(body: dict[str, Any]) -> str:
    """The model that was asked for. Raises `Problem` (400)."""
    name = body.get("model")
    if name is None:
        raise missing("model")
    if type(name) is not str:
        raise bad_type("model", "a string", name)
    return name


def check_name(param: str, value: Any) -> None:
    """Check the name of a function or a schema. Raises `Problem` (400)."""
    if value is None:
        raise missing(param)
    if type(value) is not str:
        raise bad_type(param, "a string", value)
    if _NAME.match(value) is None:
        raise bad_value(param, "1 to 64 letters, digits, underscores, dots or hyphens")


def stream_options(*allowed: str) -> Check:
    """An object of flags."""
    names = frozenset(allowed)

    def check(value: Any) -> None:
        for key, flag in members("stream_options", value, names).items():
            if flag is not None and type(flag) is not bool:
                raise bad_type(f"stream_options.{key}", "a boolean", flag)

    return check


def tools(
    function_of: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]],
) -> Callable[[Capabilities], Check]:
    """A list of tools. `function_of`: where the function of a tool is; it raises for other members (`Problem`)."""

    def make(capabilities: Capabilities) -> Check:
        def check(value: Any) -> None:
            if type(value) is not list:
                raise bad_type("tools", "an array", value)
            if len(value) > _MOST_TOOLS:
                raise bad_value("tools", f"at most {_MOST_TOOLS} tools")
            names = [_tool(f"tools[{index}]", tool, capabilities, function_of) for index, tool in enumerate(value)]
            if len(set(names)) != len(names):
                raise bad_value("tools", "functions with different names")

        return check

    return make


def _tool(
    param: str,
    tool: Any,
    capabilities: Capabilities,
    function_of: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]],
) -> str:
    """The name of a tool's function; of a tool that is none, where it stands."""
    if type(tool) is not dict:
        raise bad_type(param, "an object", tool)
    if tool.get("type") != "function":
        if type(tool.get("type")) is not str:
            raise bad_value(f"{param}.type", "function")
        if lacks(capabilities, "builtin_tools"):
            raise unsupported(f"{param}.type", "tools other than functions")
        return param
    place, function = function_of(param, tool)
    check_name(f"{place}.name", function.get("name"))
    for key, kind, expected in _OF_FUNCTIONS:
        if function.get(key) is not None and type(function[key]) is not kind:
            raise bad_type(f"{place}.{key}", expected, function[key])
    return str(function["name"])
