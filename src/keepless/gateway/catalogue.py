"""What a model of the catalogue serves: its endpoints and its capabilities, the operator's word or the engine's.

Holds: `endpoints_of`, `capabilities_of`, and the refusals of a model that does not exist or serves another endpoint.
Leaves out: who may be routed to a model (inference.router), what a capability allows (each endpoint's table).
"""

from typing import Final

from keepless.config import Endpoint, Engine, ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway.speech_params import CAPABILITIES as SPEECH_CAPABILITIES
from keepless.ids import Id
from keepless.inference.embedded.dialect import CAPABILITIES
from keepless.inference.embedded.hearing import CAPABILITIES as HEARING
from keepless.inference.permission import no_such_model

__all__ = ["capabilities_of", "does_not_serve", "endpoints_of", "no_such_model"]

_BY_ENGINE: Final = {
    Engine.LLAMA: frozenset({Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.INPUT_TOKENS}),
    Engine.WHISPER: frozenset({Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS}),
    Engine.FLITE: frozenset({Endpoint.SPEECH}),
    Engine.MINILM: frozenset({Endpoint.EMBEDDINGS}),
    Engine.OPENAI: frozenset({Endpoint.CHAT, Endpoint.RESPONSES}),
}
_CAPABILITIES: Final = {Engine.LLAMA: CAPABILITIES, Engine.WHISPER: HEARING, Engine.FLITE: SPEECH_CAPABILITIES}
_NATIVE: Final = frozenset({Endpoint.INPUT_TOKENS})
_WORDS: Final = {
    Endpoint.CHAT: "chat completions",
    Endpoint.RESPONSES: "responses",
    Endpoint.INPUT_TOKENS: "input token counts",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.TRANSCRIPTIONS: "audio transcriptions",
    Endpoint.TRANSLATIONS: "audio translations",
    Endpoint.SPEECH: "audio speech",
}


def endpoints_of(model: ModelConfig) -> frozenset[Endpoint]:
    """The endpoints that a model serves."""
    if model.endpoints is not None:
        return frozenset(model.endpoints)
    return _BY_ENGINE[model.engine] | (_NATIVE if model.native_responses else frozenset())


def capabilities_of(model: ModelConfig) -> frozenset[str] | None:
    """What a model can do; None = whatever its upstream can."""
    if model.capabilities is not None:
        return frozenset(model.capabilities)
    if model.engine is Engine.OPENAI:
        return None
    return _CAPABILITIES.get(model.engine, frozenset())


def does_not_serve(model_id: Id, endpoint: Endpoint) -> Problem:
    """The refusal of an endpoint that a model does not serve, in Groq's words."""
    return Problem(
        400,
        Code.UNSUPPORTED_VALUE,
        f"The model `{model_id}` does not support {_WORDS[endpoint]}",
        param="model",
        retry=False,
    )
