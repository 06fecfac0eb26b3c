"""The whole request path in one thread: a handler, the way, an engine that follows a script, a client that listens."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, cast

import msgspec

from keepless import config
from keepless.accounts.lease import Lease
from keepless.accounts.principal import Limits, OrganizationState, PolicyInForce, Principal, ProjectState
from keepless.accounts.tuned import Tuned
from keepless.config import Endpoint, Engine, ModelConfig, UpstreamRetention
from keepless.content import Content, Purpose
from keepless.gateway.audio_files import StoredAudio
from keepless.gateway.endpoints import handlers
from keepless.gateway.parser import Request
from keepless.gateway.reply import Reply
from keepless.gateway.tuned import TunedModels
from keepless.http.limits import RateLimits
from keepless.ids import Id, Prefix, mint
from keepless.incidents.afterwards import Afterwards, Cases
from keepless.incidents.capture import Incident
from keepless.incidents.reliability import Reliability
from keepless.inference.backend import Call, Failure, FailureKind, Sink
from keepless.inference.embedded.frames import Frames
from keepless.inference.router import Route, Router
from keepless.outbound.fetch import Fetcher
from keepless.pipeline import Way
from keepless.policy.controls import Controls, effective
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Discard, DiscardReason, Reason
from keepless.usage.ledger import Ledger
from keepless.usage.record import Record
from keepless.vault.rows import Kept
from tests.support.clock import FakeClock

KEY = "sk-keepless-test"
JSON = b"application/json"
SSE = b"text/event-stream"
ORGANIZATION, PROJECT, API_KEY = mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT), mint(Prefix.API_KEY)
OK = b'{"id":"c","choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}'
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n',
    b"data: [DONE]\n\n",
)

NOTHING_SET, UNLIMITED = Controls(), Limits()

Step = Callable[[Sink], None]


def head(status: int = 200, content_type: bytes = JSON, retry_after_s: int | None = None) -> Step:
    return lambda sink: sink.on_head(status, content_type, retry_after_s)


def data(piece: bytes) -> Step:
    return lambda sink: sink.on_data(piece)


def end() -> Step:
    return lambda sink: sink.on_end()


def fail(kind: FailureKind, retry_after_s: int | None = None) -> Step:
    return lambda sink: sink.on_failure(Failure(kind, retry_after_s))


def answer(body: bytes = OK, status: int = 200) -> list[Step]:
    return [head(status), data(body), end()]


def stream(events: Sequence[bytes] = EVENTS) -> list[Step]:
    return [head(200, SSE), *(data(event) for event in events), end()]


@dataclass
class FakeExchange:
    cancelled: bool = False
    paused: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


@dataclass
class FakeBackend:
    """Follows `script` when the loop next turns; a call that is cancelled hears nothing more."""

    script: list[Step] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    exchanges: list[FakeExchange] = field(default_factory=list)
    healthy: bool = True

    def start(self, call: Call, sink: Sink) -> FakeExchange:
        exchange = FakeExchange()
        self.calls.append(call)
        self.bodies.append(_decoded(call.body.reveal(Purpose.INFERENCE)))
        self.exchanges.append(exchange)
        asyncio.get_running_loop().call_soon(self._follow, sink, exchange)
        return exchange

    def _follow(self, sink: Sink, exchange: FakeExchange) -> None:
        for step in self.script:
            if not exchange.cancelled:
                step(sink)

    async def close(self) -> None: ...


def _decoded(body: bytes) -> Any:
    """JSON; a form as it is; the header and the content of a body in frames."""
    if body[:2] == b"--":
        return body
    if body[:1] == b"{":
        return msgspec.json.decode(body)
    return [payload for _, payload in Frames(1 << 20).feed(body)]


class FakeLease:
    """What the request path asks of a lease; `set` changes policy as a swap would."""

    def __init__(self) -> None:
        self.valid = True
        self.generation = 1
        self.asked_again = 0
        self.models: dict[str, Tuned] = {}
        self.set()

    def set(self, controls: Controls = NOTHING_SET, *, limits: Limits = UNLIMITED, region: str | None = None) -> None:
        self.generation += 1
        owner = OrganizationState(ORGANIZATION, self.generation, controls, limits, region)
        below = ProjectState(PROJECT, Controls(), effective(controls), Limits())
        self.known: Principal | None = Principal(API_KEY, owner, below)

    def principal(self, digest: bytes) -> Principal | None:
        return self.known if digest == sha256(KEY.encode()).digest() else None

    def refresh_soon(self) -> None:
        self.asked_again += 1

    def organization(self, organization_id: Id) -> OrganizationState | None:
        return self.known.organization if self.known and organization_id == ORGANIZATION else None

    def project(self, project_id: Id) -> ProjectState | None:
        return self.known.project if self.known and project_id == PROJECT else None

    def tuned(self, hexadecimal: str) -> Tuned | None:
        return self.models.get(hexadecimal)

    def tuned_of(self, project_id: Id) -> list[Tuned]:
        return [one for one in self.models.values() if one.project_id == project_id]

    def snapshot_effective(self, organization_id: Id, project_id: Id) -> PolicyInForce | None:
        if not self.valid or self.known is None:
            return None
        return PolicyInForce(self.known.project.effective, self.known.organization.epoch)


class FakeReliability:
    """Keeps everything, in memory, as `kept_of` says."""

    def __init__(self) -> None:
        self.incidents: list[tuple[Incident, Reason]] = []
        self.refuse: DiscardReason | None = None
        self.broken: Exception | None = None

    def consider(self, incident: Incident, reason: Reason) -> Kept | Discard:
        self.incidents.append((incident, reason))
        if self.broken is not None:
            raise self.broken
        return Discard(self.refuse) if self.refuse is not None else kept_of(incident, DataClass.RELIABILITY_LOG, reason)


class FakeCases:
    def __init__(self) -> None:
        self.keys: set[Id] = set()
        self.incidents: list[Incident] = []

    def watches(self, key_id: Id) -> bool:
        return key_id in self.keys

    def consider(self, incident: Incident) -> Kept | Discard:
        self.incidents.append(incident)
        return kept_of(incident, DataClass.ABUSE_LOG, Reason.ABUSE_CASE)


def kept_of(incident: Incident, data_class: DataClass, reason: Reason) -> Kept:
    created = incident.created_at_ms
    some = mint(Prefix.BLOB)
    return Kept(
        id=mint(Prefix.OBJECT),
        organization_id=incident.organization_id,
        project_id=incident.project_id,
        data_class=data_class,
        reason=reason,
        request_id=incident.request_id,
        epoch=7,
        created_at=created,
        expires_at=created + 30 * 86_400_000,
        size=1,
        location=some,
        blob=some,
        kek_id=some,
        wrapped_dek=b"",
    )


class FakeReply(Reply):
    """A client that hears everything at once."""

    def __init__(self) -> None:
        self.status = 0
        self.head = b""
        self.body = b""
        self.closed = False
        self.aborted = False
        self.done = asyncio.Event()
        self.on_disconnect = self.on_pause = self.on_resume = None

    def full(self, status: int, headers: bytes, body: bytes) -> None:
        if not self.closed:
            self.status, self.head, self.body = status, headers, body
            self._close()

    def stream_start(self, status: int, headers: bytes, length: int | None = None) -> None:
        self.status, self.head = status, headers

    def data(self, data: bytes) -> None:
        if not self.closed:
            self.body += data

    def finish(self) -> None:
        self._close()

    def abort(self) -> None:
        self.aborted = True
        self._close()

    def leave(self) -> None:
        self.closed = True
        if self.on_disconnect is not None:
            self.on_disconnect()
        self.done.set()

    def _close(self) -> None:
        self.closed = True
        self.done.set()

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("ascii").split("\r\n")[:-1]
        return dict(line.split(": ", 1) for line in lines)

    @property
    def error(self) -> dict[str, Any]:
        return cast("dict[str, Any]", msgspec.json.decode(self.body)["error"])


class Rows(list[Record]):
    """A ledger that is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = asyncio.Event()

    def add(self, record: Record) -> None:
        self.append(record)
        self.first.set()


