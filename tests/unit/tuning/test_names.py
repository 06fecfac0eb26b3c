"""Names of tuned models: written as they are read, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.ids import Prefix, mint
from keepless.tuning.names import Named, good_name, ledger_name, name_of, parse_name

ORGANIZATION = mint(Prefix.ORGANIZATION)
GOOD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
BASE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,79}", fullmatch=True)


@given(base=BASE, name=GOOD, hexadecimal=st.from_regex(r"[0-9a-f]{12}", fullmatch=True))
def test_what_is_written_is_read(base: str, name: str, hexadecimal: str) -> None:
    assert good_name(name)
    whole = name_of(base, ORGANIZATION, name, hexadecimal)
    assert parse_name(whole) == Named(base, ORGANIZATION, name, hexadecimal)
    assert name not in ledger_name(base, hexadecimal) or name in base or name in hexadecimal + ":ft"


@pytest.mark.parametrize("text", ["", "a/b", "a b", "-a", "a\n", "x" * 65, "é"])
def test_no_good_name(text: str) -> None:
    assert not good_name(text)


@given(st.text())
def test_arbitrary_text_is_no_name(text: str) -> None:
    assert parse_name(text) is None


@pytest.mark.parametrize(
    "text",
    ["ft:a:org/x-123456789abc", f"ft:a:{ORGANIZATION}/x-123456789ABC", f"ft:a:{ORGANIZATION}/123456789abc"],
    ids=["no organization", "no digits", "no name"],
)
def test_almost_a_name(text: str) -> None:
    assert parse_name(text) is None
