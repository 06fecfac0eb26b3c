"""The values between a gateway and the way."""

from keepless.errors import KeeplessError
from keepless.inference.asking import NO_TOKENS, MalformedError, Tokens


def test_a_malformed_answer_is_an_error_without_a_text() -> None:
    assert issubclass(MalformedError, KeeplessError)
    assert str(MalformedError()) == ""


def test_no_tokens_is_nothing_of_anything() -> None:
    assert Tokens(0, 0, 0) == NO_TOKENS
