"""What the prover sends to embeddings and speech (see cases).

Holds: `fault_media_cases` (upstreams that fail on purpose), `embedded_media_cases` (the embedded voice and the embedded
model of vectors), and the names of the models that both need. Leaves out: transcriptions.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from keepless.policy.decision import Reason
from keepless.prover.cases import Case, Mark
from keepless.prover.upstream import Temper
from keepless.prover.wire import Manner, Request

__all__ = ["EMBEDDER", "FAILING", "VOICE", "embedded_media_cases", "fault_media_cases"]

VOICE: Final = "embedded-voice"
EMBEDDER: Final = "embedded-vectors"
# Model -> how its upstream behaves, and which endpoint it serves.
FAILING: Final[Mapping[str, tuple[Temper, str]]] = {
    "broken-voice": (Temper.BROKEN, "audio.speech"),
    "wrong-voice": (Temper.NOT_JSON, "audio.speech"),
    "broken-vectors": (Temper.BROKEN, "embeddings"),
    "wrong-vectors": (Temper.NOT_JSON, "embeddings"),
}
_SPEECH: Final = "/v1/audio/speech"
_EMBEDDINGS: Final = "/v1/embeddings"


def fault_media_cases() -> list[Case]:
    """Upstreams that fail: of speech a failed request may be kept, of embeddings nothing ever."""
    bad = frozenset({502})
    return [
        Case("speech, upstream: broken", _speech("broken-voice"), bad, Reason.UPSTREAM_5XX),
        Case("speech, upstream: no sound", _speech("wrong-voice"), bad, Reason.UPSTREAM_MALFORMED),
        Case("speech, store: false", _speech("broken-voice", store=False), bad, forbids=True),
        Case("embeddings, upstream: broken", _embeddings("broken-vectors"), bad),
        Case("embeddings, upstream: no vectors", _embeddings("wrong-vectors"), bad),
    ]


def embedded_media_cases() -> list[Case]:
    """The ways of the embedded engines."""
    good, bad = frozenset({200}), frozenset({400})
    return [
        Case("speech", _speech(VOICE), good, streamed=True),
        Case("speech, events", _speech(VOICE, stream_format="sse"), good, streamed=True),
        Case("speech, client leaves", _speech(VOICE, Manner.LEAVES, times=60), good, streamed=True),
        Case("speech, unknown voice", _marked(_SPEECH, {"model": VOICE, "input": "Hello."}, "voice"), bad),
        Case("embeddings", _embeddings(EMBEDDER), good),
        Case("embeddings, too long", _embeddings(EMBEDDER, times=300), bad),
        Case(
            "embeddings, unknown format",
            _marked(_EMBEDDINGS, {"model": EMBEDDER, "input": "a"}, "encoding_format"),
            bad,
        ),
    ]


def _speech(model: str, manner: Manner = Manner.WHOLE, *, times: int = 1, **more: Any) -> Callable[[Mark], Request]:
    def make(mark: Mark) -> Request:
        text = f"Hello {mark('text to be spoken')}. " + "And so on. " * (times - 1)
        body = {"model": model, "input": text, "voice": "slt", "response_format": "wav", **more}
        return Request(
            f"{_SPEECH}?{mark('query')}", json.dumps(body).encode(), {"user-agent": mark("user agent")}, manner
        )

    return make


def _embeddings(model: str, *, times: int = 1) -> Callable[[Mark], Request]:
    def make(mark: Mark) -> Request:
        inputs = [mark("first text"), mark("second text") + " and so on" * (times - 1)]
        body = {"model": model, "input": inputs, "user": mark("user")}
        return Request(f"{_EMBEDDINGS}?{mark('query')}", json.dumps(body).encode(), {"user-agent": mark("user agent")})

    return make


def _marked(path: str, body: Mapping[str, Any], member: str) -> Callable[[Mark], Request]:
    """A request that is refused for a member that is a marker."""
    return lambda mark: Request(path, json.dumps({**body, member: mark(member)}).encode())
