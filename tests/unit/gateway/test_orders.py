"""What tells a repeated creation from a new one."""

import pytest
from starlette.requests import Request

from keepless.errors import Problem
from keepless.gateway.orders import repeat_key_of


def sent(*keys: bytes) -> Request:
    return Request({"type": "http", "headers": [(b"idempotency-key", key) for key in keys]})


def test_an_idempotency_key_is_taken_as_it_is() -> None:
    assert repeat_key_of(sent()) is None
    assert repeat_key_of(sent(b"again")) == b"again"
    assert repeat_key_of(sent(b"x" * 255)) == b"x" * 255


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, b"a\n", "ä".encode()])
def test_other_idempotency_keys(key: bytes) -> None:
    with pytest.raises(Problem) as problem:
        repeat_key_of(sent(key))
    assert (problem.value.status, problem.value.param) == (400, "idempotency-key")
