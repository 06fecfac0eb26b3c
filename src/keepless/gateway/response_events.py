"""A chat engine's stream as the events of /responses, in OpenAI's order and numbered.

Holds: `Events`, one a stream. Leaves out: where events begin and end in the bytes (stream), a whole answer
(response_answer), who writes them (responses).

The order: `response.created`, `response.in_progress`; for each item `output_item.added`, its parts and deltas, the same
once more as `done`, `output_item.done`; at last `response.completed`, `.incomplete` or `.failed`. One item is open at a
time: what belongs to another one closes it. An item that was closed cannot be gone on with.
"""

import time
from typing import Any, Final

import msgspec

from keepless.errors import Problem
from keepless.gateway.response_answer import ended, times_of, usage_of
from keepless.gateway.response_object import (
    Draft,
    Json,
    function_call,
    message,
    output_text,
    reasoning,
    reasoning_text,
    refusal,
)
from keepless.gateway.response_shapes import Call, Choice, Chunk
from keepless.ids import Prefix, mint
from keepless.inference.asking import MalformedError

__all__ = ["Events"]

_encode: Final = msgspec.json.Encoder().encode
_TEXT: Final = "text"
_REFUSAL: Final = "refusal"
_REASONING: Final = "reasoning"
# What a part is called in its events' types and members.
_DELTA: Final = {
    _TEXT: "response.output_text",
    _REFUSAL: "response.refusal",
    _REASONING: "response.reasoning_text",
}
_WHOLE: Final = {_TEXT: "text", _REFUSAL: "refusal", _REASONING: "text"}


class _Item:
    """The item that is open. `call`: (call id, name) of a function call, whose arguments are its one part."""

    __slots__ = ("call", "id", "index", "logprobs", "parts", "pieces", "position")

    def __init__(
        self, item_id: str, position: int, call: tuple[str, str] | None = None, index: int | None = None
    ) -> None:
        self.id = item_id
        self.position = position  # in the output
        self.call = call
        self.index = index  # the engine's, of a call
        self.parts: list[tuple[str, Json]] = []  # kind, the part when it is done
        self.pieces: list[str] = []  # of the part that is open
        self.logprobs: list[Any] = []

    def goes_on(self, call: Call) -> bool:
        """Whether a piece of a call belongs to this one. Not every engine numbers them, or names them only once."""
        if self.call is None:
            return False
        return call.index == self.index if call.index is not None else call.id in (None, "", self.call[0])


