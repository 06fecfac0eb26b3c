"""Where the tokens stand in a line of an output file: what is read of it, and nothing else.

Holds: `usage_in`. Leaves out: sums (finish). Not compiled (msgspec's structs).
"""

from typing import Final

import msgspec

from keepless.batches.values import Usage

__all__ = ["usage_in"]

_NONE: Final = Usage()
_MOST: Final = 2**40  # an engine may say anything


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = 0
    reasoning_tokens: int | None = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Body(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _Response(msgspec.Struct, gc=False):
    body: _Body | str


class _Line(msgspec.Struct, gc=False):
    response: _Response


_decode: Final = msgspec.json.Decoder(_Line).decode


def usage_in(line: bytes) -> Usage:
    """The tokens that an answer says it cost, in the words of chat or of responses; none where it does not say."""
    try:
        body = _decode(line).response.body
    except msgspec.DecodeError:
        return _NONE
    told = None if isinstance(body, str) else body.usage
    if told is None:
        return _NONE
    read = told.prompt_tokens_details or told.input_tokens_details
    written = told.completion_tokens_details or told.output_tokens_details
    return Usage(
        _count(told.prompt_tokens or told.input_tokens),
        0 if read is None else _count(read.cached_tokens),
        _count(told.completion_tokens or told.output_tokens),
        0 if written is None else _count(written.reasoning_tokens),
    )


def _count(number: int | None) -> int:
    return min(number, _MOST) if number is not None and number > 0 else 0
