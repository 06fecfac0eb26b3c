"""An upstream's own responses: read for their usage and their end."""

import json
from typing import Any

import pytest

from keepless.errors import Code, Problem
from keepless.gateway.response_native import NativeReader, error_event, read_native
from keepless.inference.asking import NO_TOKENS, Ending, EngineFailedError, Tokens

USAGE = {"input_tokens": 3, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 2}}


def event(kind: str, number: int = 0, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **more})}\n\n".encode()


@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        ([event("response.completed", 7, response={"usage": USAGE})], Ending.COMPLETE),
        ([event("response.completed", 7, response={"usage": USAGE}), b"data: [DONE]\n\n"], Ending.COMPLETE),
        ([event("response.completed", 7, response={"usage": USAGE}), b": ping\n\n"], Ending.COMPLETE),
        ([event("response.incomplete", 7, response={"usage": USAGE})], Ending.COMPLETE),
        ([event("response.failed", 7, response={"usage": None})], Ending.FAILED),
        ([event("error", 7, code="x", message="y")], Ending.FAILED),
        ([b'data: {"error":{"message":"x"}}\n\n'], Ending.FAILED),
        ([event("response.output_text.delta", 7, delta="x")], Ending.CUT),
        ([event("response.completed", 7, response={"usage": USAGE}), b"data: {"], Ending.CUT),
        ([], Ending.CUT),
    ],
)
def test_how_a_stream_ended(tail: list[bytes], ending: Ending) -> None:
    reader = NativeReader()
    came = [event("response.created"), event("response.in_progress", 1), *tail]
    passed = b"".join(reader.feed(piece) for piece in came)
    assert reader.finish() is ending
    assert b"".join(came).startswith(passed)
    if ending is Ending.COMPLETE:
        assert passed == b"".join(came)
        assert reader.tokens == Tokens(3, 5, 2)


def test_an_error_of_ours_takes_the_next_number() -> None:
    reader = NativeReader()
    assert reader.next_number == 0
    reader.feed(event("response.created", 0) + event("response.output_text.delta", 41, delta="x"))
    reader.feed(b": ping\n\n")
    assert reader.next_number == 42
    said = error_event(Problem(502, Code.UPSTREAM_CUT, "cut"), 42)
    assert json.loads(said.split(b"data: ")[1])["sequence_number"] == 42


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (json.dumps({"output": [], "usage": USAGE}).encode(), Tokens(3, 5, 2)),
        (b'{"output":[]}', NO_TOKENS),
        (b'{"output":[],"usage":[]}', NO_TOKENS),
        (b'{"output":[],"usage":{"input_tokens":-1,"output_tokens":99999999999999999}}', Tokens(0, 2**40, 0)),
        (b'{"choices":[]}', None),
        (b"[]", None),
        (b'{"output":[', None),
    ],
)
def test_a_whole_answer(body: bytes, tokens: Tokens | None) -> None:
    assert read_native(body) == tokens


@pytest.mark.parametrize("usage", [USAGE, None, []])
def test_an_answer_that_says_that_its_engine_failed(usage: object) -> None:
    with pytest.raises(EngineFailedError):
        read_native(json.dumps({"status": "failed", "error": {"code": "x"}, "output": [], "usage": usage}).encode())
