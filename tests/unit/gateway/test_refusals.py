"""Refusals are fixed texts: status, code, and whether trying again can help."""

import pytest

from keepless.errors import Problem
from keepless.gateway import refusals


@pytest.mark.parametrize(
    ("problem", "status", "code", "retry"),
    [
        (refusals.bad("A text."), 400, "bad_http", False),
        (refusals.bad("A text.", 417), 417, "bad_http", False),
        (refusals.too_large(10), 413, "request_too_large", False),
        (refusals.other_version(), 505, "bad_http", False),
        (refusals.large_head(10), 431, "headers_too_large", False),
        (refusals.too_many_fields(10), 431, "headers_too_large", False),
        (refusals.slow(), 408, "client_timeout", True),
        (refusals.full(), 503, "overloaded", True),
    ],
)
def test_refusals(problem: Problem, status: int, code: str, retry: bool) -> None:
    assert (problem.status, problem.code, problem.retry) == (status, code, retry)
    assert problem.message.endswith(".")


def test_a_client_beyond_the_limit_is_told_when_to_come_back() -> None:
    assert refusals.full().headers == {"retry-after": "1"}
