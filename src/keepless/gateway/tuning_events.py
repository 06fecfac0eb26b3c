"""Events of a fine-tuning as they come: server-sent events, from the first to the job's end.

Holds: `streamed`. Leaves out: what an event is (tuning), its JSON (tuning_shape).

The rows are asked again and again: who listens costs one short read every half second, and a listener on one machine
hears of a job on another.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

import anyio
import msgspec
from starlette.responses import Response, StreamingResponse

from keepless.errors import Problem
from keepless.gateway.recorded import in_thread
from keepless.gateway.tuning_shape import event_shape
from keepless.tuning.values import Event

__all__ = ["streamed"]

_LOOK_S: Final = 0.5
_QUIET: Final = 20  # looks without news, after which a comment says that the line is alive
_DONE: Final = b"data: [DONE]\n\n"
_encode: Final = msgspec.json.Encoder().encode
News = Callable[[int], tuple[list[Event], bool]]


async def streamed(news: News, may_go_on: Callable[[], bool]) -> Response:
    """The answer. `news(number)`: what came after a number, and whether more can come. Raises `Problem` 404."""
    first = await in_thread(lambda: news(0))
    return StreamingResponse(
        _pieces(first, news, may_go_on),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _pieces(found: tuple[list[Event], bool], news: News, may_go_on: Callable[[], bool]) -> AsyncIterator[bytes]:
    last, quiet = 0, 0
    while True:
        events, more = found
        for event in events:
            last, quiet = event.number, 0
            yield b"data: " + _encode(event_shape(event)) + b"\n\n"
        if not events:
            if not more:
                yield _DONE
                return
            quiet += 1
            if quiet % _QUIET == 0:
                yield b": waiting\n\n"
            await anyio.sleep(_LOOK_S)
        if not may_go_on():
            return
        try:
            found = await in_thread(partial(news, last))
        except Problem:  # deleted meanwhile
            return
