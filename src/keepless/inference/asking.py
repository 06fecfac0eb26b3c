"""What is asked, and who is told: the values between a gateway and the way of a request.

Holds: `Ask` (a validated request on its way), `Speaker` (its client, in the client's wire format), `Tokens`, `Ending`,
`MalformedError`, `EngineFailedError`. Leaves out: engines (backend), what happens (pipeline).
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from keepless.accounts.principal import Principal
from keepless.config import Endpoint
from keepless.content import Content
from keepless.errors import KeeplessError, Problem
from keepless.ids import Id
from keepless.inference.router import Route
from keepless.inference.target import Target
from keepless.policy.controls import RequestControls
from keepless.usage.record import Phase, Sketch

__all__ = [
    "JSON_BODY",
    "NO_TOKENS",
    "SSE_ANSWER",
    "Ask",
    "Ending",
    "EngineFailedError",
    "MalformedError",
    "Speaker",
    "Tokens",
]


class Tokens:
    """What an answer cost; `audio_ms`: milliseconds of audio heard or spoken."""

    __slots__ = ("audio_ms", "cached", "completion", "prompt")

    def __init__(self, prompt: int, completion: int, cached: int, audio_ms: int = 0) -> None:
        self.prompt: Final = prompt
        self.completion: Final = completion
        self.cached: Final = cached
        self.audio_ms: Final = audio_ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and self._counts() == other._counts()

    def __hash__(self) -> int:
        return hash(self._counts())

    def __repr__(self) -> str:
        return f"Tokens{self._counts()}"

    def _counts(self) -> tuple[int, int, int, int]:
        return self.prompt, self.completion, self.cached, self.audio_ms


JSON_BODY: Final = b"application/json"
SSE_ANSWER: Final = b"text/event-stream"
NO_TOKENS: Final = Tokens(0, 0, 0)
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS  # looked up once: a member of an enum costs ten times a name


class Ending(Enum):
    """How a stream ended."""

    COMPLETE = "complete"
    CUT = "cut"  # without its last event
    FAILED = "failed"  # the engine said so within the stream


class MalformedError(KeeplessError):
    """The bytes are no answer."""


class EngineFailedError(KeeplessError):
    """The bytes are an answer, which says that the engine failed."""


class Ask:
    """A validated request. `began` is `time.perf_counter_ns()` at its arrival; `path` is the engine's.

    `body` calls the model by the first upstream's name; `renamed` makes it for one that has a name of its own.
    `batch`: a line of a batch, which is never captured (its error file has it). `content_type` is that of `body`;
    `answered_as`: how the content type of an answer begins that is streamed.
    """

    __slots__ = (
        "answered_as",
        "batch",
        "began",
        "body",
        "bytes_in",
        "content_type",
        "controls",
        "endpoint",
        "path",
        "principal",
        "received",
        "renamed",
        "request_id",
        "route",
        "stream",
    )

    def __init__(
        self,
        *,
        request_id: Id,
        endpoint: Endpoint,
        principal: Principal,
        route: Route,
        path: str,
        body: Content,  # for the engine
        received: Content,  # as it came
        stream: bool,
        controls: RequestControls,
        bytes_in: int,
        began: int,
        batch: bool = False,
        content_type: bytes = JSON_BODY,
        answered_as: bytes | tuple[bytes, ...] = SSE_ANSWER,
        renamed: Callable[[str], Content] | None = None,
    ) -> None:
        self.request_id: Final = request_id
        self.endpoint: Final = endpoint
        self.principal: Final = principal
        self.route: Final = route
        self.path: Final = path
        self.body: Final = body
        self.received: Final = received
        self.stream: Final = stream
        self.controls: Final = controls
        self.bytes_in: Final = bytes_in
        self.began: Final = began
        self.batch: Final = batch
        self.content_type: Final = content_type
        self.answered_as: Final = answered_as
        self.renamed: Final = renamed

    @property
    def never_kept(self) -> bool:
        """Whether nothing of it is ever captured, whatever happens (DECISIONS 3 and 17)."""
        return self.batch or self.endpoint is _EMBEDDINGS

    def body_for(self, target: Target) -> Content:
        """What is sent to a target: the same bytes for all that call the model by the same name."""
        if self.renamed is None or target.name == self.route.targets[0].name:
            return self.body
        return self.renamed(target.name or self.route.model.id)


class Speaker:
    """The client's side of one request, in its wire format. After the client left, nothing that is said is heard."""

    __slots__ = ("bytes_out", "tokens")

    bytes_out: int
    tokens: Tokens

    def stream(self, data: bytes, retention: bytes) -> bool:
        """Send what is whole of a stream; True once the answer has begun (with `retention`, which then stays).

        Raises `MalformedError`.
        """
        raise NotImplementedError

    def stream_ended(self) -> Ending:
        """Judge the end of a stream; sets `tokens`."""
        raise NotImplementedError

    def close(self, kept: bytes | None) -> None:
        """End a stream; `kept` is what the retention header could not know yet."""

    def read(self, body: bytes) -> None:
        """Read a whole answer; sets `tokens`. Raises `MalformedError`."""

    def answer(self, status: int, body: bytes, retention: bytes) -> None:
        """Send a whole answer, or an engine's refusal (4xx)."""

    def fail(self, problem: Problem, retention: bytes, kept: bytes | None) -> None:
        """Send an error: as the answer, or as the last event of a stream that has begun (`kept` as in `close`)."""

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """The shape of the request without its content."""
        raise NotImplementedError

    def settle(self, tokens: Tokens) -> None:
        """The request is over and cost this much (rate limits)."""
