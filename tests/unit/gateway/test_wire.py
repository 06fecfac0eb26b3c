"""What is read of an answer, and the header lines of ours."""

import json

import pytest

from keepless.gateway.wire import JSON, head_lines, read_answer, refusal_of
from keepless.inference.asking import NO_TOKENS, Tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}', Tokens(1, 2, 0)),
        (b'{"choices":[{}],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":1}}}', Tokens(1, 0, 1)),
        (b'{"choices":[{}],"usage":{"prompt_tokens_details":null}}', NO_TOKENS),
        (b'{"choices":[{"message":{"content":"\\"usage\\":{\\"prompt_tokens\\":9}"}}]}', NO_TOKENS),
        (b'{"choices":[{}],"usage":"free"}', NO_TOKENS),
        (b'{"choices":[{}],"usage":{"prompt_tokens":-4,"completion_tokens":1e30}}', NO_TOKENS),
        (b'{"choices":[{}],"usage":{"prompt_tokens":-4,"completion_tokens":9999999999999999}}', Tokens(0, 2**40, 0)),
        (b"{}", None),
        (b"", None),
        (b"[]", None),
        (b'{"choices":{}}', None),
        (b'{"choices":[{}]', None),
        (b"<html>", None),
        (b'{"choices":' + b"[" * 100_000, None),
    ],
)
def test_read_answer(body: bytes, tokens: Tokens | None) -> None:
    assert read_answer(body) == tokens


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":{"message":"m","code":7}}', None),  # as it came
        (b'{"error":"no such model"}', "no such model"),
        (b'{"error":{"code":"x"}}', '{"code":"x"}'),
        (b'{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"],"msg":"Field required"}]}', '[{"loc":["body"],"msg":"Field required"}]'),
    ],
)
def test_a_refusal_is_told_in_openais_shape(body: bytes, said: str | None) -> None:
    told = refusal_of(body)
    if said is None:
        assert told is body
        return
    error = {"message": said, "type": "invalid_request_error", "code": "upstream_rejected", "param": None}
    assert told is not None
    assert json.loads(told) == {"error": error}


@pytest.mark.parametrize("body", [b"", b"[1]", b"{}", b'{"error":', b"<html>", b'{"error":{}}', b'{"a":' + b"[" * 9999])
def test_what_says_nothing_is_no_refusal(body: bytes) -> None:
    assert refusal_of(body) is None


def test_head_lines() -> None:
    assert head_lines("req_1", b"none", JSON, b"x-more: 1\r\n") == (
        b"content-type: application/json\r\nx-request-id: req_1\r\nx-keepless-retention: none\r\n"
        b"cache-control: no-store\r\nx-more: 1\r\n"
    )
