"""The pool against a real server on loopback, on both event loops."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from keepless.inference.backend import FailureKind
from keepless.inference.client import Address, Pool, PoolLimits
from tests.support.sinks import Recorder
from tests.support.upstream import Behaviour, MockUpstream

pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine], object]


def request(model: str = "ok", stream: bool = False, fill: int = 0) -> tuple[bytes, bytes]:
    body = json.dumps({"model": model, "stream": stream, "fill": "x" * fill}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body), body


@asynccontextmanager
async def pooled(mock: MockUpstream | None = None, **limits) -> AsyncIterator[tuple[MockUpstream, Pool]]:
    mock = mock or MockUpstream()
    mock.start()
    pool = Pool(Address(host="127.0.0.1", port=mock.port), PoolLimits(**limits))
    try:
        yield mock, pool
    finally:
        await pool.close()
        mock.stop()


async def ask(pool: Pool, *args, **kwargs) -> Recorder:
    recorder = Recorder()
    pool.start(*request(*args, **kwargs), recorder)
    return await recorder.over()


def test_one_connection_serves_one_request_after_another(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            for number in range(20):
                recorder = await ask(pool, stream=number % 2 == 0)
                assert recorder.calls == ["head", "data", "end"]
            assert (mock.connections, pool.open) == (1, 1)

    run(main())


def test_the_connection_used_last_is_used_next(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            first, second = Recorder(), Recorder()
            pool.start(*request("slow-head"), first)
            pool.start(*request("ok"), second)
            await second.over()
            await first.over()
            slow = next(r for r in mock.received if r.json["model"] == "slow-head").connection
            for _ in range(3):
                await ask(pool)
            assert {r.connection for r in mock.received[2:]} == {slow}

    run(main())


def test_at_most_so_many_connections_and_the_rest_wait_in_order(run: Run) -> None:
    async def main() -> None:
        async with pooled(MockUpstream(delay_s=0.05), max_connections=2, max_waiting=10) as (mock, pool):
            order: list[int] = []
            recorders = [Recorder() for _ in range(8)]
            for number, recorder in enumerate(recorders):
                pool.start(*request("slow-head", fill=number), recorder)
            for number, recorder in enumerate(recorders):
                await recorder.over()
                order.append(number)
                assert recorder.calls[-1] == "end"
            assert mock.connections == 2
            assert [len(r.json["fill"]) for r in mock.received][2:] == [2, 3, 4, 5, 6, 7]

    run(main())


def test_over_the_queue_is_busy_and_not_before_start_returned(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1, max_waiting=2) as (_, pool):
            recorders = [Recorder() for _ in range(4)]
            for recorder in recorders:
                pool.start(*request("slow-head"), recorder)
                assert recorder.calls == []
            await recorders[3].over()
            assert recorders[3].kind is FailureKind.BUSY
            assert recorders[3].failure is not None
            assert recorders[3].failure.retry_after_s == 1
            for recorder in recorders[:3]:
                assert (await recorder.over()).calls[-1] == "end"

    run(main())


def test_who_waits_too_long_for_a_connection_is_told_busy(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1, first_byte_timeout_s=0.3) as (mock, pool):
            mock.set("first", Behaviour.SLOW_STREAM)
            first, second = Recorder(), Recorder()
            running = pool.start(*request("first", stream=True), first)
            pool.start(*request(), second)
            await second.over()
            assert second.kind is FailureKind.BUSY
            assert first.calls == ["head", "data"]
            running.cancel()

    run(main())


@pytest.mark.parametrize(
    ("behaviour", "kind", "calls"),
    [
        (Behaviour.NEVER, FailureKind.TIMEOUT_FIRST_BYTE, ["failure"]),
        (Behaviour.SLOW_IDLE, FailureKind.TIMEOUT_IDLE, ["head", "data", "failure"]),
        (Behaviour.CUT_STREAM, FailureKind.CUT, ["head", "data", "failure"]),
        (Behaviour.CUT_JSON, FailureKind.CUT, ["head", "data", "failure"]),
        (Behaviour.CUT_HEAD, FailureKind.CUT, ["failure"]),
        (Behaviour.RESET, FailureKind.CUT, ["failure"]),
        (Behaviour.GARBAGE, FailureKind.MALFORMED, ["failure"]),
        (Behaviour.HUGE_HEADERS, FailureKind.MALFORMED, ["failure"]),
        (Behaviour.BAD_GZIP, FailureKind.MALFORMED, ["failure"]),
    ],
)
def test_failures(run: Run, behaviour: Behaviour, kind: FailureKind, calls: list[str]) -> None:
    async def main() -> None:
        limits = {"first_byte_timeout_s": 0.2, "idle_timeout_s": 0.2}
        async with pooled(MockUpstream(delay_s=30), **limits) as (mock, pool):
            recorder = await ask(pool, behaviour, stream=behaviour is Behaviour.SLOW_IDLE)
            assert (recorder.kind, recorder.calls) == (kind, calls)
            # Not sent twice, and the next request is none the worse.
            assert len(mock.received) == 1
            assert (await ask(pool)).calls[-1] == "end"

    run(main())


def test_time_counts_from_the_last_byte_not_from_the_start(run: Run) -> None:
    async def main() -> None:
        mock = MockUpstream(pace_s=0.05)
        async with pooled(mock, first_byte_timeout_s=0.4, idle_timeout_s=0.4) as (_, pool):
            recorder = Recorder()
            exchange = pool.start(*request("slow-stream", stream=True), recorder)
            await recorder.until(lambda r: r.body.count(b"data:") >= 20)  # over a second
            exchange.cancel()

    run(main())


def test_nothing_listening_is_unreachable(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            pool = Pool(Address(host="127.0.0.1", port=free.getsockname()[1]), PoolLimits())
            assert pool.reachable
            recorders = [Recorder() for _ in range(3)]
            for recorder in recorders:
                pool.start(*request(), recorder)
            for recorder in recorders:
                assert (await recorder.over()).kind is FailureKind.UNREACHABLE
            assert not pool.reachable
            await pool.close()

    run(main())


def test_a_connect_that_hangs_is_unreachable(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as full:  # a backlog that is never accepted and is full
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            with socket.socket() as one, socket.socket() as two:
                for taken in (one, two):
                    taken.setblocking(False)
                    taken.connect_ex(address)
                pool = Pool(Address(host=address[0], port=address[1]), PoolLimits(connect_timeout_s=0.2))
                assert (await ask(pool)).kind is FailureKind.UNREACHABLE
                await pool.close()

    run(main())


def test_cancel_closes_the_connection_and_silences_the_sink(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            recorder = Recorder()
            exchange = pool.start(*request("slow-stream", stream=True), recorder)
            await recorder.until(lambda r: len(r.body) > 500)
            exchange.cancel()
            exchange.cancel()
            recorder.forbidden = True
            assert await asyncio.to_thread(mock.wait_for, lambda m: m.received[0].closed_early)
            assert mock.received[0].events_sent < 5_000
            assert pool.open == 0

    run(main())


def test_cancel_while_waiting_or_connecting_sends_nothing(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1) as (mock, pool):
            connecting, other = Recorder(), Recorder()
            connecting.forbidden = True
            pool.start(*request("slow-head", fill=1), connecting).cancel()
            pool.start(*request("slow-head", fill=2), other)
            waiting = Recorder()
            waiting.forbidden = True
            pool.start(*request(fill=3), waiting).cancel()
            await other.over()
            await ask(pool, fill=4)
            assert [len(r.json["fill"]) for r in mock.received] == [2, 4]

    run(main())


def test_a_paused_exchange_reads_no_more_than_the_sockets_hold_and_goes_on(run: Run) -> None:
    async def main() -> None:
        async with pooled(idle_timeout_s=0.2) as (mock, pool):
            recorder = Recorder()
            exchange = pool.start(*request("big-stream", stream=True), recorder)
            await recorder.until(lambda r: len(r.body) > 0)
            exchange.pause()
            await asyncio.sleep(0.5)  # longer than the idle time-out: a slow client is not a silent engine
            held, sent = len(recorder.body), mock.received[0].events_sent
            await asyncio.sleep(0.3)
            assert (len(recorder.body), mock.received[0].events_sent) == (held, sent)
            assert held < 8_000_000
            exchange.resume()
            await recorder.over()
            assert recorder.calls == ["head", "data", "end"]
            assert len(recorder.body) > 18_000_000
            assert (await ask(pool)).calls[-1] == "end"

    run(main())


def test_pause_before_there_is_a_connection_holds(run: Run) -> None:
    async def main() -> None:
        async with pooled(first_byte_timeout_s=0.2) as (_, pool):
            recorder = Recorder()
            exchange = pool.start(*request(), recorder)
            exchange.pause()
            await asyncio.sleep(0.5)
            assert recorder.calls == []
            exchange.resume()
            assert (await recorder.over()).calls[-1] == "end"

    run(main())


def test_a_connection_that_the_server_has_closed_is_not_used(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            for _ in range(5):
                assert (await ask(pool)).calls[-1] == "end"
                mock.close_idle()  # returns when closed; our loop has not seen it yet
            assert len(mock.received) == 5

    run(main())


def test_a_request_that_may_have_been_executed_is_never_sent_again(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            await ask(pool)
            recorder = await ask(pool, "cut-head")  # reused, read whole, closed without a byte
            assert recorder.kind is FailureKind.CUT
            assert len(mock.received) == 2

    run(main())


def test_a_reused_connection_that_breaks_while_we_still_write_is_replaced_once(run: Run) -> None:
    async def main() -> None:
        requests: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(0)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            requests[-1] += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            if len(requests) == 1:
                await reader.readexactly(100_000)  # the beginning of the second request, then it breaks
                writer.transport.abort()
            else:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        pool = Pool(Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1]), PoolLimits())
        assert (await ask(pool)).calls[-1] == "end"
        assert (await ask(pool, fill=30_000_000)).calls == ["head", "data", "end"]
        assert requests == [1, 1]
        # A fresh connection that breaks is not replaced: one try only.
        await pool.close()
        server.close()

    run(main())


def test_bytes_that_nobody_asked_for_never_answer_the_next_request(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            surplus = await ask(pool, "surplus")
            assert surplus.body.count(b"chat.completion") == 1
            after = await ask(pool, "error-400")
            assert after.status == 400
            assert mock.connections == 2

    run(main())


def test_permission_is_asked_when_the_first_byte_would_be_written(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1) as (mock, pool):
            allowed = True
            first, second, third = Recorder(), Recorder(), Recorder()
            pool.start(*request("slow-head"), first, lambda: allowed)
            pool.start(*request(), second, lambda: allowed)
            await asyncio.to_thread(mock.wait_for, lambda m: m.received)
            allowed = False  # while the second waits
            await second.over()
            assert second.kind is FailureKind.WITHDRAWN
            assert first.calls[-1] == "end"
            pool.start(*request(), third, lambda: allowed)  # with a free connection
            assert third.calls == []
            assert (await third.over()).kind is FailureKind.WITHDRAWN
            assert len(mock.received) == 1
            allowed = True
            assert (await ask(pool)).calls[-1] == "end"
            assert mock.connections == 1

    run(main())


def test_nothing_is_sent_before_the_end_of_the_turn_and_then_what_is_still_wanted_and_permitted(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1) as (mock, pool):
            await ask(pool)
            allowed = True
            withdrawn, cancelled, sent = Recorder(), Recorder(), Recorder()
            cancelled.forbidden = True
            pool.start(*request(fill=1), withdrawn, lambda: allowed)
            leaving = pool.start(*request(fill=2), cancelled)
            pool.start(*request(fill=3), sent)
            allowed = False  # in the same turn, after `start`
            leaving.cancel()
            assert withdrawn.calls == []
            assert (await withdrawn.over()).kind is FailureKind.WITHDRAWN
            assert (await sent.over()).calls[-1] == "end"
            assert [len(r.json["fill"]) for r in mock.received] == [0, 3]
            assert mock.connections == 1

    run(main())


def test_a_burst_is_bounded_and_tells_no_sink_before_start_returned(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1, max_waiting=2) as (_, pool):
            await ask(pool)
            recorders = [Recorder() for _ in range(16)]
            for recorder in recorders:
                pool.start(*request("slow-head"), recorder)
            assert all(recorder.calls == [] for recorder in recorders)
            for recorder in recorders[3:]:
                assert (await recorder.over()).kind is FailureKind.BUSY
            for recorder in recorders[:3]:
                assert (await recorder.over()).calls[-1] == "end"

    run(main())


def test_one_request_that_cannot_be_sent_keeps_no_other_from_it(run: Run) -> None:
    def fault() -> bool:
        raise RuntimeError

    async def main() -> None:
        async with pooled() as (_, pool):
            await ask(pool)
            broken, well = Recorder(), Recorder()
            pool.start(*request(), broken, fault)
            pool.start(*request(), well)
            assert (await broken.over()).kind is FailureKind.CUT
            assert (await well.over()).calls[-1] == "end"

    run(main())


def test_close_turns_away_what_has_not_left_yet(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (mock, pool):
            await ask(pool)
            recorder = Recorder()
            pool.start(*request(), recorder)
            await pool.close()
            assert recorder.kind is FailureKind.UNREACHABLE
            assert len(mock.received) == 1

    run(main())


def test_idle_connections_are_closed_by_us_first(run: Run) -> None:
    async def main() -> None:
        async with pooled(keep_idle_s=0.1) as (mock, pool):
            await ask(pool)
            assert pool.open == 1
            await asyncio.sleep(0.5)
            assert pool.open == 0
            assert (await ask(pool)).calls[-1] == "end"
            assert mock.connections == 2

    run(main())


def test_a_connection_a_request_when_none_is_kept(run: Run) -> None:
    async def main() -> None:
        async with pooled(keep_idle_s=0) as (mock, pool):
            for _ in range(3):
                await ask(pool)
            assert mock.connections == 3

    run(main())


def test_an_answer_without_length_ends_with_the_connection(run: Run) -> None:
    async def main() -> None:
        async with pooled() as (_, pool):
            recorder = await ask(pool, "no-length")
            assert recorder.calls == ["head", "data", "end"]
            assert recorder.json["object"] == "chat.completion"

    run(main())


def test_close_cuts_what_runs_and_turns_away_what_waits(run: Run) -> None:
    async def main() -> None:
        async with pooled(max_connections=1) as (mock, pool):
            running, waiting = Recorder(), Recorder()
            pool.start(*request("never"), running)
            pool.start(*request(), waiting)
            await asyncio.to_thread(mock.wait_for, lambda m: m.received)
            await pool.close()
            assert (running.kind, waiting.kind) == (FailureKind.CUT, FailureKind.UNREACHABLE)
            assert pool.open == 0

    run(main())


def test_a_unix_socket(run: Run, tmp_path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\nretry-after: 1.5\r\n\r\n")
            writer.close()

        server = await asyncio.start_unix_server(serve, tmp_path / "s")
        pool = Pool(Address(path=str(tmp_path / "s")), PoolLimits())
        recorder = await ask(pool)
        assert (recorder.status, recorder.retry_after_s, recorder.calls) == (204, 2, ["head", "end"])
        await pool.close()
        server.close()

    run(main())
