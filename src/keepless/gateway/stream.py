"""Server-sent events of an engine on their way to a client: whole events only, bytes untouched.

Holds: `StreamReader` (what may be forwarded, the usage, whether the stream was complete), `datas_of` (what a block's
events say), `error_event` and `kept_comment`. Leaves out: who writes them (chat, response_speakers).

Only whole events are forwarded, so that an error event of ours never lands in the middle of one. What is no JSON object
(seen by its ends: parsing each event would cost more than sending it) and not `[DONE]` ends the stream: clients stop at
it with an error of their parser's. Everything else stays as it came, but for one event: the usage that we asked an
upstream for and the client did not. It is taken out.
"""

from typing import Final

import msgspec

from keepless.errors import Problem
from keepless.gateway.chat_shapes import Event
from keepless.gateway.wire import tokens_of
from keepless.http.problems import error_json
from keepless.inference.asking import Ending, MalformedError, Tokens

__all__ = ["StreamReader", "datas_of", "error_event", "kept_comment"]

_LONGEST_EVENT: Final = 4 * 1024 * 1024
_DONE: Final = b"data: [DONE]\n\n"
_LAST: Final = 4  # events at the end of a stream: its finish reason, its usage and its [DONE] are among them


_decode: Final = msgspec.json.Decoder(Event).decode


class StreamReader:
    """One stream. `drop_usage`: take out the event that holds nothing but usage."""

    __slots__ = ("_before", "_drop", "_earlier", "_held", "_last", "tokens")

    def __init__(self, *, drop_usage: bool) -> None:
        self._drop = drop_usage
        self._held = b""
        self._last = self._before = self._earlier = b""  # the last three blocks: the end of the stream is in them
        self.tokens: Tokens | None = None

    def feed(self, data: bytes) -> bytes:
        """The whole events that are there now. Raises `MalformedError`."""
        if self._held or not data.endswith(b"\n\n"):
            data = self._held + data
            end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4, data.rfind(b"\r\r") + 2)
            if end < 4:
                end = 0
            self._held, data = data[end:], data[:end]
            if len(self._held) > _LONGEST_EVENT:
                raise MalformedError
            if not data:
                return data
        stop = len(data) - len(_DONE) if data.endswith(_DONE) else len(data)
        if not (
            data.startswith(b"data: {")
            and data.endswith(b"}\n\n", 0, stop)
            and data.count(b"\n", 0, stop) == 2 * data.count(b"}\n\ndata: {", 0, stop) + 2  # no other line ends
        ):
            _check(data)
        if self._drop and (b'"choices":[]' in data or b'"choices": []' in data):
            data = self._without_usage(data)
        self._earlier, self._before, self._last = self._before, self._last, data
        return data

    @property
    def partial(self) -> bool:
        """Whether part of an event is there whose rest has not come."""
        return bool(self._held.strip())

    def last_datas(self) -> list[bytes]:
        """What the last few events say, the last one first."""
        return [_data(event) for event in reversed(_last_events(self._earlier + self._before + self._last))]

    def finish(self) -> Ending:
        """How it ended; `tokens` is set when usage was found."""
        verdict = Ending.CUT
        for data in self.last_datas():
            if data == b"[DONE]":
                verdict = Ending.COMPLETE
                continue
            parsed = _parse(data)
            if parsed is None:
                continue
            if bytes(parsed.error) != b"null":
                return Ending.FAILED
            usage = parsed.usage or (parsed.x_groq and parsed.x_groq.usage)
            if usage and self.tokens is None:
                self.tokens = tokens_of(usage)
        return Ending.CUT if self.partial else verdict

    def _without_usage(self, block: bytes) -> bytes:
        kept = []
        for event in _events(block):
            parsed = _parse(_data(event))
            if parsed is not None and parsed.choices == [] and parsed.usage is not None:
                self.tokens = tokens_of(parsed.usage)
            else:
                kept.append(event)
        return b"".join(kept)


def _check(block: bytes) -> None:
    """Refuse data that no client could read. Raises `MalformedError`."""
    for said in datas_of(block):
        if said != b"[DONE]" and not (said.startswith(b"{") and said.endswith(b"}")):
            raise MalformedError


def datas_of(block: bytes) -> list[bytes]:
    """What the events of a block of whole events say; comments say nothing."""
    return [data for event in _events(block) if (data := _data(event))]


def error_event(problem: Problem) -> bytes:
    """The event by which both official clients raise in the middle of a stream."""
    return b"data: " + error_json(problem) + b"\n\n"


def kept_comment(kept: bytes) -> bytes:
    """The last line of a stream of which something was kept (DECISIONS 5); clients ignore comments."""
    return b": x-keepless-retention " + kept + b"\n\n"


def _events(block: bytes) -> list[bytes]:
    """The events of a block of whole events, each with its end."""
    normal = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    return [event + b"\n\n" for event in normal.split(b"\n\n") if event.strip()]


def _last_events(block: bytes) -> list[bytes]:
    """The last few events of a block of whole events, without the work for all the others."""
    block = block.rstrip(b"\n")
    at = len(block)
    for _ in range(_LAST):
        at = block.rfind(b"\n\n", 0, at)
        if at < 0:
            at = 0
            break
    last = block[at:]
    normal = last.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in last else last
    return [event for event in normal.rstrip(b"\n").rsplit(b"\n\n", _LAST)[-_LAST:] if event.strip()]


def _data(event: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines).strip()


def _parse(data: bytes) -> Event | None:
    try:
        return _decode(data) if data[:1] == b"{" else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
