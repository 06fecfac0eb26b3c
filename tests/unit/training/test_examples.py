"""What of an example is learned, and in which place."""

import json
from typing import Any

import pytest

from keepless.training.examples import ExampleError, texts_of

Json = dict[str, Any]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CUT = b'{"function": {"name": "f", "arguments": "{"}}'
CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Zürich"}'}}


def render(messages: list[Json], answer: bool) -> str:
    text = "".join(f"<{message['role']}>{message['content']}." for message in messages)
    return text + ("<assistant>" if answer else "")


def said(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def texts(*messages: Json, **more: Any) -> list[list[tuple[str, bool]]]:
    line = json.dumps({"messages": messages, **more}).encode()
    return [[tuple(piece) for piece in pieces] for pieces in texts_of(line, render)]


def test_the_answer_is_learned_and_the_question_is_not() -> None:
    assert texts(said("system", "S"), said("user", "Q"), said("assistant", "A")) == [
        [("<system>S.<user>Q.<assistant>", False), ("A.", True)]
    ]


def test_several_answers_share_a_text() -> None:
    turns = [said("user", "Q"), said("assistant", "A"), said("user", "R"), said("assistant", "B"), said("user", "T")]
    assert texts(*turns) == [
        [("<user>Q.<assistant>", False), ("A.", True), ("<user>R.<assistant>", False), ("B.", True)]
    ]


def test_an_answer_of_weight_0_is_read_only() -> None:
    turns = [said("user", "Q"), said("assistant", "A", weight=0), said("user", "R"), said("assistant", "B", weight=1)]
    assert texts(*turns) == [[("<user>Q.<assistant>A.<user>R.<assistant>", False), ("B.", True)]]
    assert texts(*turns[:2]) == []


def test_a_call_is_learned_as_the_engine_makes_it() -> None:
    turns = [said("user", "Q"), {"role": "assistant", "tool_calls": [CALL, CALL]}]
    [[asked, learned]] = texts(*turns, tools=[WEATHER])
    assert learned == ('{"name": "weather", "arguments": {"city": "Zürich"}}.', True)
    assert asked[0].startswith("<system>You can call functions.")
    assert '"name":"weather"' in asked[0]


def test_words_where_a_call_was_possible_are_learned_as_the_engine_wants_them() -> None:
    [[_, learned]] = texts(said("user", "Q"), said("assistant", "No."), tools=[WEATHER])
    assert learned == ('{"name": "none", "message": "No."}.', True)


def test_after_a_function_s_result_the_engine_asks_for_words_so_another_text_begins() -> None:
    turns = [
        said("user", "Q"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        said("tool", "Rain", tool_call_id="c"),
        said("assistant", "It rains."),
    ]
    first, second = texts(*turns, tools=[WEATHER])
    assert first[-1][0].startswith('{"name": "weather"')
    asked = '<user>Q.<assistant>I will ask weather: {"city":"Zürich"}.'
    answered = "<user>weather answered: Rain\nNow answer my question..<assistant>"
    assert second == [(asked + answered, False), ("It rains..", True)]


def test_a_second_call_after_a_result_is_asked_for_by_force() -> None:
    turns = [
        said("user", "Q"),
        {"role": "assistant", "tool_calls": [CALL], "weight": 0},
        said("tool", "?", tool_call_id="c"),
        {"role": "assistant", "tool_calls": [CALL]},
    ]
    [[asked, learned]] = texts(*turns, tools=[WEATHER])
    assert "Answer with one JSON object" in asked[0]
    assert learned[0].startswith('{"name": "weather"')


def test_contents_in_parts_are_their_texts() -> None:
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert texts(said("user", "Q"), said("assistant", parts))[0][1] == ("A\nB.", True)


def test_who_speaks_first_is_only_read() -> None:
    assert texts(said("assistant", "Hello"), said("user", "Q"), said("assistant", "A")) == [
        [("<assistant>Hello.<user>Q.<assistant>", False), ("A.", True)]
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"messages": 1}',
        b'{"messages": [{"role": "user"}, {"role": "assistant", "content": 1}]}',
        b'{"messages": [{"role": "user"}, {"role": "assistant", "tool_calls": [{}]}]}',
        b'{"messages": [{"role": "user"}, {"role": "assistant", "tool_calls": [%b]}]}' % CUT,
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": ""}]}',
    ],
    ids=range(8),
)
def test_what_is_no_example(line: bytes) -> None:
    with pytest.raises(ExampleError) as caught:
        list(texts_of(line, render))
    assert caught.value.__cause__ is None


def test_a_template_that_does_not_go_on_from_its_own_question_is_no_way_to_learn() -> None:
    with pytest.raises(ExampleError):
        list(
            texts_of(
                json.dumps({"messages": [said("user", "Q"), said("assistant", "A")]}).encode(), lambda m, a: str(a)
            )
        )
