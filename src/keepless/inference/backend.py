"""What answers a request: the Protocol of every engine, in callbacks because a task a request would cost more than the
rest of the request path together.

Holds: `Call` (what is asked), `Sink` (who is told), `Exchange` (the running answer), `Backend`, `Failure`, `Timings`.
Leaves out: validation (gateway), routing, policy. An engine keeps nothing: no prompt on disk, in a log, in a cache that
another organization's request could meet.

Order of a `Sink`'s calls: at most one `on_head`, any number of `on_data`, then exactly one of `on_end` or `on_failure`.
After `Exchange.cancel()` none. All on the event loop's thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from keepless.content import Content
from keepless.errors import Code
from keepless.policy.decision import Reason

__all__ = ["Backend", "Call", "Exchange", "Failure", "FailureKind", "Sink"]


class FailureKind(StrEnum):
    """How an engine failed. `reason` is the capture reason when the failure degrades reliability (DECISIONS 3)."""

    UNREACHABLE = "unreachable"  # refused before a byte was sent: not captured
    BUSY = "busy"  # our own queue is full, or the engine is being restarted
    CRASHED = "crashed"
    TIMEOUT_FIRST_BYTE = "timeout_first_byte"
    TIMEOUT_IDLE = "timeout_idle"
    CUT = "cut"
    MALFORMED = "malformed"
    MISSING = "missing"  # an embedded engine whose program or weights are not on this machine
    WITHDRAWN = "withdrawn"  # policy no longer permits this engine; not a byte was sent

    @property
    def reason(self) -> Reason | None:
        """The reason code of a capture, or None when policy has no reason to keep this."""
        return _REASON.get(self)

    @property
    def code(self) -> Code:
        """What the client and the usage record are told."""
        return _CODE[self]


_REASON = {
    FailureKind.CRASHED: Reason.ENGINE_CRASH,
    FailureKind.TIMEOUT_FIRST_BYTE: Reason.UPSTREAM_TIMEOUT,
    FailureKind.TIMEOUT_IDLE: Reason.UPSTREAM_TIMEOUT,
    FailureKind.CUT: Reason.UPSTREAM_CUT,
    FailureKind.MALFORMED: Reason.UPSTREAM_MALFORMED,
}
_CODE = {
    FailureKind.UNREACHABLE: Code.UPSTREAM_UNREACHABLE,
    FailureKind.BUSY: Code.ENGINE_UNAVAILABLE,
    FailureKind.CRASHED: Code.ENGINE_FAILED,
    FailureKind.TIMEOUT_FIRST_BYTE: Code.UPSTREAM_TIMEOUT,
    FailureKind.TIMEOUT_IDLE: Code.UPSTREAM_TIMEOUT,
    FailureKind.CUT: Code.UPSTREAM_CUT,
    FailureKind.MALFORMED: Code.UPSTREAM_MALFORMED,
    FailureKind.MISSING: Code.ENGINE_UNAVAILABLE,
    FailureKind.WITHDRAWN: Code.UPSTREAM_RETENTION,
}


def _always() -> bool:
    return True


def _unmetered(prompt: int, completion: int, audio_ms: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no (complete) answer. No text of the engine's: only our own enum and, for BUSY, when to retry."""

    kind: FailureKind
    retry_after_s: int | None = None


class Call:
    """One request to an engine: our own re-encoding of the validated body (never the client's bytes or headers).

    `permitted` is asked at the very moment the first byte would be written, however long the call waited for a
    connection: False means that nothing is sent and the sink is told `WITHDRAWN` (DECISIONS 1). `metered` is told, at
    most once and before the end, what an answer cost that does not say so itself: tokens of the prompt and of the
    completion, milliseconds of audio.
    """

    __slots__ = ("body", "content_type", "headers", "metered", "path", "permitted", "request_id", "stream")

    def __init__(
        self,
        path: str,  # below the engine's base URL, e.g. "/chat/completions"
        body: Content,
        stream: bool,
        request_id: str,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),  # ours; none of the client's
        permitted: Callable[[], bool] = _always,
        metered: Callable[[int, int, int], None] = _unmetered,
        content_type: bytes = b"application/json",  # of the body; ours, never the client's field
    ) -> None:
        self.path: Final = path
        self.body: Final = body
        self.stream: Final = stream
        self.request_id: Final = request_id
        self.headers: Final = headers
        self.permitted: Final = permitted
        self.metered: Final = metered
        self.content_type: Final = content_type


class Sink(Protocol):
    """Who is told of the answer."""

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        """The engine's status line and the two headers that matter."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the body as they came (for a stream: whole or partial SSE events)."""

    def on_end(self) -> None:
        """The answer is complete."""

    def on_failure(self, failure: Failure) -> None:
        """There will be no (more) answer."""


class Exchange(Protocol):
    """A running answer."""

    def cancel(self) -> None:
        """Stop it at the engine too (the connection is closed). Idempotent; no sink call follows."""

    def pause(self) -> None:
        """Stop reading from the engine (the client is slow)."""

    def resume(self) -> None:
        """Go on reading."""


class Backend(Protocol):
    """An engine."""

    def start(self, call: Call, sink: Sink) -> Exchange:
        """Begin. Never blocks, never raises for an engine's fault: that is `sink.on_failure`."""

    @property
    def healthy(self) -> bool:
        """Whether it is worth asking."""

    async def close(self) -> None:
        """End every connection and process."""