MODELS = (
    ModelConfig(id="zero", engine=Engine.OPENAI, base_url="http://x", retention=UpstreamRetention.ZERO, region="us"),
    ModelConfig(id="logs", engine=Engine.OPENAI, base_url="http://x", retention=UpstreamRetention.LOGS_30D),
    ModelConfig(id="unknown", engine=Engine.OPENAI, base_url="http://x", upstream_model="its-own-name"),
    ModelConfig(id="embedded", engine=Engine.LLAMA, retention=UpstreamRetention.ZERO),
    ModelConfig(
        id="native",
        engine=Engine.OPENAI,
        base_url="http://x",
        retention=UpstreamRetention.ZERO,
        native_responses=True,
        upstream_model="its-own-name",
    ),
    ModelConfig(
        id="transcriber",
        engine=Engine.OPENAI,
        base_url="http://x",
        retention=UpstreamRetention.ZERO,
        endpoints=[Endpoint.TRANSCRIPTIONS],
    ),
    ModelConfig(
        id="embedder",
        engine=Engine.OPENAI,
        base_url="http://x",
        upstream_model="its-own-name",
        endpoints=[Endpoint.EMBEDDINGS],
    ),
    ModelConfig(id="minilm", engine=Engine.MINILM, retention=UpstreamRetention.ZERO),
    ModelConfig(
        id="narrator",
        engine=Engine.OPENAI,
        base_url="http://x",
        upstream_model="its-own-name",
        endpoints=[Endpoint.SPEECH],
    ),
    ModelConfig(id="flite", engine=Engine.FLITE, retention=UpstreamRetention.ZERO),
)

