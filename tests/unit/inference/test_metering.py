"""The row of a request that was on its way."""

import time

from keepless.config import Engine, ModelConfig, UpstreamRetention
from keepless.content import Content
from keepless.errors import Code
from keepless.ids import Prefix, mint
from keepless.inference.asking import Ask, Tokens
from keepless.inference.metering import record_of
from keepless.inference.router import Route
from keepless.policy.controls import NO_REQUEST, Source
from keepless.policy.decision import Discard, DiscardReason
from keepless.usage.record import Endpoint, Outcome, Phase, Sketch
from keepless.usage.record import Route as RouteKind
from tests.support.usage import shown
from tests.support.way import FakeBackend, FakeLease


def ask_of(engine: Engine) -> Ask:
    principal = FakeLease().known
    assert principal is not None
    content = Content(b"MARKER")
    model = ModelConfig(id="m", engine=engine, base_url="http://x", retention=UpstreamRetention.LOGS_30D)
    return Ask(
        request_id=mint(Prefix.REQUEST),
        endpoint=Endpoint.CHAT,
        principal=principal,
        route=Route(model, FakeBackend()),
        path="/chat/completions",
        body=content,
        received=content,
        stream=True,
        controls=NO_REQUEST,
        bytes_in=11,
        began=time.perf_counter_ns() - 5_000_000,
    )


def test_a_failure_and_a_success() -> None:
    ask = ask_of(Engine.OPENAI)
    discard = Discard(DiscardReason.OPTED_OUT, Source.PROJECT)
    failed = record_of(
        ask, at_ms=1, status=502, code=Code.UPSTREAM_CUT, tokens=Tokens(1, 2, 3), first=ask.began + 2_000_000,
        bytes_out=9, outcome=Outcome.REFUSED, discard=discard, object_id=None,
        upstream=UpstreamRetention.LOGS_30D, sketch=Sketch(phase=Phase.ANSWER),
    )  # fmt: skip
    assert (failed.prompt_tokens, failed.completion_tokens, failed.cached_tokens) == (1, 2, 3)
    assert (failed.first_byte_us, failed.latency_us >= 5000) == (2000, True)
    assert (failed.discard, failed.source) == (DiscardReason.OPTED_OUT, Source.PROJECT)
    assert (failed.route, failed.upstream, failed.streamed) == (RouteKind.UPSTREAM, UpstreamRetention.LOGS_30D, True)
    assert (failed.bytes_in, failed.bytes_out, failed.epoch) == (11, 9, ask.principal.organization.epoch)

    object_id = mint(Prefix.OBJECT)
    kept = record_of(
        ask_of(Engine.LLAMA), at_ms=1, status=200, code=None, tokens=Tokens(0, 0, 0), first=0, bytes_out=0,
        outcome=Outcome.CAPTURED, discard=None, object_id=object_id, upstream=UpstreamRetention.ZERO, sketch=None,
    )  # fmt: skip
    assert (kept.object_id, kept.first_byte_us, kept.route) == (object_id, 0, RouteKind.EMBEDDED)
    assert "MARKER" not in shown(kept)
