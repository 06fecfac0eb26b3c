"""What is read of an answer, and the header lines of ours."""

import pytest

from keepless.gateway.wire import JSON, head_lines, is_object, read_answer
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


@pytest.mark.parametrize(("body", "whether"), [(b'{"a":1}', True), (b"[1]", False), (b"", False), (b'{"a":', False)])
def test_is_object(body: bytes, whether: bool) -> None:
    assert is_object(body) is whether


def test_head_lines() -> None:
    assert head_lines("req_1", b"none", JSON, b"x-more: 1\r\n") == (
        b"content-type: application/json\r\nx-request-id: req_1\r\nx-keepless-retention: none\r\n"
        b"cache-control: no-store\r\nx-more: 1\r\n"
    )
