"""Every parameter of embeddings: what passes, what is refused, and that no refusal quotes a value."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepless.config import Engine, ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway.embedding_params import DIMENSIONS, MOST_INPUTS, PARAMETERS, EmbeddingRules, inputs_of
from keepless.policy.controls import NO_REQUEST, RequestControls
from tests.support.outcome import outcome

M = "MARKER"
ALL = EmbeddingRules(ModelConfig(id="m", engine=Engine.OPENAI, base_url="http://x", extra_params=["task"]), None)
OURS = EmbeddingRules(ModelConfig(id="m", engine=Engine.MINILM), frozenset())

GOOD: list[dict[str, Any]] = [
    {"input": M},
    {"input": [M]},
    {"input": [M] * MOST_INPUTS},
    {"input": [1, 2, 3]},
    {"input": [[1, 2], [3]]},
    {"input": M, "encoding_format": "float"},
    {"input": M, "encoding_format": "base64"},
    {"input": M, "dimensions": 256},
    {"input": M, "user": "u", "task": M},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": 1}, "input"),
    ({"input": True}, "input"),
    ({"input": {M: M}}, "input"),
    ({"input": [M, ""]}, "input[1]"),
    ({"input": [M, 1]}, "input"),
    ({"input": [1, M]}, "input"),
    ({"input": [1, True]}, "input"),
    ({"input": [True]}, "input"),
    ({"input": [None]}, "input"),
    ({"input": [[]]}, "input[0]"),
    ({"input": [[1], M]}, "input"),
    ({"input": [[1], [M]]}, "input[1]"),
    ({"input": [-1]}, "input"),
    ({"input": [[2**31]]}, "input[0]"),
    ({"input": [1.0]}, "input"),
    ({"input": [M] * (MOST_INPUTS + 1)}, "input"),
    ({"input": M, "encoding_format": M}, "encoding_format"),
    ({"input": M, "encoding_format": 1}, "encoding_format"),
    ({"input": M, "dimensions": 0}, "dimensions"),
    ({"input": M, "dimensions": M}, "dimensions"),
    ({"input": M, "dimensions": True}, "dimensions"),
    ({"input": M, "user": 1}, "user"),
    ({"input": M, "store": True}, "store"),
]


def problem(rules: EmbeddingRules, body: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        rules.check(body)
    assert caught.value.status == 400
    assert M not in caught.value.message
    return caught.value


@pytest.mark.parametrize("body", GOOD)
def test_what_an_upstream_may_be_asked(body: dict[str, Any]) -> None:
    checked = ALL.check({"model": "m", **body})
    assert checked.body == {"model": "m", **body}
    assert checked.stream is False
    assert checked.controls is NO_REQUEST
    assert checked.changed is False


@pytest.mark.parametrize(("body", "param"), BAD)
def test_what_nobody_is_asked(body: dict[str, Any], param: str) -> None:
    assert problem(ALL, {"model": "m", **body}).param == param


def test_a_name_that_stands_in_no_table_is_told_by_its_position() -> None:
    found = problem(ALL, {"input": M, "MARKER": 1})
    assert found.code is Code.UNKNOWN_PARAMETER
    assert "position 1" in found.message


def test_what_the_embedded_model_cannot_do_is_refused_in_groq_s_words() -> None:
    for body in ({"input": [1]}, {"input": [[1]]}):
        assert problem(OURS, body).message == "`input as tokens` is not supported with this model"
    assert problem(OURS, {"input": M, "dimensions": 10}).code is Code.UNSUPPORTED_PARAMETER


def test_asking_for_the_vectors_one_gets_anyway_asks_for_nothing() -> None:
    OURS.check({"input": M, "dimensions": DIMENSIONS})
    other = EmbeddingRules(ModelConfig(id="m", engine=Engine.MINILM, path="/other"), frozenset())
    problem(other, {"input": M, "dimensions": DIMENSIONS})
    EmbeddingRules(ModelConfig(id="m", engine=Engine.MINILM), frozenset({"dimensions"})).check(
        {"input": M, "dimensions": 64}
    )


def test_switches_and_nulls_are_taken_out() -> None:
    checked = ALL.check({"input": M, "user": None, "store": False})
    assert checked.body == {"input": M}
    assert checked.changed is True
    assert checked.controls == RequestControls(keep_nothing=True)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]]), (None, []), ([], [])],
)
def test_inputs_are_counted_alike_however_they_are_written(given_: Any, expected: list[Any]) -> None:
    assert inputs_of({"input": given_}) == expected


def test_every_parameter_of_the_official_clients_is_in_the_table() -> None:
    assert {"model", "input", "encoding_format", "dimensions", "user"} <= set(PARAMETERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*PARAMETERS, "other"]), JSON, max_size=6))
def test_whatever_comes_is_checked_or_refused_and_never_a_fault(body: dict[str, Any]) -> None:
    for rules in (ALL, OURS):
        outcome(lambda rules=rules: rules.check(dict(body)))
