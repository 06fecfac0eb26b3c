"""The models of the prover's own deployment: each behaves as its name says.

Holds: `models_of` (inference), `batch_models`, `patience`. Leaves out: how an upstream behaves (upstream), questions.
"""

from typing import Any, Final

from keepless.prover import cases as table
from keepless.prover import media_cases as media
from keepless.prover import response_cases
from keepless.prover import spoken_cases as aloud
from keepless.prover.feature_cases import model_of
from keepless.prover.upstream import Temper

__all__ = ["EMBEDDED", "batch_models", "models_of", "patience"]

EMBEDDED: Final = "embedded"
_PATIENCE: Final = {"first_byte_timeout": 60.0, "idle_timeout": 60.0, "connect_timeout": 5.0}
# Only what never comes is not waited for: all else may be slow on a busy machine.
_IMPATIENCE: Final[dict[Temper, dict[str, float]]] = {
    Temper.LATE: {"first_byte_timeout": 0.3},
    Temper.STUCK: {"idle_timeout": 0.3},
}
_HEARING: Final = ["audio.transcriptions", "audio.translations"]


def models_of(base_url: str, *, embedded: bool) -> list[dict[str, Any]]:
    """Models of inference, of an upstream that behaves as it is asked to, and the embedded engines."""
    shared = {"engine": "openai", "retention": "zero"}
    models: list[dict[str, Any]] = [
        {"id": temper.value, "base_url": base_url, **shared, **patience(temper)} for temper in Temper
    ]
    models += [
        {**model, "id": response_cases.native(model["id"]), "upstream_model": model["id"], "native_responses": True}
        for model in models
    ]
    # Nobody can listen on port 1 of loopback without being the super-user.
    models.append({"id": table.UNREACHABLE, "base_url": "http://127.0.0.1:1/v1", **shared, **_PATIENCE})
    for name, (temper, endpoint) in media.FAILING.items():
        behaves = {"base_url": base_url, "upstream_model": temper.value, "endpoints": [endpoint]}
        models.append({"id": name, **behaves, **shared, **_PATIENCE})
    for name, temper in aloud.FAILING.items():
        behaves = {"base_url": base_url, "upstream_model": temper.value}
        models.append({"id": name, **behaves, "endpoints": _HEARING, **shared, **_PATIENCE})
    if embedded:
        models.append({"id": aloud.MODEL, "engine": "whisper", "threads": 1, "parallel": 1})
        models += [{"id": media.VOICE, "engine": "flite"}, {"id": media.EMBEDDER, "engine": "minilm"}]
        models.append({"id": EMBEDDED, "engine": "llama", "context_window": 2048, "max_completion_tokens": 2048})
    return models


def patience(temper: Temper) -> dict[str, float]:
    """How long an upstream of that temper is waited for."""
    return _PATIENCE | _IMPATIENCE.get(temper, {})


def batch_models(base_url: str) -> list[dict[str, Any]]:
    """Models of batches ask an upstream of their own, so that markers in its answers are of batches."""
    return [
        {
            "id": model_of(temper),
            "engine": "openai",
            "retention": "zero",
            "base_url": base_url,
            "upstream_model": temper.value,
            **patience(temper),
        }
        for temper in Temper
    ]
