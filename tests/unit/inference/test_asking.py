"""The values between a gateway and the way."""

from keepless.errors import KeeplessError
from keepless.inference.asking import NO_TOKENS, MalformedError, Tokens


def test_a_malformed_answer_is_an_error_without_a_text() -> None:
    assert issubclass(MalformedError, KeeplessError)
    assert str(MalformedError()) == ""


def test_no_tokens_is_nothing_of_anything() -> None:
    assert Tokens(0, 0, 0) == NO_TOKENS


def test_tokens_are_what_they_count() -> None:
    assert Tokens(1, 2, 3) == Tokens(1, 2, 3, 0)
    assert len({Tokens(1, 2, 3), Tokens(1, 2, 3), Tokens(1, 2, 3, 4)}) == 2
    for other in (Tokens(2, 2, 3), Tokens(1, 3, 3), Tokens(1, 2, 4), Tokens(1, 2, 3, 1), (1, 2, 3, 0)):
        assert Tokens(1, 2, 3) != other
    assert repr(Tokens(1, 2, 3)) == "Tokens(1, 2, 3, 0)"
