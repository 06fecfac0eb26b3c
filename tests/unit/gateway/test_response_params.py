"""The parameters of /responses: what is taken, what is refused and in whose words, and that nothing typed is echoed."""

from typing import Any

import pytest

from keepless.config import Engine, ModelConfig
from keepless.errors import Problem
from keepless.gateway.response_params import PARAMETERS, ResponseRules, bridged_capabilities
from keepless.inference.embedded.dialect import CAPABILITIES as EMBEDDED
from keepless.policy.controls import RequestControls

M = "MARKER"
MODEL = ModelConfig(id="m", engine=Engine.OPENAI, base_url="http://x", max_completion_tokens=100)
NATIVE = ResponseRules(MODEL, None)
BRIDGED = ResponseRules(MODEL, bridged_capabilities(None))
SMALL = ResponseRules(MODEL, bridged_capabilities(EMBEDDED))
TOOL = {"type": "function", "name": "f", "parameters": {}}
ZDR = "cannot be used for this organization due to Zero Data Retention."


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "input": "hello", **more}


GOOD: list[dict[str, Any]] = [
    {},
    {"instructions": None, "store": False, "previous_response_id": None, "background": False, "conversation": None},
    {"stream": True, "stream_options": {"include_obfuscation": False}},
    {"max_output_tokens": 100, "temperature": 2, "top_p": 0.5, "truncation": "disabled"},
    {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
    {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [TOOL]}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}}},
    {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
    {"reasoning": {"effort": None, "summary": None}, "include": ["reasoning.encrypted_content"]},
    {"metadata": {"a" * 64: "b" * 512}, "user": M, "safety_identifier": M, "prompt_cache_key": M},
    {"service_tier": "auto", "top_logprobs": 0},
]


@pytest.mark.parametrize("rules", [NATIVE, BRIDGED, SMALL])
@pytest.mark.parametrize("more", GOOD)
def test_what_every_model_takes(rules: ResponseRules, more: dict[str, Any]) -> None:
    checked = rules.check(body(**more))
    assert None not in checked.body.values()
    assert "store" not in checked.body
    assert checked.stream is more.get("stream", False)


def test_what_was_asked_for_is_known() -> None:
    checked = BRIDGED.check(body(store=False, max_output_tokens=7.0, include=["message.output_text.logprobs"]))
    assert (checked.controls, checked.max_tokens, checked.logprobs) == (RequestControls(keep_nothing=True), 7, True)


