"""The engine's process and the way to it: crashes, queues, refusals, and that nothing of one request meets another."""

import asyncio
import io
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import msgspec
import pytest
import uvloop

from keepless import log
from keepless.content import Content
from keepless.errors import ConfigError
from keepless.inference.backend import Call, Failure, FailureKind
from keepless.inference.embedded import dialect
from keepless.inference.embedded.engine import Word
from keepless.inference.embedded.llama import LlamaBackend, LlamaProcess
from tests.support.engine import LONG, MODEL, chat, cpu_ticks, engine
from tests.support.sinks import Recorder, ask, call

SECRET = "zebrafish-quartz-7431"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaProcess]:
    with engine(tmp_path_factory.mktemp("llama")) as process:
        yield process


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What the log says meanwhile."""
    stream = io.StringIO()
    before = log._sink.stream
    log.redirect(stream)
    yield stream
    log.redirect(before)


def backend(process: LlamaProcess, **changes) -> LlamaBackend:
    return LlamaBackend(msgspec.structs.replace(MODEL, **changes), process.socket, process.key)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(main: Coroutine) -> None:
    uvloop.run(main)


def test_killed_while_answering_it_is_started_again_and_nothing_of_the_request_is_said(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepless.inference.embedded.supervised._FIRST_DELAY_S", 2.0)
    with engine(tmp_path) as process:
        first = process.pid
        assert first is not None

        async def main() -> None:
            made = backend(process)
            running = Recorder()
            made.start(call(chat(SECRET, stream=True, response_format=LONG)), running)
            await running.until(lambda r: r.body.count(b"data:") > 2)
            os.kill(first, signal.SIGKILL)
            await running.over()
            assert (running.kind, running.calls) == (FailureKind.CRASHED, ["head", "data", "failure"])
            await asyncio.to_thread(until, lambda: process.pid != first)
            meanwhile = await ask(made, chat())
            assert meanwhile.kind is FailureKind.BUSY
            assert meanwhile.failure is not None
            assert meanwhile.failure.retry_after_s == 1
            assert await asyncio.to_thread(process.wait_ready, 60)
            assert (await ask(made, chat(max_tokens=3))).calls[-1] == "end"
            assert made.healthy
            await made.close()

        run(main())
        assert process.pid not in (None, first)
        assert process.restarts == 1
        lines = [msgspec.json.decode(line) for line in said.getvalue().splitlines()]
        assert [line["event"] for line in lines] == [
            "engine:process:started",
            "engine:process:died",
            "engine:process:started",
        ]
        assert SECRET not in said.getvalue()


@pytest.mark.parametrize("path", ["/chat/completions", "/chat/completions/input_tokens"])
def test_an_engine_that_still_reads_its_weights_is_busy_and_has_not_failed(tmp_path: Path, path: str) -> None:
    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
        writer.write(head + b"{}")
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_unix_server(loading, tmp_path / "engine.sock"):
            made, recorder = LlamaBackend(MODEL, tmp_path / "engine.sock", "key"), Recorder()
            body = msgspec.json.encode(chat())
            made.start(Call(path, Content(body), False, "req_" + "a" * 24), recorder)
            await recorder.over()
            assert recorder.calls == ["failure"]
            assert recorder.failure == Failure(FailureKind.BUSY, 1)
            await made.close()

    run(main())


def test_stop_ends_it_and_removes_the_socket(tmp_path: Path) -> None:
    with engine(tmp_path) as process:
        pid = process.pid
        assert pid is not None
        assert process.socket.exists()
        assert os.getpgid(pid) == pid  # a Ctrl-C at the terminal does not reach it
        process.stop()
        process.stop()
        assert not process.socket.exists()
        assert not process.ready
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_cancelled_request_costs_no_more_processor_time(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = backend(shared)
        running = Recorder()
        exchange = made.start(call(chat(stream=True, response_format=LONG)), running)
        await running.until(lambda r: r.body.count(b"data:") > 2)
        exchange.cancel()
        await made.close()

    run(main())
    assert shared.pid is not None
    deadline = time.monotonic() + 10
    while True:  # the whole answer would take far longer than this
        before = cpu_ticks(shared.pid)
        time.sleep(0.3)
        if cpu_ticks(shared.pid) == before:
            break
        assert time.monotonic() < deadline


def test_a_waiting_line_that_is_full_is_busy(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = backend(shared, parallel=1, queue=2)
        recorders = [Recorder() for _ in range(5)]
        exchanges = [made.start(call(chat(stream=True, response_format=LONG)), recorder) for recorder in recorders]
        for recorder in recorders[3:]:
            assert (await recorder.over()).kind is FailureKind.BUSY
        await recorders[0].until(lambda r: r.calls)
        assert recorders[1].calls == recorders[2].calls == []
        for exchange in exchanges:
            exchange.cancel()
        await made.close()

    run(main())


def test_several_workers_share_one_engine(shared: LlamaProcess) -> None:
    async def main() -> None:
        workers = [backend(shared) for _ in range(3)]
        asked = [ask(worker, chat(max_tokens=4), request_id=f"req_{n}") for n, worker in enumerate(workers * 3)]
        answers = await asyncio.gather(*asked)
        assert [answer.json["id"] for answer in answers] == [f"chatcmpl-req_{n}" for n in range(9)]
        for worker in workers:
            await worker.close()

    run(main())


def test_what_takes_a_gigabyte_more_than_the_engine_had_ends_alone(
    shared: LlamaProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "refuse_schema", lambda *_, **__: None)  # one that would be caught before
    endless = {"type": "object", "properties": {"a": {"type": "string", "minLength": 5, "maxLength": 2}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {**endless, "required": ["a"]}}}

    async def main() -> None:
        made = backend(shared)
        before = shared.pid
        recorder = await ask(made, chat(response_format=wanted, max_tokens=9))
        assert recorder.status == 400
        assert (await ask(made, chat(max_tokens=2))).status == 200
        assert shared.pid == before, "nobody else has noticed"
        await made.close()

    run(main())


def test_nothing_of_a_prompt_is_reused(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = backend(shared)
        for _ in range(3):
            usage = (await ask(made, chat(f"Repeat: {SECRET}", max_tokens=2))).json["usage"]
            assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
        await made.close()

    run(main())


def test_the_same_seed_gives_the_same_answer(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = backend(shared)
        texts = [
            (await ask(made, chat("Tell a story", max_tokens=12, temperature=1.5, seed=seed))).json["choices"][0]
            for seed in (7, 7, 8)
        ]
        assert texts[0] == texts[1] != texts[2]
        await made.close()

    run(main())


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (chat("word " * 5000), 400, "context_length_exceeded", "messages"),
        (chat("word " * 5000, stream=True), 400, "context_length_exceeded", "messages"),
        (chat(n=5), 400, "unsupported_value", "n"),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": SECRET}}}),
            400,
            "unsupported_value",
            "response_format",
        ),
    ],
)
def test_refusals_in_our_words(shared: LlamaProcess, body: dict, status: int, code: str, param: str) -> None:
    async def main() -> None:
        made = backend(shared)
        recorder = await ask(made, body)
        assert (recorder.status, recorder.content_type, recorder.calls) == (
            status,
            b"application/json",
            ["head", "data", "end"],
        )
        assert (recorder.json["error"]["code"], recorder.json["error"]["param"]) == (code, param)
        assert SECRET.encode() not in recorder.body
        await made.close()

    run(main())


def test_a_body_that_is_no_object(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = backend(shared)
        recorder = Recorder()
        made.start(Call("/chat/completions", Content(b'["' + SECRET.encode()), False, "req_x"), recorder)
        await recorder.over()
        assert (recorder.status, recorder.json["error"]["code"]) == (400, "invalid_json")
        assert SECRET.encode() not in recorder.body
        await made.close()

    run(main())


def test_a_wrong_key_is_a_fault_of_ours(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = LlamaBackend(MODEL, shared.socket, "not-the-key")
        assert (await ask(made, chat())).kind is FailureKind.CRASHED
        await made.close()

    run(main())


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("get_weather", "get_time")
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"get_time"}),
    ],
)
def test_a_forced_call_is_made(shared: LlamaProcess, choice: object, names: set[str], stream: bool) -> None:
    async def main() -> None:
        made = backend(shared)
        body = chat("What is the weather in Oslo?", tools=TOOLS, tool_choice=choice, max_tokens=200, stream=stream)
        recorder = await ask(made, body)
        if stream:
            first, last = recorder.events
            message, finish = first["choices"][0]["delta"], last["choices"][0]["finish_reason"]
        else:
            message, finish = recorder.json["choices"][0]["message"], recorder.json["choices"][0]["finish_reason"]
        (made_call,) = message["tool_calls"]
        assert finish == "tool_calls"
        assert made_call["function"]["name"] in names
        assert isinstance(msgspec.json.decode(made_call["function"]["arguments"])["city"], str)
        await made.close()

    run(main())


def test_json_mode_ends_by_itself(shared: LlamaProcess) -> None:
    async def main() -> None:
        made = backend(shared)
        body = chat("Give me JSON with the name and age of a person.", response_format={"type": "json_object"})
        recorder = await ask(made, body)
        (choice,) = recorder.json["choices"]
        assert choice["finish_reason"] == "stop"
        assert isinstance(msgspec.json.decode(choice["message"]["content"]), dict)
        await made.close()

    run(main())


# -- what the supervisor refuses ------------------------------------------------------------------------------------


def settled(model, tmp_path: Path) -> LlamaProcess:
    process = LlamaProcess(model, tmp_path / "run")
    process.start()
    assert not process.wait_ready(30)
    process.stop()
    return process


def test_weights_that_are_missing_end_it(tmp_path: Path, said: io.StringIO) -> None:
    process = settled(msgspec.structs.replace(MODEL, path=str(tmp_path / "none.gguf")), tmp_path)
    assert (process.word, process.restarts) == (Word.WEIGHTS_MISSING, 0)
    assert str(tmp_path) not in said.getvalue()


def test_weights_that_are_not_the_pinned_ones_end_it(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(b"GGUF and something else")
    monkeypatch.setattr("keepless.inference.embedded.llama.weights_of", lambda _: (str(changed), "0" * 64))
    assert settled(MODEL, tmp_path).word is Word.WEIGHTS_CHANGED


def test_a_file_that_is_no_model_is_tried_again(tmp_path: Path, said: io.StringIO) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model")
    process = LlamaProcess(msgspec.structs.replace(MODEL, path=str(bad)), tmp_path / "run")
    process.start()
    until(lambda: process.restarts >= 2)
    assert not process.ready
    process.stop()


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run").chmod(0o750)
    with pytest.raises(ConfigError, match="0700"):
        LlamaProcess(MODEL, tmp_path / "run")


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="0700"):
        LlamaProcess(MODEL, tmp_path / "run")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shorter"):
        LlamaProcess(MODEL, tmp_path / ("x" * 120))
