"""What every engine owes the pipeline, held against the embedded model and an upstream over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import uvloop

from keepless.config import UpstreamConfig
from keepless.inference.backend import Backend, FailureKind
from keepless.inference.embedded.llama import LlamaBackend
from keepless.inference.upstream import UpstreamBackend
from tests.support.engine import LONG, MODEL, chat, engine
from tests.support.sinks import Recorder, ask, call
from tests.support.upstream import Behaviour, MockUpstream


@dataclass
class Subject:
    """An engine that runs, a way to make a backend for it, and what it is called."""

    make: Callable[[], Backend]
    nothing_there: Callable[[], Backend]
    slow: dict  # parameters of a request whose stream lasts
    gone: FailureKind  # what a failed connect means
    question: str = "What is the capital of France? One sentence."


@pytest.fixture(scope="module", params=["llama", "openai"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    if request.param == "llama":
        folder = tmp_path_factory.mktemp("llama")
        small = msgspec.structs.replace(MODEL, parallel=1, queue=1)
        with engine(folder, small) as process:
            yield Subject(
                make=lambda: LlamaBackend(small, process.socket, process.key),
                nothing_there=lambda: LlamaBackend(small, Path(folder, "none.sock"), process.key),
                slow={"response_format": LONG},
                gone=FailureKind.BUSY,
            )
    else:
        with MockUpstream() as mock:
            mock.set("slow", Behaviour.SLOW_STREAM)
            upstream = UpstreamConfig(base_url=mock.base_url, max_connections=1)
            closed = msgspec.structs.replace(upstream, base_url="http://127.0.0.1:1/v1")
            yield Subject(
                make=lambda: UpstreamBackend(upstream),
                nothing_there=lambda: UpstreamBackend(closed),
                slow={"model": "slow"},
                gone=FailureKind.UNREACHABLE,
            )


def on(subject: Subject, test: Callable[[Backend], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def backend() -> AsyncIterator[Backend]:
        made = subject.make()
        try:
            yield made
        finally:
            await made.close()

    async def main() -> None:
        async with backend() as made:
            await test(made)

    uvloop.run(main())


def test_a_whole_answer(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        recorder = await ask(backend, chat(max_tokens=20))
        assert recorder.calls == ["head", "data", "end"]
        assert (recorder.status, recorder.content_type) == (200, b"application/json")
        answer = recorder.json
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["content"]
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > usage["prompt_tokens"] > 0
        assert backend.healthy

    on(subject, test)


def test_a_stream_ends_with_done_and_says_its_usage(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        body = chat(max_tokens=20, stream=True, stream_options={"include_usage": True})
        recorder = await ask(backend, body)
        assert (recorder.status, recorder.content_type) == (200, b"text/event-stream")
        *chunks, last = recorder.events
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] > 0

    on(subject, test)


def test_nobody_is_told_before_start_has_returned(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        recorder = Recorder()
        backend.start(call(chat(max_tokens=1)), recorder)
        assert recorder.calls == []
        await recorder.over()

    on(subject, test)


def test_cancel_is_silent_idempotent_and_frees_the_engine(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        recorder = Recorder()
        exchange = backend.start(call(chat(stream=True, **subject.slow)), recorder)
        await recorder.until(lambda r: r.body.count(b"data:") > 3)
        exchange.cancel()
        exchange.cancel()
        recorder.forbidden = True
        # One slot, one connection: this is answered only if both are free again.
        assert (await ask(backend, chat(max_tokens=2))).calls[-1] == "end"

    on(subject, test)


def test_cancel_before_anything_was_sent(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        recorder = Recorder()
        recorder.forbidden = True
        backend.start(call(chat()), recorder).cancel()
        assert (await ask(backend, chat(max_tokens=2))).calls[-1] == "end"

    on(subject, test)


def test_pause_stops_what_the_sink_is_told_and_resume_goes_on(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        recorder = Recorder()
        exchange = backend.start(call(chat(stream=True, **subject.slow)), recorder)
        await recorder.until(lambda r: r.body.count(b"data:") > 3)
        exchange.pause()
        exchange.pause()
        held = len(recorder.body)
        await asyncio.sleep(0.4)
        assert len(recorder.body) == held
        exchange.resume()
        await recorder.until(lambda r: len(r.body) > held)
        exchange.cancel()

    on(subject, test)


def test_what_policy_withdrew_is_never_sent(subject: Subject) -> None:
    async def test(backend: Backend) -> None:
        for _ in range(2):  # without and with a connection that is free
            recorder = await ask(backend, chat(), permitted=lambda: False)
            assert (recorder.kind, recorder.calls) == (FailureKind.WITHDRAWN, ["failure"])
            await ask(backend, chat(max_tokens=1))

    on(subject, test)


def test_an_engine_that_is_not_there(subject: Subject) -> None:
    async def main() -> None:
        backend = subject.nothing_there()
        recorder = await ask(backend, chat())
        assert (recorder.kind, recorder.calls) == (subject.gone, ["failure"])
        assert not backend.healthy
        await backend.close()

    uvloop.run(main())


def test_close_tells_everybody_once(subject: Subject) -> None:
    async def main() -> None:
        backend = subject.make()
        running, waiting = Recorder(), Recorder()
        backend.start(call(chat(stream=True, **subject.slow)), running)
        await running.until(lambda r: r.calls)
        backend.start(call(chat()), waiting)
        await backend.close()
        assert running.calls[-1] == "failure"
        assert waiting.calls == ["failure"]

    uvloop.run(main())
