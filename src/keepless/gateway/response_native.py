"""The answers of an upstream that speaks /responses itself: read for their usage and how they ended, never changed.

Holds: `NativeReader` (a stream), `read_native` (a whole answer). Leaves out: who writes them (response_speakers).
"""

from typing import Final

import msgspec

from keepless.errors import Problem
from keepless.gateway.response_shapes import NativeEvent, NativeOutput, NativeResponse, NativeUsage
from keepless.gateway.stream import StreamReader
from keepless.gateway.wire import clamped
from keepless.inference.asking import NO_TOKENS, Ending, EngineFailedError, Tokens

__all__ = ["NativeReader", "error_event", "read_native"]

_ENDINGS: Final = {
    "response.completed": Ending.COMPLETE,
    "response.incomplete": Ending.COMPLETE,
    "response.failed": Ending.FAILED,
    "error": Ending.FAILED,
}
_encode: Final = msgspec.json.Encoder().encode


_event: Final = msgspec.json.Decoder(NativeEvent).decode
_response: Final = msgspec.json.Decoder(NativeResponse).decode
_output: Final = msgspec.json.Decoder(NativeOutput).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class NativeReader(StreamReader):
    """One stream, whole events only, as they came."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(drop_usage=False)

    def finish(self) -> Ending:
        """How it ended; `tokens` is set when usage was found."""
        for data in self.last_datas():
            event = _parsed(data)
            if event is None:
                continue
            if bytes(event.error) != b"null":
                return Ending.FAILED
            ending = _ENDINGS.get(event.type or "", Ending.CUT)
            if ending is Ending.COMPLETE and event.response is not None:
                self.tokens = _tokens(event.response.usage)
            return Ending.CUT if self.partial else ending
        return Ending.CUT

    @property
    def next_number(self) -> int:
        """The number that an event of ours takes behind those that came."""
        for data in self.last_datas():
            event = _parsed(data)
            if event is not None and event.sequence_number is not None:
                return event.sequence_number + 1
        return 0


def error_event(problem: Problem, number: int) -> bytes:
    """The last event of a stream that was cut, as OpenAI's clients read it."""
    event = {
        "type": "error",
        "sequence_number": number,
        "code": problem.code.value,
        "message": problem.message,
        "param": None,
    }
    return b"event: error\ndata: " + _encode(event) + b"\n\n"


def read_native(body: bytes) -> Tokens | None:
    """The usage of a whole answer (zeros when it says none); None when it is no answer.

    Raises `EngineFailedError` for one that says so: its client could not tell it from an answer by the status of HTTP.
    """
    answer: NativeResponse | NativeOutput
    try:
        answer = _response(body)
        tokens = _tokens(answer.usage)
    except _UNREADABLE:
        try:
            answer = _output(body)
        except _UNREADABLE:
            return None
        tokens = NO_TOKENS  # a usage in a shape of its own does not make an answer useless
    if answer.status == "failed":
        raise EngineFailedError
    return tokens


def _tokens(usage: NativeUsage | None) -> Tokens:
    if usage is None:
        return NO_TOKENS
    details = usage.input_tokens_details
    cached = 0 if details is None else clamped(details.cached_tokens or 0)
    return Tokens(clamped(usage.input_tokens), clamped(usage.output_tokens), cached)


def _parsed(data: bytes) -> NativeEvent | None:
    try:
        return _event(data) if data[:1] == b"{" else None
    except _UNREADABLE:
        return None
