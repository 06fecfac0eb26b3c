"""A chat engine's stream as events: their order, their numbers, and that `done` says what the deltas said."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.config import ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway.response_answer import decode_chunk
from keepless.gateway.response_events import Events
from keepless.gateway.response_object import Draft
from keepless.gateway.response_params import ResponseRules
from keepless.inference.asking import MalformedError
from tests.support.responses import STOP, USAGE, call, delta, kinds, read

RULES = ResponseRules(ModelConfig(id="m"), None)
BEGIN = ["created", "in_progress"]
TEXT = ["output_item.added", "content_part.added", "output_text.delta"]
TEXT_DONE = ["output_text.done", "content_part.done", "output_item.done"]
CALL = ["output_item.added", "function_call_arguments.delta"]
CALL_DONE = ["function_call_arguments.done", "output_item.done"]


def events(**more: Any) -> Events:
    made = Events(Draft(RULES.check({"model": "m", "input": "x", **more}), "m", 1_700_000_000))
    made.begin()
    return made


def fed(*chunks: dict[str, Any], finish: bool = True) -> list[dict[str, Any]]:
    made = events()
    for chunk in chunks:
        made.chunk(decode_chunk(msgspec.json.encode(chunk)))
    if finish:
        assert made.finish()
    return read(made.take())


def test_a_text() -> None:
    found = fed(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"), STOP, USAGE)
    assert kinds(found) == [*BEGIN, *TEXT, "output_text.delta", *TEXT_DONE, "completed"]
    assert [event["delta"] for event in found if event["type"].endswith("delta")] == ["Hel", "lo"]
    done = found[-1]["response"]
    assert (done["status"], done["store"], done["error"], done["completed_at"] > 0) == ("completed", False, None, True)
    assert done["output"][0]["content"] == [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}]
    assert done["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }
    assert found[0]["response"]["status"] == found[1]["response"]["status"] == "in_progress"
    assert {event["response"]["id"] for event in found if "response" in event} == {done["id"]}


def test_a_call_of_a_function() -> None:
    found = fed(call(0, call_id="c1", name="f"), call(0, '{"a"'), call(0, ":1}"), STOP)
    assert kinds(found) == [*BEGIN, *CALL, "function_call_arguments.delta", *CALL_DONE, "completed"]
    assert found[2]["item"]["arguments"] == ""
    item = found[-1]["response"]["output"][0]
    assert (item["type"], item["call_id"], item["name"], item["arguments"]) == ("function_call", "c1", "f", '{"a":1}')
    assert item["id"].startswith("fc_")


@pytest.mark.parametrize("number", [lambda index: index, lambda _: None])
def test_several_calls_after_a_text(number: Any) -> None:
    found = fed(
        delta(content="Let me see."),
        call(number(0), "{}", call_id="c1", name="f"),
        call(number(1), call_id="c2", name="g"),
        call(number(1), "[]"),
        STOP,
    )
    assert kinds(found) == [*BEGIN, *TEXT, *TEXT_DONE, *CALL, *CALL_DONE, *CALL, *CALL_DONE, "completed"]
    assert [event["output_index"] for event in found if event["type"] == "response.output_item.done"] == [0, 1, 2]
    assert [item.get("name") for item in found[-1]["response"]["output"]] == [None, "f", "g"]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_an_item_before_the_answer(name: str) -> None:
    found = fed(delta(**{name: "Hm."}), delta(content="Yes."), STOP)
    assert kinds(found) == [
        *BEGIN,
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        *TEXT,
        *TEXT_DONE,
        "completed",
    ]
    thought = found[-1]["response"]["output"][0]
    assert (thought["type"], thought["summary"]) == ("reasoning", [])
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]


def test_a_refusal_within_a_message_is_a_part_of_its_own() -> None:
    found = fed(delta(content="I "), delta(refusal="will not"), STOP)
    assert kinds(found) == [
        *BEGIN,
        *TEXT,
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    parts = found[-1]["response"]["output"][0]["content"]
    assert [part["type"] for part in parts] == ["output_text", "refusal"]
    assert [event["content_index"] for event in found if "content_index" in event] == [0] * 4 + [1] * 4


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    found = fed(delta(role="assistant"), STOP)
    assert kinds(found) == [*BEGIN, "output_item.added", "content_part.added", *TEXT_DONE, "completed"]


def test_logprobs_go_with_their_deltas() -> None:
    logprob = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    chunk = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [logprob]}}]}
    found = fed(chunk, chunk, STOP)
    assert [event["logprobs"] for event in found if event["type"].endswith("text.delta")] == [[logprob]] * 2
    assert found[-1]["response"]["output"][0]["content"][0]["logprobs"] == [logprob] * 2


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_stopped_is_incomplete(finish: str, reason: str) -> None:
    found = fed(delta(content="a"), {"choices": [{"delta": {}, "finish_reason": finish}]})
    assert kinds(found)[-1] == "incomplete"
    response = found[-1]["response"]
    assert response["incomplete_details"] == {"reason": reason}
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["output"][0]["status"] == "incomplete"


def test_a_stream_that_fails_ends_so_and_says_nothing_more() -> None:
    made = events()
    made.chunk(decode_chunk(msgspec.json.encode(delta(content="a"))))
    made.fail(Problem(502, Code.UPSTREAM_CUT, "It ended too early."))
    made.fail(Problem(502, Code.UPSTREAM_CUT, "Again."))
    found = read(made.take())
    assert kinds(found) == [*BEGIN, *TEXT, "failed"]
    assert found[-1]["response"]["status"] == "failed"
    assert found[-1]["response"]["error"]["message"] == "It ended too early."
    assert (made.ended, made.failed) == (True, True)


def test_an_end_that_was_not_announced_is_none() -> None:
    made = events()
    made.chunk(decode_chunk(msgspec.json.encode(delta(content="a"))))
    assert not made.finish()
    assert not made.ended


@pytest.mark.parametrize("chunk", [call(0, "x"), call(0, "x", name="f"), call(0, "x", call_id="c")])
def test_a_call_without_a_beginning_is_malformed(chunk: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        fed(chunk)


PIECES = st.one_of(
    st.builds(lambda text: ("text", text), st.text(min_size=1, max_size=5)),
    st.builds(lambda text: ("thought", text), st.text(min_size=1, max_size=5)),
    st.builds(lambda text: ("refusal", text), st.text(min_size=1, max_size=5)),
    st.builds(lambda text: ("call", text), st.text(max_size=5)),
)


@given(st.lists(PIECES, max_size=12))
def test_whatever_comes_done_says_what_the_deltas_said(pieces: list[tuple[str, str]]) -> None:
    """Every item is added, then done, in its place; nothing is lost and nothing comes after its item is done."""
    names = {"text": "content", "thought": "reasoning", "refusal": "refusal"}
    chunks = [
        call(index, text, call_id=f"c{index}", name="f") if kind == "call" else delta(**{names[kind]: text})
        for index, (kind, text) in enumerate(pieces)
    ]
    found = fed(*chunks, STOP)
    opened: list[int] = []
    deltas: dict[str, str] = {}
    for event in found:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(opened)
            opened.append(event["output_index"])
        elif kind == "response.output_item.done":
            assert opened[-1] == event["output_index"]
            deltas.pop("open", None)
        elif kind.endswith(".delta"):
            assert event["output_index"] == opened[-1]
            deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
    for item in found[-1]["response"]["output"]:
        said = item.get("arguments")
        if said is None:
            said = "".join(part.get("text", part.get("refusal")) for part in item["content"])
        assert said == deltas.get(item["id"], "")
    assert "".join(text for _, text in pieces) == "".join(deltas.values())
