"""A sink that records what an engine tells it, and holds the engine to the order of calls."""

import asyncio
import json
from collections.abc import Callable

from keepless.content import Content
from keepless.inference.backend import Backend, Call, Failure, FailureKind


class Recorder:
    """Make it on a running loop. `calls`: names in order, runs of `data` as one."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.content_type = b""
        self.retry_after_s: int | None = None
        self.body = b""
        self.failure: Failure | None = None
        self.forbidden = False  # after a cancel nothing may come
        self._changed = asyncio.Event()

    def _note(self, name: str) -> None:
        assert not self.forbidden, f"{name} after cancel"
        assert not self.calls or self.calls[-1] not in ("end", "failure"), f"{name} after {self.calls[-1]}"
        if name != "data" or self.calls[-1:] != ["data"]:
            self.calls.append(name)
        self._changed.set()

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        assert not self.calls
        self._note("head")
        self.status, self.content_type, self.retry_after_s = status, content_type, retry_after_s

    def on_data(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        assert self.status
        self._note("data")
        self.body += data

    def on_end(self) -> None:
        self._note("end")

    def on_failure(self, failure: Failure) -> None:
        self._note("failure")
        self.failure = failure

    @property
    def kind(self) -> FailureKind | None:
        return self.failure.kind if self.failure is not None else None

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict]:
        """The JSON events of a stream, which must end with [DONE]."""
        *events, done, rest = self.body.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    async def until(self, condition, timeout_s: float = 30.0) -> "Recorder":
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                assert self.calls[-1:] not in (["end"], ["failure"]), (self.status, self.failure, self.body[:300])
                self._changed.clear()
                await self._changed.wait()
        return self

    async def over(self, timeout_s: float = 30.0) -> "Recorder":
        return await self.until(lambda r: r.calls and r.calls[-1] in ("end", "failure"), timeout_s)


def call(body: dict, *, request_id: str = "req_" + "a" * 24, path: str = "/chat/completions", **more) -> Call:
    content = Content(json.dumps(body).encode())
    return Call(path=path, body=content, stream=bool(body.get("stream")), request_id=request_id, **more)


async def ask(backend: Backend, body: dict, **more) -> Recorder:
    """One whole answer or failure."""
    recorder = Recorder()
    backend.start(call(body, **more), recorder)
    return await recorder.over()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes, on a busy machine too."""
    for _ in range(9000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")
