"""What a batch is compared with: programs that ask an upstream for every line of a file and write the answers down.

Holds: `bare`, `written` and `sdk`, each asking with a bounded number of requests under way. None of them checks a line,
keeps a record of usage, survives a kill or seals what it writes.

- `bare`: callbacks of the product's own HTTP client. Bodies are parsed and encoded before the clock starts; the answers
  are written as they came, without the id of their line. Nobody would write it: it is the least that asking costs.
- `written`: coroutines, the same client behind a future. Lines are read, parsed and encoded while the clock runs, and
  each answer is parsed and written with the id of its line. What one would write who had that client.
- `sdk`: the same with `openai.AsyncOpenAI`. What most would write.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import openai
import uvloop

from keepless.config import UpstreamConfig
from keepless.content import Content
from keepless.ids import Prefix, mint
from keepless.inference.backend import Call, Failure
from keepless.inference.upstream import UpstreamBackend

__all__ = ["bare", "sdk", "written"]

_CONNECTIONS = 256


class _Sink:
    def __init__(self, done: Callable[[bytes], None]) -> None:
        self._done = done
        self._parts: list[bytes] = []

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        assert status == 200

    def on_data(self, data: bytes) -> None:
        self._parts.append(data)

    def on_end(self) -> None:
        self._done(b"".join(self._parts))

    def on_failure(self, failure: Failure) -> None:
        raise AssertionError(failure)


def _call(body: bytes) -> Call:
    return Call("/chat/completions", Content(body), False, mint(Prefix.REQUEST), permitted=lambda: True)


def _timed(main: Coroutine[Any, Any, None]) -> tuple[float, float]:
    """Seconds by the clock and of processor time."""
    began, cpu = time.monotonic(), time.process_time()
    uvloop.run(main)
    return time.monotonic() - began, time.process_time() - cpu


def bare(url: str, data: bytes, at_once: int, result: Path) -> tuple[float, float]:
    """See the module."""
    bodies = [json.dumps(json.loads(line)["body"]).encode() for line in data.splitlines()]

    async def main() -> None:
        backend = UpstreamBackend(UpstreamConfig(base_url=url, max_connections=_CONNECTIONS))
        over = asyncio.Event()
        waiting = iter(bodies)
        left = len(bodies)
        with result.open("wb") as out:

            def done(answer: bytes) -> None:
                nonlocal left
                out.write(answer + b"\n")
                left -= 1
                if not left:
                    over.set()
                begin()

            def begin() -> None:
                body = next(waiting, None)
                if body is not None:
                    backend.start(_call(body), _Sink(done))

            for _ in range(at_once):
                begin()
            await over.wait()
        await backend.close()

    return _timed(main())


def written(url: str, source: Path, at_once: int, result: Path) -> tuple[float, float]:
    """See the module."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        backend = UpstreamBackend(UpstreamConfig(base_url=url, max_connections=_CONNECTIONS))

        async def ask(body: dict[str, Any]) -> Any:
            answered: asyncio.Future[bytes] = loop.create_future()
            backend.start(_call(json.dumps(body).encode()), _Sink(answered.set_result))
            return json.loads(await answered)

        await _all(source, at_once, result, ask)
        await backend.close()

    return _timed(main())


def sdk(url: str, source: Path, at_once: int, result: Path) -> tuple[float, float]:
    """See the module."""

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def ask(body: dict[str, Any]) -> Any:
                return (await client.chat.completions.create(**body)).model_dump()

            await _all(source, at_once, result, ask)

    return _timed(main())


async def _all(
    source: Path, at_once: int, result: Path, ask: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]
) -> None:
    """Every line of a file in JSON Lines, `at_once` under way."""
    with source.open("rb") as lines, result.open("w") as out:

        async def some(lines: Iterator[bytes]) -> None:
            for line in lines:
                asked = json.loads(line)
                response = {"status_code": 200, "body": await ask(asked["body"])}
                out.write(json.dumps({"custom_id": asked["custom_id"], "response": response, "error": None}) + "\n")

        await asyncio.gather(*(some(lines) for _ in range(at_once)))
