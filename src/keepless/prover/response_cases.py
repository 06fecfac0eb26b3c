"""What the prover sends to /responses: through the bridge to chat, and to an upstream that speaks it itself.

Holds: `fault_cases`, `embedded_cases`, `plain_cases` (as in cases), `native` (the model that is asked natively). Leaves
out: the other endpoints (cases), sending (run), whether what came back is right (check).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from keepless.policy.decision import Reason
from keepless.prover.cases import FAILING, UNREACHABLE, Case, Mark, request
from keepless.prover.upstream import Temper
from keepless.prover.wire import Manner, Request

__all__ = ["embedded_cases", "fault_cases", "native", "plain_cases"]

_PATH: Final = "/v1/responses"
# An upstream of its own behaves no differently in its patience or its HTTP: what differs is how an answer is read.
_READ_NATIVELY: Final = (
    Temper.WELL, Temper.BAD_REQUEST, Temper.BROKEN, Temper.CUT, Temper.STUCK, Temper.NOT_JSON, Temper.WRONG_TYPE,
)  # fmt: skip


def native(temper: str) -> str:
    """The model that behaves so and is asked for /responses."""
    return f"native-{temper}"


def _body(mark: Mark, model: str, *, stream: bool, tools: bool, **more: Any) -> bytes:
    """The body of a request with a marker in each part."""
    call_id = mark("call id")
    text = {"type": "input_text", "text": mark("user message")}
    sealed = {"type": "reasoning", "id": mark("reasoning id"), "summary": [], "encrypted_content": mark("reasoning")}
    called = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": mark("arguments")}
    body: dict[str, Any] = {
        "model": model,
        "stream": stream,
        "max_output_tokens": 16,
        "instructions": mark("instructions"),
        "user": mark("user"),
        "metadata": {mark("metadata name"): mark("metadata value")},
        "prompt_cache_key": mark("cache key"),
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"role": "user", "content": [text]},
            sealed,
            called,
            {"type": "function_call_output", "call_id": call_id, "output": mark("function output")},
        ],
    }
    if tools:
        schema = {"type": "object", "properties": {mark("tool parameter"): {"type": "string"}}}
        tool = {"type": "function", "name": mark("tool name"), "description": mark("tool"), "parameters": schema}
        body |= {"tools": [tool], "safety_identifier": mark("safety identifier")}
    return json.dumps(body | more).encode()


def _case(
    name: str,
    model: str,
    status: int | None = None,
    reason: Reason | None = None,
    *,
    stream: bool = False,
    manner: Manner = Manner.WHOLE,
    tools: bool = True,
    forbids: bool = False,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Case:
    def make(mark: Mark) -> Request:
        return request(mark, _body(mark, model, stream=stream, tools=tools, **more), manner, headers, path=_PATH)

    statuses = frozenset[int]() if status is None else frozenset({status})
    return Case(name, make, statuses, reason, streamed=stream, forbids=forbids)


def fault_cases() -> list[Case]:
    """Every path of /responses through a server whose models are named after `Temper`."""
    cases = []
    for temper, (whole, streamed, reason) in FAILING.items():
        own = [native(temper)] if temper in _READ_NATIVELY else []
        for model in (temper, *own):
            cases.append(_case(f"responses: {model}", model, whole, reason))
            cases.append(_case(f"responses: {model}, streamed", model, streamed, reason, stream=True))
    zero = {"x-keepless-retention": "zero"}
    failing, endless = Temper.ERROR_EVENT, Temper.ENDLESS
    return [
        *cases,
        *(
            _case(f"responses: {model}", model, 200, Reason.UPSTREAM_5XX, stream=True)
            for model in (failing, native(failing))
        ),
        *(
            _case(f"responses: {model}, client leaves", model, 200, stream=True, manner=Manner.LEAVES)
            for model in (endless, native(endless))
        ),
        _case("responses: unreachable", UNREACHABLE, 502),
        _case("responses: request says store: false", Temper.BROKEN, 502, forbids=True, store=False),
        _case("responses: request says zero", native(Temper.CUT), 200, stream=True, forbids=True, headers=zero),
        _case("responses: client leaves in its body", Temper.WELL, 0, manner=Manner.HALF),
        *_refused(),
    ]


def _refused() -> list[Case]:
    """Requests that never reach an engine."""

    def refused(name: str, status: int, **more: Any) -> Case:
        def make(mark: Mark) -> Request:
            said = {key: value(mark) if callable(value) else value for key, value in more.items()}
            return request(mark, _body(mark, Temper.WELL, stream=False, tools=True, **said), path=_PATH)

        return Case(f"responses: {name}", make, frozenset({status}))

    return [
        refused("previous response", 400, previous_response_id=lambda mark: mark("response id")),
        refused("conversation", 400, conversation=lambda mark: {"id": mark("conversation")}),
        refused("background", 400, background=True),
        refused("stored item", 404, input=lambda mark: [{"type": "item_reference", "id": mark("item id")}]),
        refused("wrong type", 400, temperature=lambda mark: mark("temperature")),
        refused("unknown item", 400, input=lambda mark: [{"type": mark("item type")}]),
        Case("responses: kept elsewhere", _retrieved, frozenset({404})),
    ]


def _retrieved(mark: Mark) -> Request:
    return request(mark, b"{}", path=f"{_PATH}/{mark('response id')}/cancel")


def plain_cases(model: str) -> list[Case]:
    """What can be asked of any deployment: how its model answers is not known, so any status is right."""
    return [
        _case("responses: answer", model, tools=False),
        _case("responses: answer, streamed", model, stream=True, tools=False),
        _case("responses: request says store: false", model, tools=False, forbids=True, store=False),
        _case("responses: client leaves", model, stream=True, tools=False, manner=Manner.LEAVES),
    ]


def embedded_cases(model: str) -> list[Case]:
    """The ways of an embedded engine."""

    def counted(mark: Mark) -> Request:
        body = {"model": model, "instructions": mark("instructions"), "input": mark("input")}
        return request(mark, json.dumps(body).encode(), path=f"{_PATH}/input_tokens")

    return [
        _case("responses: embedded engine", model, 200, tools=False),
        _case("responses: embedded engine, streamed", model, 200, stream=True, tools=False),
        _case(
            "responses: embedded engine, client leaves",
            model,
            200,
            stream=True,
            tools=False,
            manner=Manner.LEAVES,
            max_output_tokens=1500,
        ),
        Case("responses: embedded engine, count", counted, frozenset({200})),
    ]