BAD: list[tuple[dict[str, Any], int, str, str | None, str]] = [
    ({"input": None}, 400, "missing_required_parameter", "input", "Missing"),
    ({M: M}, 400, "unknown_parameter", None, "position 2"),
    ({"previous_response_id": M}, 400, "unsupported_parameter", "previous_response_id", f"Previous response {ZDR}"),
    ({"conversation": {"id": M}}, 400, "unsupported_parameter", "conversation", f"Conversation {ZDR}"),
    ({"background": True}, 400, "unsupported_parameter", "background", f"Background mode {ZDR}"),
    ({"store": True}, 400, "loosening_refused", "store", "only tighten"),
    ({"input": [{"type": "item_reference", "id": M}]}, 404, "not_found", "input", "Items are not persisted for Zero"),
    ({"max_output_tokens": 101}, 400, "invalid_value", "max_output_tokens", "at most 100"),
    ({"max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens", "integer from 1"),
    ({"stream_options": {}}, 400, "invalid_value", "stream_options", "only allowed when"),
    ({"tools": M}, 400, "invalid_type", "tools", "array"),
    ({"tools": [TOOL, TOOL]}, 400, "invalid_value", "tools", "different names"),
    ({"tools": [{**TOOL, "name": f"{M} {M}"}]}, 400, "invalid_value", "tools[0].name", "1 to 64"),
    ({"tools": [{**TOOL, "parameters": M}]}, 400, "invalid_type", "tools[0].parameters", "object"),
    ({"tools": [{**TOOL, M: 1}]}, 400, "unknown_parameter", "tools[0]", "position 3"),
    ({"tools": [TOOL] * 129}, 400, "invalid_value", "tools", "128"),
    ({"tool_choice": "required"}, 400, "invalid_value", "tool_choice", "'tools' to choose from"),
    ({"tool_choice": M}, 400, "invalid_value", "tool_choice", "none, auto"),
    ({"tool_choice": 1}, 400, "invalid_type", "tool_choice", "string or an object"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": M}},
        400,
        "invalid_value",
        "tool_choice.name",
        "one of 'tools'",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": M, "tools": [TOOL]}},
        400,
        "invalid_value",
        "tool_choice.mode",
        "auto",
    ),
    ({"text": {"format": {"type": M}}}, 400, "invalid_value", "text.format.type", "json_object"),
    ({"text": {"format": {}}}, 400, "missing_required_parameter", "text.format.type", "Missing"),
    (
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        400,
        "missing_required_parameter",
        "text.format.schema",
        "Missing",
    ),
    ({"text": {"verbosity": M}}, 400, "invalid_value", "text.verbosity", "high"),
    ({"reasoning": {"effort": M}}, 400, "invalid_value", "reasoning.effort", "low"),
    ({"include": [M]}, 400, "invalid_value", "include[0]", "reasoning.encrypted_content"),
    ({"include": M}, 400, "invalid_type", "include", "array"),
    ({"metadata": {M: 1}}, 400, "invalid_value", "metadata", "strings of at most 512"),
    ({"metadata": dict.fromkeys(map(str, range(17)), M)}, 400, "invalid_value", "metadata", "16 pairs"),
    ({"metadata": {M * 20: M}}, 400, "invalid_value", "metadata", "64 characters"),
    ({"truncation": M}, 400, "invalid_value", "truncation", "auto"),
    ({"provider": {"zdr": M}}, 400, "invalid_value", "provider.zdr", "privacy switch"),
]


@pytest.mark.parametrize("rules", [NATIVE, BRIDGED, SMALL])
@pytest.mark.parametrize(("more", "status", "code", "param", "words"), BAD)
def test_what_no_model_takes(
    rules: ResponseRules, more: dict[str, Any], status: int, code: str, param: str | None, words: str
) -> None:
    with pytest.raises(Problem) as caught:
        rules.check(body(**more))
    problem = caught.value
    assert (problem.status, problem.code, problem.param) == (status, code, param)
    assert words in problem.message
    assert M not in f"{problem.message} {problem.param} {problem.extra} {problem.headers}"


ONLY_NATIVE: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"truncation": "auto"}, "truncation"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"max_tool_calls": 3}, "max_tool_calls"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"input": [{"type": "mcp_call"}]}, "input[0].type"),
]


@pytest.mark.parametrize(("more", "param"), ONLY_NATIVE)
def test_what_a_bridge_has_no_word_for_is_refused_in_groqs_words(more: dict[str, Any], param: str) -> None:
    NATIVE.check(body(**more))
    with pytest.raises(Problem) as caught:
        BRIDGED.check(body(**more))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)
    assert caught.value.message.endswith("is not supported with this model")


LACKING: list[tuple[dict[str, Any], str]] = [
    ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]}, "input[0].content[0].type"),
]


@pytest.mark.parametrize(("more", "param"), LACKING)
def test_what_a_model_lacks_is_refused(more: dict[str, Any], param: str) -> None:
    BRIDGED.check(body(**more))
    with pytest.raises(Problem) as caught:
        SMALL.check(body(**more))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_an_endpoint_may_have_fewer_parameters() -> None:
    rules = ResponseRules(MODEL, None, only={"model", "input"}.__contains__)
    rules.check(body())
    with pytest.raises(Problem):
        rules.check(body(stream=True))


def test_the_operators_extra_parameters_pass() -> None:
    rules = ResponseRules(ModelConfig(id="m", extra_params=["beam"]), bridged_capabilities(EMBEDDED))
    assert rules.check(body(beam=3)).body["beam"] == 3


def test_openais_parameters_are_all_known() -> None:
    from openai.types.responses import response_create_params as params

    sent = params.ResponseCreateParamsNonStreaming.__annotations__ | params.ResponseCreateParamsBase.__annotations__
    assert sent.keys() <= PARAMETERS.keys()
