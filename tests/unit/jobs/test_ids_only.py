"""What may enter the job store, and what an exception becomes there."""

from typing import Any

import pytest

from keepless.jobs.ids_only import IdsOnly, NotAnIdError
from keepless.jobs.port import JobFailedError

STORE = IdsOnly()
MARKER = "MARKER"
# Fixed: the processes that share the tests must collect the same ones.
BATCH, FILE = f"batch_{'a' * 24}", f"file-{'b' * 24}"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        -1,
        BATCH,
        f"{BATCH}.3.0",
        {"args": [1, FILE], "kwargs": {}},
    ],
)
def test_ids_and_numbers_come_back(value: Any) -> None:
    assert STORE.deserialize(STORE.serialize(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        MARKER,
        "",
        1.5,
        b"x",
        {1, 2},
        [MARKER],
        {"other": 1},
        {"args": MARKER},
        {"args": [[[[[1]]]]]},
        BATCH + "\n",
        BATCH + " MARKER",
        BATCH.upper(),
    ],
)
def test_anything_else_is_refused_without_a_word_of_it(value: Any) -> None:
    with pytest.raises(NotAnIdError) as raised:
        STORE.serialize(value)
    assert MARKER not in str(raised.value)


def test_an_exception_is_one_fixed_word() -> None:
    stored = STORE.serialize(ValueError(MARKER))
    assert stored == STORE.serialize(KeyError("x"))
    assert isinstance(STORE.deserialize(stored), JobFailedError)
