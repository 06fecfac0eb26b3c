"""The parameters of embeddings: OpenAI's and Groq's, in one table.

Holds: `PARAMETERS` (see rules for what a row says), `EmbeddingRules` (the table bound to one model, made once),
`EmbeddingRequest`, what a checked request comes to. Leaves out: how long a text may be (the engine counts its tokens),
what an engine is asked (embeddings).
"""

from dataclasses import dataclass
from typing import Any, Final

from keepless.config import Engine, ModelConfig
from keepless.gateway import switches, values
from keepless.gateway.rules import Capabilities, Parameter, Rules, anything, plain
from keepless.gateway.values import Check, bad_type, bad_value, unsupported
from keepless.policy.controls import RequestControls

__all__ = ["CAPABILITIES", "DIMENSIONS", "MOST_INPUTS", "PARAMETERS", "EmbeddingRequest", "EmbeddingRules"]

MOST_INPUTS: Final = 2048
DIMENSIONS: Final = 384  # of the embedded model's vectors
_MOST_DIMENSIONS: Final = 65536
_LARGEST_TOKEN: Final = 2**31
_KINDS: Final = "a string, an array of strings, an array of integers or an array of arrays of integers"


@dataclass(slots=True)
class EmbeddingRequest:
    """A checked request. `body`: parameters of the table only, no switches, no nulls. `changed`: see chat_params."""

    body: dict[str, Any]
    controls: RequestControls
    changed: bool
    stream: bool = False

    @property
    def inputs(self) -> list[Any]:
        """What is embedded: texts, or arrays of tokens."""
        return inputs_of(self.body)


def inputs_of(body: dict[str, Any]) -> list[Any]:
    """The inputs of any body, a single one as a list of one; none where there is nothing of the kind."""
    found = body.get("input")
    if type(found) is not list:
        return [] if found is None else [found]
    return [found] if found and type(found[0]) is int else found


def _input(capabilities: Capabilities) -> Check:
    tokens = capabilities is None or "token_input" in capabilities

    def check(value: Any) -> None:
        if type(value) is str:
            _text("input", value)
            return
        if type(value) is not list:
            raise bad_type("input", _KINDS, value)
        if not value:
            raise bad_value("input", "an array that is not empty")
        if type(value[0]) is int:
            _tokens("input", value, allowed=tokens)
            return
        if len(value) > MOST_INPUTS:
            raise bad_value("input", f"at most {MOST_INPUTS} inputs")
        kind = type(value[0])
        for index, item in enumerate(value):
            if type(item) is not kind or kind not in (str, list):
                raise bad_type("input", _KINDS, item)
            if kind is str:
                _text(f"input[{index}]", item)
            else:
                _tokens(f"input[{index}]", item, allowed=tokens)

    return check


def _text(param: str, value: str) -> None:
    if not value:
        raise bad_value(param, "a string that is not empty")


def _tokens(param: str, value: list[Any], *, allowed: bool) -> None:
    if not value:
        raise bad_value(param, "an array that is not empty")
    for token in value:
        if type(token) is not int:
            raise bad_type(param, "an array of integers", token)
        if not 0 <= token < _LARGEST_TOKEN:
            raise bad_value(param, "tokens of this model")
    if not allowed:
        raise unsupported("input", "input as tokens")


PARAMETERS: Final[dict[str, Parameter]] = {
    "model": Parameter(plain(lambda: anything)),  # looked up before
    "input": Parameter(_input),
    "encoding_format": Parameter(plain(values.choice, "encoding_format", frozenset({"float", "base64"}))),
    "dimensions": Parameter(plain(values.integer, "dimensions", 1, _MOST_DIMENSIONS), "dimensions"),
    "user": Parameter(plain(values.text, "user", 512)),
    **{member.path[0]: Parameter(plain(lambda: anything)) for member in switches.BODY},
}
CAPABILITIES: Final = frozenset({"dimensions", "token_input"})


class EmbeddingRules(Rules):
    """The table bound to one model's capabilities."""

    def __init__(self, model: ModelConfig, capabilities: Capabilities) -> None:
        super().__init__(model, PARAMETERS, capabilities)
        if model.engine is Engine.MINILM and model.path is None:
            self._checks["dimensions"] = _but(DIMENSIONS, self._checks["dimensions"])

    def check(self, body: dict[str, Any]) -> EmbeddingRequest:
        """Check a decoded body; takes switches and nulls out of it. Raises `Problem` (400)."""
        size = len(body)
        controls = self._read(body, "input")
        return EmbeddingRequest(body, controls, changed=len(body) != size)


def _but(own: int, check: Check) -> Check:
    """A check of anything but what one gets anyway: asking for that asks for nothing."""
    return lambda value: None if type(value) is int and value == own else check(value)
