"""Sketches of embeddings and speech: counts and sizes of whatever came."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.gateway import embedding_params, speech_params
from keepless.gateway.input_shape import sketch_of
from keepless.usage.record import Flag, Phase

TABLE = embedding_params.PARAMETERS


@pytest.mark.parametrize(
    ("body", "inputs", "largest"),
    [
        (None, 0, 0),
        ({}, 0, 0),
        ({"input": "abc"}, 1, 3),
        ({"input": "é"}, 1, 2),
        ({"input": ["a", "bcd"]}, 2, 3),
        ({"input": [1, 2]}, 1, 8),
        ({"input": [[1], [2, 3]]}, 2, 8),
        ({"input": {"a": 1}}, 1, 0),
        ({"input": [None, {}]}, 2, 0),
    ],
)
def test_inputs_are_counted_and_the_largest_is_measured(body: Any, inputs: int, largest: int) -> None:
    sketch = sketch_of(body, TABLE, Phase.VALIDATE, body_bytes=7)
    assert (sketch.messages, sketch.largest_message_bytes, sketch.body_bytes) == (inputs, largest, 7)


def test_flags_say_what_kind_of_names_were_sent() -> None:
    found = sketch_of({"store": False, "x": 1}, TABLE, Phase.LIMIT, body_bytes=0, flags=Flag.AUDIO)
    assert found.flags == Flag.PRIVACY_SWITCH | Flag.EXTRA_PARAMETERS | Flag.AUDIO
    assert sketch_of({"voice": "a"}, speech_params.PARAMETERS, Phase.LIMIT, body_bytes=0).flags == Flag(0)


@given(st.dictionaries(st.text(max_size=5) | st.just("input"), st.text() | st.lists(st.text() | st.integers())))
def test_any_body_has_a_shape(body: dict[str, Any]) -> None:
    sketch_of(body, TABLE, Phase.VALIDATE, body_bytes=1)