# What an endpoint is asked where a test does not care.
ORDINARY: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"messages": [{"role": "user", "content": "QUESTION"}]},
    Endpoint.RESPONSES: {"input": "QUESTION"},
    Endpoint.INPUT_TOKENS: {"input": "QUESTION"},
    Endpoint.EMBEDDINGS: {"input": "QUESTION"},
    Endpoint.SPEECH: {"input": "QUESTION", "voice": "slt"},
}


class Harness:
    """One process's request path. Make and use it inside a running loop."""

    def __init__(
        self,
        *script: Step,
        capture_bytes: int = 8_000_000,
        routes: Sequence[Route] = (),
        fetcher: Fetcher | None = None,
        stored: StoredAudio | None = None,
    ) -> None:
        self.backend = FakeBackend(list(script))
        self.lease = FakeLease()
        self.reliability = FakeReliability()
        self.cases = FakeCases()
        self.rows = Rows()
        self.clock = FakeClock()
        self.executor = ThreadPoolExecutor(1)
        lease, ledger = cast("Lease", self.lease), cast("Ledger", self.rows)
        afterwards = Afterwards(
            self.clock, self.executor, cast("Reliability", self.reliability), cast("Cases", self.cases)
        )
        self.way = Way(lease, ledger, self.clock, afterwards, capture_bytes=capture_bytes)
        self.rates = RateLimits(self.clock)
        router = Router(routes or [Route(model, self.backend) for model in MODELS])
        self.labels: dict[Id, tuple[int | None, Content | None]] = {}  # of tuned models, by object
        self.labels_read = 0
        self.tuned = TunedModels(
            lease,
            self.clock,
            router,
            labels=self._labels,
            backend=lambda tuned, base: self.backend,
            executor=self.executor,
        )
        self.handlers = handlers(
            config.Limits(),
            lease=lease,
            router=router,
            way=self.way,
            ledger=ledger,
            clock=self.clock,
            rates=self.rates,
            fetcher=fetcher,
            stored=stored,
            tuned=self.tuned,
        )
        self.handler = self.handlers[Endpoint.CHAT]

    def _labels(self, tuned: Iterable[Tuned]) -> dict[Id, tuple[int | None, Content | None]]:
        self.labels_read += 1
        return {one.object_id: self.labels[one.object_id] for one in tuned if one.object_id in self.labels}

    def send(
        self,
        body: bytes | dict[str, Any],
        *,
        key: str | None = KEY,
        headers: Sequence[tuple[bytes, bytes]] = (),
        to: Endpoint = Endpoint.CHAT,
        reply: FakeReply | None = None,
    ) -> FakeReply:
        """Hand a request over; the answer comes as the loop turns."""
        lines = [*headers] if key is None else [*headers, (b"authorization", b"Bearer " + key.encode())]
        request = Request(b"POST", b"/v1/chat/completions", b"", lines, 1)
        request.body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        request.bytes_in = len(request.body)
        reply = reply or FakeReply()
        self.handlers[to].handle(request, reply)
        return reply

    async def ask(self, more: dict[str, Any] | None = None, **how: Any) -> FakeReply:
        """The answer to an ordinary request with `more` members."""
        body = {"model": "zero", **ORDINARY[how.get("to", Endpoint.CHAT)], **(more or {})}
        reply = self.send(body, **how)
        await asyncio.wait_for(reply.done.wait(), 10)
        return reply

    def close(self) -> None:
        self.executor.shutdown()


def asked(*script: Step, more: dict[str, Any] | None = None, before: Callable[[Harness], None] = lambda _: None,
          **how: Any) -> tuple[FakeReply, Harness]:  # fmt: skip
    """One request through a fresh path: the answer, and the path to look into."""

    async def main() -> tuple[FakeReply, Harness]:
        harness = Harness(*script)
        before(harness)
        try:
            return await harness.ask(more, **how), harness
        finally:
            harness.close()

    return asyncio.run(main())
