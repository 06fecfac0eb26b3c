"""Every parameter of chat/completions: what passes, what is refused, and that no refusal quotes a value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.config import Engine, ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway.chat_params import PARAMETERS, ChatRules
from keepless.gateway.rules import model_name
from keepless.policy.controls import NO_REQUEST, RequestControls
from tests.support.outcome import outcome

M = "MARKER"
MODEL = ModelConfig(id="m", engine=Engine.OPENAI, base_url="http://x", extra_params=["guided_regex"])
ALL = ChatRules(MODEL, None)
FEW = ChatRules(MODEL, frozenset({"streaming", "seed", "stop"}))
MESSAGES = [{"role": "user", "content": M}]
TOOL = {"type": "function", "function": {"name": "f", "description": M, "parameters": {"type": "object", M: M}}}

BAD_TYPES: list[tuple[str, Any]] = [
    ("messages", M),
    ("messages", {M: M}),
    ("stream", M),
    ("stream", 1),
    ("stream_options", M),
    ("max_tokens", M),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("max_completion_tokens", [M]),
    ("temperature", M),
    ("temperature", True),
    ("top_p", {M: M}),
    ("frequency_penalty", M),
    ("presence_penalty", M),
    ("seed", M),
    ("stop", {M: M}),
    ("n", M),
    ("logprobs", M),
    ("top_logprobs", M),
    ("logit_bias", [M]),
    ("tools", {M: M}),
    ("tool_choice", 1),
    ("parallel_tool_calls", M),
    ("response_format", M),
    ("user", {M: M}),
    ("safety_identifier", 1),
    ("prompt_cache_key", 1),
    ("service_tier", 1),
    ("reasoning_effort", 1),
    ("reasoning_format", [M]),
    ("include_reasoning", M),
    ("verbosity", 1),
    ("disable_tool_validation", M),
]
BAD_VALUES: list[tuple[str, Any, str]] = [
    ("messages", [], "messages"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", 8193, "max_tokens"),
    ("max_completion_tokens", 10**30, "max_completion_tokens"),
    ("temperature", 2.01, "temperature"),
    ("temperature", -1, "temperature"),
    ("top_p", 1.1, "top_p"),
    ("frequency_penalty", -3, "frequency_penalty"),
    ("presence_penalty", 3, "presence_penalty"),
    ("seed", 2**63, "seed"),
    ("stop", [M] * 5, "stop"),
    ("stop", "", "stop"),
    ("n", 0, "n"),
    ("top_logprobs", 21, "top_logprobs"),
    ("top_logprobs", 3, "top_logprobs"),
    ("logit_bias", {M: 1}, "logit_bias"),
    ("logit_bias", {"5": 101}, "logit_bias"),
    ("tools", [TOOL] * 129, "tools"),
    ("tools", [TOOL, TOOL], "tools"),
    ("tool_choice", M, "tool_choice"),
    ("tool_choice", {"type": M}, "tool_choice.type"),
    ("tool_choice", "required", "tool_choice"),
    ("modalities", [M], "modalities"),
    ("response_format", {"type": M}, "response_format.type"),
    ("user", M * 100, "user"),
    ("safety_identifier", M * 100, "safety_identifier"),
    ("prompt_cache_key", M * 1000, "prompt_cache_key"),
    ("service_tier", M, "service_tier"),
    ("reasoning_effort", M, "reasoning_effort"),
    ("reasoning_format", M, "reasoning_format"),
    ("verbosity", M, "verbosity"),
    ("stream_options", {"include_usage": True}, "stream_options"),
]
OTHERS: list[tuple[dict[str, Any], Code, str | None]] = [
    ({M: 1}, Code.UNKNOWN_PARAMETER, None),
    ({"stream": True, "stream_options": {M: True}}, Code.UNKNOWN_PARAMETER, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": M}}, Code.INVALID_TYPE, "stream_options.include_usage"),
    ({"max_tokens": 1, "max_completion_tokens": 1}, Code.INVALID_VALUE, "max_tokens"),
    ({"include_reasoning": True, "reasoning_format": "raw"}, Code.INVALID_VALUE, "include_reasoning"),
    ({"store": True}, Code.LOOSENING_REFUSED, "store"),
    ({"provider": {"zdr": M}}, Code.INVALID_VALUE, "provider.zdr"),
    ({"metadata": {M: M}}, Code.UNSUPPORTED_PARAMETER, "metadata"),
    ({"stop": [M, 1]}, Code.INVALID_TYPE, "stop"),
    ({"tools": [M]}, Code.INVALID_TYPE, "tools[0]"),
    ({"tools": [{"function": {}}]}, Code.INVALID_VALUE, "tools[0].type"),
    ({"tools": [{"type": "function", M: 1}]}, Code.UNKNOWN_PARAMETER, "tools[0]"),
    ({"tools": [{"type": "function"}]}, Code.INVALID_TYPE, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {M: 1}}]}, Code.UNKNOWN_PARAMETER, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, Code.MISSING_PARAMETER, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": 1}}]}, Code.INVALID_TYPE, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": M + " "}}]}, Code.INVALID_VALUE, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": M}}]},
        Code.INVALID_TYPE,
        "tools[0].function.parameters",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": M}}},
        Code.INVALID_VALUE,
        "tool_choice.function.name",
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "function", M: M}}, Code.UNKNOWN_PARAMETER, "tool_choice"),
    ({"response_format": {M: M}}, Code.UNKNOWN_PARAMETER, "response_format"),
    ({"response_format": {}}, Code.MISSING_PARAMETER, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, Code.MISSING_PARAMETER, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        Code.MISSING_PARAMETER,
        "response_format.json_schema.name",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": M}}},
        Code.INVALID_TYPE,
        "response_format.json_schema.schema",
    ),
]
NOT_HERE: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"tools": [TOOL]}, "tools"),
    ({"functions": [{M: M}]}, "functions"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"include_reasoning": True}, "include_reasoning"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"audio": {M: M}}, "audio"),
    ({"prediction": M}, "prediction"),
    ({"documents": [M]}, "documents"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"metadata": {"a": M}}, "metadata"),
]
FINE: list[dict[str, Any]] = [
    {},
    {"temperature": 0, "top_p": 1, "max_tokens": 8192, "seed": -1, "stop": "x", "user": "u"},
    {"n": 1, "logprobs": False, "logit_bias": {}, "tools": [], "top_logprobs": 0, "service_tier": "on_demand"},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    {"response_format": {"type": "text"}, "modalities": ["text"], "tool_choice": "none", "reasoning_effort": "none"},
    {"guided_regex": M, "parallel_tool_calls": False, "metadata": {}, "max_completion_tokens": 1.0},
    dict.fromkeys(PARAMETERS.keys() - {"model", "messages"}),
]
WITH_ALL: list[dict[str, Any]] = [
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tools": [{"type": "browser_search"}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}},
    {"response_format": {"type": "json_object"}, "n": 4, "logprobs": True, "top_logprobs": 5, "logit_bias": {"5": -1}},
    {"reasoning_effort": "high", "include_reasoning": True, "verbosity": "low", "search_settings": {}},
]


def ask(rules: ChatRules, more: dict[str, Any]) -> Any:
    return rules.check({"model": "m", "messages": MESSAGES, **more})


def refusal(rules: ChatRules, more: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        ask(rules, more)
    assert caught.value.status == 400
    assert M not in f"{caught.value.message}{caught.value.param}{caught.value.headers}{caught.value.extra}"
    return caught.value


@pytest.mark.parametrize(("name", "value"), BAD_TYPES)
def test_a_wrong_type_is_named(name: str, value: Any) -> None:
    problem = refusal(ALL, {name: value})
    assert (problem.code, problem.param) == (Code.INVALID_TYPE, name)


@pytest.mark.parametrize(("name", "value", "param"), BAD_VALUES)
def test_a_value_out_of_bounds_is_named(name: str, value: Any, param: str) -> None:
    problem = refusal(ALL, {name: value})
    assert (problem.code, problem.param) == (Code.INVALID_VALUE, param)


@pytest.mark.parametrize(("more", "code", "param"), OTHERS)
def test_other_refusals(more: dict[str, Any], code: Code, param: str | None) -> None:
    problem = refusal(ALL, more)
    assert (problem.code, problem.param) == (code, param)


@pytest.mark.parametrize(("more", "param"), NOT_HERE)
def test_what_the_model_cannot_do_is_said_in_groqs_words(more: dict[str, Any], param: str) -> None:
    problem = refusal(FEW, more)
    assert (problem.code, problem.param) == (Code.UNSUPPORTED_PARAMETER, param)
    assert problem.message.endswith("is not supported with this model")


@pytest.mark.parametrize("more", FINE)
@pytest.mark.parametrize("rules", [ALL, FEW])
def test_what_asks_for_nothing_special_passes(rules: ChatRules, more: dict[str, Any]) -> None:
    request = ask(rules, more)
    assert None not in request.body.values()


@pytest.mark.parametrize("more", WITH_ALL)
def test_what_needs_a_capability_passes_where_it_is(more: dict[str, Any]) -> None:
    assert ask(ALL, more).body == {"model": "m", "messages": MESSAGES, **more}


def test_an_unknown_name_is_told_by_its_position() -> None:
    problem = refusal(ALL, {"seed": 1, M: 1})
    assert "position 3" in problem.message


def test_what_a_request_comes_to() -> None:
    request = ask(ALL, {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 7.0, "n": 2})
    assert (request.stream, request.include_usage, request.max_tokens, request.choices) == (True, True, 7, 2)
    assert (request.controls, request.changed) == (NO_REQUEST, False)


@pytest.mark.parametrize("more", [{"store": False}, {"user": None}, {"provider": {"zdr": True}}])
def test_switches_and_nulls_are_taken_out(more: dict[str, Any]) -> None:
    request = ask(ALL, more)
    assert request.changed
    assert request.body == {"model": "m", "messages": MESSAGES}


def test_switches_become_controls() -> None:
    assert ask(ALL, {"store": False}).controls == RequestControls(keep_nothing=True)


@pytest.mark.parametrize(
    ("body", "code"),
    [({}, Code.MISSING_PARAMETER), ({"model": None}, Code.MISSING_PARAMETER), ({"model": [M]}, Code.INVALID_TYPE)],
)
def test_model_must_be_a_name(body: dict[str, Any], code: Code) -> None:
    with pytest.raises(Problem) as caught:
        model_name(body)
    assert (caught.value.code, caught.value.param) == (code, "model")


@pytest.mark.parametrize("body", [{"model": "m"}, {"model": "m", "messages": None}])
def test_messages_are_required(body: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        ALL.check(body)
    assert (caught.value.code, caught.value.param) == (Code.MISSING_PARAMETER, "messages")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just(M),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([M, "type", "function"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)), JSON), st.sampled_from([ALL, FEW]))
def test_nothing_but_a_problem_comes_out_and_it_is_silent(body: dict[str, Any], rules: ChatRules) -> None:
    problem = outcome(lambda: rules.check(body))
    assert problem is None or M not in f"{problem.message}{problem.param}"
