"""The inference endpoints of a process: which path is answered by which family.

Holds: `PATHS` and `handlers` (one handler an endpoint, for HTTP and for lines of batches alike), `fast_paths`,
`other_methods`. Leaves out: what is not inference (asgi), what an endpoint does (handler and each family).
"""

from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from keepless.accounts.lease import Lease
from keepless.clock import Clock
from keepless.config import Endpoint, Limits
from keepless.gateway.audio import TranscriptionFamily, TranslationFamily
from keepless.gateway.audio_files import StoredAudio
from keepless.gateway.audio_urls import AudioHandler
from keepless.gateway.chat import ChatFamily
from keepless.gateway.embeddings import EmbeddingFamily
from keepless.gateway.handler import InferenceHandler
from keepless.gateway.reply import FastHandler
from keepless.gateway.responses import InputTokenFamily, ResponseFamily
from keepless.gateway.speech import SpeechFamily
from keepless.gateway.tuned import TunedModels
from keepless.gateway.watch import Watch
from keepless.http.limits import RateLimits
from keepless.inference.router import Router
from keepless.outbound.fetch import Fetcher
from keepless.pipeline import Way
from keepless.usage.ledger import Ledger

__all__ = ["BASES", "PATHS", "Handlers", "body_limits", "fast_paths", "handlers", "other_methods"]

BASES: Final = ("/v1", "/openai/v1")
PATHS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "/chat/completions",
    Endpoint.RESPONSES: "/responses",
    Endpoint.INPUT_TOKENS: "/responses/input_tokens",
    Endpoint.TRANSCRIPTIONS: "/audio/transcriptions",
    Endpoint.TRANSLATIONS: "/audio/translations",
    Endpoint.EMBEDDINGS: "/embeddings",
    Endpoint.SPEECH: "/audio/speech",
}
_FAMILIES: Final = (ChatFamily, ResponseFamily, InputTokenFamily, EmbeddingFamily, SpeechFamily)
_HEARING: Final = (TranscriptionFamily, TranslationFamily)
_FORM_BYTES: Final = 64 * 1024  # of a form around its file

Handlers = Mapping[Endpoint, InferenceHandler[Any, Any]]


def handlers(
    limits: Limits,
    *,
    lease: Lease,
    router: Router,
    way: Way,
    ledger: Ledger,
    clock: Clock,
    rates: RateLimits,
    watch: Watch | None = None,
    fetcher: Fetcher | None = None,
    stored: StoredAudio | None = None,
    tuned: TunedModels | None = None,
) -> Handlers:
    """One handler for each endpoint.

    `fetcher`: who fetches audio that requests name by url; `stored`: who reads audio that lines of batches name by the
    id of a file; None: nobody.
    """
    parts: dict[str, Any] = {
        "lease": lease, "router": router, "way": way, "ledger": ledger, "clock": clock, "rates": rates, "watch": watch,
        "tuned": tuned,
    }  # fmt: skip
    found: dict[Endpoint, InferenceHandler[Any, Any]] = {}
    for make in _FAMILIES:
        family: Any = make(limits.json_depth)
        found[family.endpoint] = InferenceHandler(family, **parts)
    for hear in _HEARING:
        family = hear(limits.json_depth, limits.audio_bytes, fetcher)
        handler = AudioHandler(family, **parts)
        handler.fetcher, handler.stored = fetcher, stored
        found[family.endpoint] = handler
    return found


def body_limits(limits: Limits) -> dict[bytes, int]:
    """Largest bodies, in bytes, of the paths that take larger ones than others: audio, also as base64 in JSON."""
    largest = max(limits.body_bytes, limits.audio_bytes * 4 // 3 + _FORM_BYTES)
    hearing = (Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS)
    return {f"{base}{PATHS[endpoint]}".encode(): largest for endpoint in hearing for base in BASES}


def fast_paths(found: Handlers) -> dict[bytes, FastHandler]:
    """What the server answers without the application: the endpoints below both bases."""
    return {f"{base}{PATHS[endpoint]}".encode(): handler for endpoint, handler in found.items() for base in BASES}


class _PostOnly:
    """An ASGI application, so that it is given every method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(405, headers={"allow": "POST"})


def other_methods() -> list[BaseRoute]:
    """What the application answers below the fast paths, whose POST never reaches it: 405."""
    return [Route(f"{base}{path}", _PostOnly(), include_in_schema=False) for path in PATHS.values() for base in BASES]
