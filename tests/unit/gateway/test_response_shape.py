"""The shape of a request of /responses: counts and enums, whatever the JSON is."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from keepless.config import ModelConfig
from keepless.gateway.response_params import ResponseRules
from keepless.gateway.response_shape import estimate, sketch_of
from keepless.usage.record import Flag, Phase, Role, roles_to

M = "MARKER"
RULES = ResponseRules(ModelConfig(id="m"), None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["input", "tools", "text", "instructions", "stream", "reasoning", "store", "extra"])


def test_a_conversation() -> None:
    body = {
        "input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": M}]},
            {"type": "function_call", "call_id": "c", "name": M, "arguments": M},
            {"type": "function_call_output", "call_id": "c", "output": M},
            {"type": "reasoning", "encrypted_content": M},
        ],
        "instructions": M,
        "tools": [{}, {}],
        "stream": True,
        "text": {"format": {"type": "json_schema"}},
        "reasoning": {"effort": "low"},
        M: M,
    }
    sketch = sketch_of(body, Phase.ANSWER, body_bytes=9, max_tokens=2**40, switched=True)
    assert roles_to(sketch.roles) == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
    assert (sketch.messages, sketch.tools, sketch.max_tokens, sketch.body_bytes) == (4, 2, 2**31, 9)
    assert sketch.flags == (
        Flag.IMAGES
        | Flag.SYSTEM
        | Flag.TOOLS
        | Flag.STREAM
        | Flag.JSON_SCHEMA
        | Flag.REASONING
        | Flag.EXTRA_PARAMETERS
        | Flag.PRIVACY_SWITCH
    )
    assert M not in str(msgspec.structs.asdict(sketch))


@given(st.none() | st.dictionaries(NAMES, JSON, max_size=5))
def test_any_json_has_a_shape(body: dict[str, Any] | None) -> None:
    assert sketch_of(body, Phase.VALIDATE, body_bytes=1).phase is Phase.VALIDATE


def test_the_estimate_counts_texts_media_and_what_is_asked_for() -> None:
    checked = RULES.check(
        {
            "model": "m",
            "instructions": "a" * 40,
            "max_output_tokens": 100,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "b" * 40}]},
                {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]},
            ],
        }
    )
    assert estimate(checked) == (40 + 40) // 4 + 2 * 4 + 800 + 100