class Events:
    """One stream. What is not yet sent waits in `take`."""

    __slots__ = ("_draft", "_finish", "_item", "_kind", "_number", "_out", "ended", "failed")

    def __init__(self, draft: Draft) -> None:
        self._draft: Final = draft
        self._out: list[bytes] = []
        self._number = 0
        self._item: _Item | None = None
        self._kind: str | None = None  # of the part that is open
        self._finish: str | None = None
        self.ended = False  # its last event is out
        self.failed = False

    def take(self) -> bytes:
        """The events since the last call."""
        out, self._out = self._out, []
        return b"".join(out)

    def begin(self) -> None:
        """The first two events."""
        response = self._draft.response("in_progress")
        self._event("response.created", response=response)
        self._event("response.in_progress", response=response)

    def chunk(self, chunk: Chunk) -> None:
        """What a chunk adds. Raises `MalformedError`."""
        usage = usage_of(chunk)
        if usage is not None:
            self._draft.usage, self._draft.times = usage, times_of(chunk) or self._draft.times
        for choice in chunk.choices or ():
            self._choice(choice)

    def finish(self) -> bool:
        """The engine said that its stream is complete; whether it had said why."""
        if self._finish is None:
            return False
        if not self._draft.output and self._item is None:
            self._part(_TEXT)  # an answer of nothing is a message without words
        status, reason = ended(self._finish)
        self._close(status)
        self.ended = True
        now = int(time.time()) if status == "completed" else None
        self._event(f"response.{status}", response=self._draft.response(status, completed_s=now, reason=reason))
        return True

    def fail(self, problem: Problem) -> None:
        """The last event of a stream that failed."""
        if not self.ended:
            self.ended = self.failed = True
            error = {"code": "server_error", "message": problem.message, "type": problem.type, "param": None}
            self._event("response.failed", response=self._draft.response("failed", error=error))

    # -- what a chunk adds -----------------------------------------------------------------------------------------

    def _choice(self, choice: Choice) -> None:
        delta = choice.delta
        if delta is not None:
            thought = delta.reasoning or delta.reasoning_content
            if thought:
                self._say(_REASONING, thought, None)
            if delta.content:
                self._say(_TEXT, delta.content, choice.logprobs.content if choice.logprobs is not None else None)
            if delta.refusal:
                self._say(_REFUSAL, delta.refusal, None)
            for call in delta.tool_calls or ():
                self._call(call)
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason

    def _say(self, kind: str, text: str, logprobs: list[Any] | None) -> None:
        item = self._part(kind)
        item.pieces.append(text)
        more: Json = {}
        if kind == _TEXT:
            more["logprobs"] = logprobs or []
            item.logprobs += logprobs or []
        self._event(
            f"{_DELTA[kind]}.delta",
            item_id=item.id,
            output_index=item.position,
            content_index=len(item.parts),
            delta=text,
            **more,
        )

    def _call(self, call: Call) -> None:
        item, function = self._item, call.function
        if item is None or not item.goes_on(call):
            name = None if function is None else function.name
            if not name or not call.id:
                raise MalformedError
            self._close("completed")
            item = self._open(Prefix.FUNCTION_CALL, (call.id, name), call.index)
            shown = function_call(item.id, "in_progress", call.id, name, "")
            self._event("response.output_item.added", output_index=item.position, item=shown)
        if function is not None and function.arguments:
            item.pieces.append(function.arguments)
            self._event(
                "response.function_call_arguments.delta",
                item_id=item.id,
                output_index=item.position,
                delta=function.arguments,
            )

    # -- items and their parts -------------------------------------------------------------------------------------

    def _open(self, prefix: Prefix, call: tuple[str, str] | None = None, index: int | None = None) -> _Item:
        self._item = item = _Item(str(mint(prefix)), len(self._draft.output), call, index)
        return item

    def _part(self, kind: str) -> _Item:
        """The item whose part of this kind is open, opening what is not."""
        item = self._item
        if item is not None and self._kind == kind:
            return item
        thinks = kind == _REASONING
        if item is None or item.call is not None or thinks or self._kind == _REASONING:
            self._close("completed")
            item = self._open(Prefix.REASONING if thinks else Prefix.MESSAGE)
            shown = (reasoning if thinks else message)(item.id, "in_progress", [])
            self._event("response.output_item.added", output_index=item.position, item=shown)
        else:
            self._close_part(item)
        self._kind = kind
        self._part_event("added", item, _made(kind, "", []))
        return item

    def _close_part(self, item: _Item) -> None:
        kind = self._kind
        if kind is None:
            return
        text = "".join(item.pieces)
        part = _made(kind, text, item.logprobs)
        more: Json = {"logprobs": item.logprobs} if kind == _TEXT else {}
        self._event(
            f"{_DELTA[kind]}.done",
            item_id=item.id,
            output_index=item.position,
            content_index=len(item.parts),
            **{_WHOLE[kind]: text},
            **more,
        )
        self._part_event("done", item, part)
        item.parts.append((kind, part))
        item.pieces, item.logprobs, self._kind = [], [], None

    def _part_event(self, what: str, item: _Item, part: Json) -> None:
        self._event(
            f"response.content_part.{what}",
            item_id=item.id,
            output_index=item.position,
            content_index=len(item.parts),
            part=part,
        )

    def _close(self, status: str) -> None:
        """Close the item that is open, if one is."""
        item, self._item = self._item, None
        if item is None:
            return
        if item.call is not None:
            call_id, name = item.call
            arguments = "".join(item.pieces)
            self._event(
                "response.function_call_arguments.done",
                item_id=item.id,
                output_index=item.position,
                name=name,
                arguments=arguments,
            )
            shown = function_call(item.id, status, call_id, name, arguments)
        else:
            thinks = self._kind == _REASONING
            self._close_part(item)
            shown = (reasoning if thinks else message)(item.id, status, [part for _, part in item.parts])
        self._event("response.output_item.done", output_index=item.position, item=shown)
        self._draft.output.append(shown)

    def _event(self, kind: str, **members: Any) -> None:
        data = _encode({"type": kind, "sequence_number": self._number, **members})
        self._number += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), data))


def _made(kind: str, text: str, logprobs: list[Any]) -> Json:
    if kind == _REASONING:
        return reasoning_text(text)
    return refusal(text) if kind == _REFUSAL else output_text(text, logprobs)
