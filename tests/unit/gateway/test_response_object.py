"""A response echoes what was asked, and that nothing is stored."""

import msgspec

from keepless.config import ModelConfig
from keepless.gateway.response_object import Draft
from keepless.gateway.response_params import ResponseRules

RULES = ResponseRules(ModelConfig(id="m"), None)
TOOL = {"type": "function", "name": "f", "parameters": {}, "strict": True}


def test_what_was_asked_is_echoed() -> None:
    asked = {
        "instructions": "be kind",
        "max_output_tokens": 7,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "temperature": 0.5,
        "tool_choice": "required",
        "tools": [TOOL],
        "top_p": 0.5,
        "truncation": "disabled",
        "user": "u",
    }
    response = Draft(RULES.check({"model": "m", "input": "x", **asked}), "m", 1).response("completed")
    assert {name: response[name] for name in asked} == asked


def test_what_was_not_asked_has_openais_defaults() -> None:
    draft = Draft(RULES.check({"model": "m", "input": "x", "store": False}), "m", 1)
    response = draft.response("in_progress")
    assert response["id"] == draft.id
    assert draft.id.startswith("resp_")
    assert (response["store"], response["background"], response["previous_response_id"]) == (False, False, None)
    assert (response["text"], response["tool_choice"], response["tools"]) == ({"format": {"type": "text"}}, "auto", [])
    assert (response["truncation"], response["metadata"], response["parallel_tool_calls"]) == ("disabled", {}, True)
    assert (response["output"], response["usage"]) == ([], None)
    assert msgspec.json.encode(response)


def test_every_response_has_an_id_of_its_own() -> None:
    checked = RULES.check({"model": "m", "input": "x"})
    assert Draft(checked, "m", 1).id != Draft(checked, "m", 1).id
