"""Chat examples as texts to learn from: what the engine would put before the model, and what the model is to say then.

Holds: `Piece`, `texts_of`. Leaves out: tokens (tokens), what an example may look like (tuning.dataset, long before).

Each answer with a weight of 1 (or none) is learned in the place where the engine would ask for it: the messages before
it go through the engine's own translation (dialect: roles, tools in words) and the model's template; then comes what
the model must say, a call of a function in the form that the engine forces. All else is read and not learned.
Answers of one example share a text as long as what was asked goes on from what was said; where tools are offered
differently from turn to turn, they do not, and a new text begins. Of several calls in one answer the first is learned,
since the engine makes one at a time.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from keepless.errors import KeeplessError, Problem
from keepless.inference.embedded.dialect import NONE, as_asked

__all__ = ["ExampleError", "Piece", "Render", "texts_of"]

Json = dict[str, Any]
Render = Callable[[list[Json], bool], str]  # messages, whether an answer is to begin
_FUNCTIONS: Final = ("tool", "function")


class ExampleError(KeeplessError):
    """An example is not what was checked before."""


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    learned: bool


def texts_of(line: bytes, render: Render) -> Iterator[list[Piece]]:
    """The texts of one example, each with something to learn at its end. Raises `ExampleError`."""
    try:
        example = msgspec.json.decode(line, type=Json)
        messages = example["messages"]
        tools = [tool["function"] for tool in example.get("tools") or []]
        pieces: list[Piece] = []
        so_far = ""
        for index, message in enumerate(messages):
            if index == 0 or message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            before, answer = _turn(messages[:index], message, tools)
            prompt = render(before, True)
            whole = render([*before, {"role": "assistant", "content": answer}], False)
            if not whole.startswith(prompt):
                raise ExampleError
            if pieces and prompt.startswith(so_far):
                pieces.append(Piece(prompt[len(so_far) :], False))
            else:
                if pieces:
                    yield pieces
                pieces = [Piece(prompt, False)]
            pieces.append(Piece(whole[len(prompt) :], True))
            so_far = whole
        if pieces:
            yield pieces
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError, RecursionError, Problem):
        raise ExampleError from None


def _turn(before: list[Json], message: Json, tools: list[Json]) -> tuple[list[Json], str]:
    """The messages as the engine asks for this answer, and the answer as the model is to write it."""
    calls = message.get("tool_calls") or []
    after_function = before[-1]["role"] in _FUNCTIONS
    # After a function's result the engine asks for words, unless it was told that a function must be called.
    asked = as_asked(before, tools, forced=after_function and bool(calls))
    words = as_asked([message | {"tool_calls": None}], [])[0]["content"]
    if calls:
        function = calls[0]["function"]
        call = {"name": function["name"], "arguments": json.loads(function["arguments"] or "{}")}
        return asked, json.dumps(call, ensure_ascii=False)
    if tools and not after_function:
        return asked, json.dumps({"name": NONE, "message": words}, ensure_ascii=False)
    return asked, words
