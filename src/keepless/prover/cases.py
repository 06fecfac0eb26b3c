"""What the prover sends, under which settings, and what may be kept of it: two tables.

Holds: `SETTINGS`, `Case`, `fault_cases` (for a deployment of the prover's own, whose upstream fails on purpose),
`embedded_cases`, `plain_cases` (for somebody else's deployment, of which it is not known how its models answer).
Leaves out: sending (run) and whether what came back is right (check).

Every part of a request that a client controls carries a marker of its own, so that a finding says which part leaked.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keepless.policy.decision import Reason
from keepless.prover.upstream import Temper
from keepless.prover.wire import Manner, Request

__all__ = [
    "BODY_BYTES",
    "FAILING",
    "SETTINGS",
    "UNREACHABLE",
    "Case",
    "Mark",
    "Setting",
    "chat",
    "embedded_cases",
    "fault_cases",
    "plain_cases",
    "request",
]

BODY_BYTES: Final = 64 * 1024  # the limit that the prover gives its own deployment
UNREACHABLE: Final = "unreachable"  # the model whose upstream does not listen
_PATH: Final = "/v1/chat/completions"
_DEPTH: Final = 200

Mark = Callable[[str], str]  # a part's name -> the text of a new marker


@dataclass(frozen=True, slots=True)
class Setting:
    """Data controls of one organization. `captures`: whether they allow that a failed request is kept."""

    name: str
    controls: Mapping[str, Any]
    captures: bool


SETTINGS: Final = (
    Setting("default", {}, captures=True),
    Setting("inference logging off", {"inference_logging": "off"}, captures=False),
    Setting("zero data retention", {"zero_data_retention": True}, captures=False),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One request. `statuses`: what the client may see (empty: anything, 0: nothing). `reason`: why it may be kept."""

    name: str
    make: Callable[[Mark], Request]
    statuses: frozenset[int] = field(default_factory=frozenset)
    reason: Reason | None = None
    streamed: bool = False
    forbids: bool = False  # the request itself says that nothing may be kept


def chat(mark: Mark, model: str, *, stream: bool, tools: bool = True, **more: Any) -> bytes:
    """The body of a chat request with a marker in each part."""
    body: dict[str, Any] = {
        "model": model,
        "stream": stream,
        "max_tokens": 16,
        "user": mark("user"),
        "messages": [
            {"role": "system", "content": mark("system message")},
            {"role": "user", "content": mark("user message")},
        ],
    }
    if tools:
        schema = {"type": "object", "properties": {mark("tool parameter"): {"type": "string"}}}
        function = {"name": mark("tool name"), "description": mark("tool description"), "parameters": schema}
        body |= {"stop": [mark("stop")], "tools": [{"type": "function", "function": function}]}
    return json.dumps(body | more).encode()


def _headers(mark: Mark, more: Mapping[str, str]) -> dict[str, str]:
    return {
        "user-agent": mark("user agent"),
        "cookie": f"session={mark('cookie')}",
        "x-request-id": mark("request id"),
        "referer": f"http://{mark('referer')}.invalid/",
        mark("header name"): mark("header value"),
        **more,
    }


def request(
    mark: Mark,
    body: bytes,
    manner: Manner = Manner.WHOLE,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = _PATH,
) -> Request:
    """A request with a marker in each part of its head."""
    return Request(f"{path}?{mark('query name')}={mark('query value')}", body, _headers(mark, headers or {}), manner)


def _chat_case(
    name: str,
    model: str,
    statuses: frozenset[int],
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
        body = chat(mark, model, stream=stream, tools=tools, **more)
        return request(mark, body, manner, headers)

    return Case(name, make, statuses, reason, streamed=stream, forbids=forbids)


# How the upstream behaves -> what a client sees: of a whole answer, of a stream; why the request may be kept.
FAILING: Final[Mapping[Temper, tuple[int, int, Reason | None]]] = {
    Temper.WELL: (200, 200, None),
    Temper.BAD_REQUEST: (400, 400, None),
    Temper.UNLIKE: (422, 422, None),
    Temper.NO_CREDENTIAL: (502, 502, None),
    Temper.BUSY: (503, 503, None),
    Temper.BROKEN: (502, 502, Reason.UPSTREAM_5XX),
    Temper.CUT: (502, 200, Reason.UPSTREAM_CUT),
    Temper.LATE: (504, 504, Reason.UPSTREAM_TIMEOUT),
    Temper.STUCK: (504, 200, Reason.UPSTREAM_TIMEOUT),
    Temper.GARBAGE: (502, 502, Reason.UPSTREAM_MALFORMED),
    Temper.NOT_JSON: (502, 502, Reason.UPSTREAM_MALFORMED),
    Temper.WRONG_TYPE: (502, 502, Reason.UPSTREAM_MALFORMED),
}


def fault_cases() -> list[Case]:
    """Every path of chat through a server whose models are named after `Temper`."""
    cases = []
    for temper, (whole, streamed, reason) in FAILING.items():
        cases.append(_chat_case(f"upstream: {temper}", temper, frozenset({whole}), reason))
        cases.append(_chat_case(f"upstream: {temper}, streamed", temper, frozenset({streamed}), reason, stream=True))
    broken, nothing = frozenset({502}), frozenset({0})
    begun_or_not = frozenset({200, 502})  # what is bad may come with the first event
    return [
        *cases,
        _chat_case("upstream: error-event", Temper.ERROR_EVENT, frozenset({200}), Reason.UPSTREAM_5XX, stream=True),
        _chat_case("upstream: bad-event", Temper.BAD_EVENT, begun_or_not, Reason.UPSTREAM_MALFORMED, stream=True),
        _chat_case("upstream: cut-late", Temper.CUT_LATE, frozenset({200}), Reason.UPSTREAM_CUT, stream=True),
        _chat_case("upstream: unreachable", UNREACHABLE, broken),
        _chat_case("request says store: false", Temper.BROKEN, broken, forbids=True, store=False),
        _chat_case(
            "request says zero retention",
            Temper.CUT,
            frozenset({200}),
            stream=True,
            forbids=True,
            headers={"x-keepless-retention": "zero"},
        ),
        _chat_case("client leaves", Temper.ENDLESS, frozenset({200}), stream=True, manner=Manner.LEAVES),
        _chat_case("client leaves in its body", Temper.WELL, nothing, manner=Manner.HALF),
        Case("body too large", _too_large, frozenset({0, 413})),
        *_refused(Temper.WELL),
    ]


def embedded_cases(model: str) -> list[Case]:
    """The ways of an embedded engine."""
    good = frozenset({200})
    return [
        _chat_case("embedded engine", model, good, tools=False),
        _chat_case("embedded engine, streamed", model, good, stream=True, tools=False),
        _chat_case(
            "embedded engine, client leaves",
            model,
            good,
            stream=True,
            tools=False,
            manner=Manner.LEAVES,
            max_tokens=1500,
        ),
        Case("embedded engine, too long", lambda mark: _too_long(mark, model), frozenset({400})),
    ]


def plain_cases(model: str) -> list[Case]:
    """What can be asked of any deployment: how its model answers is not known, so any status is right."""
    unknown: frozenset[int] = frozenset()
    return [
        _chat_case("answer", model, unknown, tools=False),
        _chat_case("answer, streamed", model, unknown, stream=True, tools=False),
        _chat_case("request says store: false", model, unknown, tools=False, forbids=True, store=False),
        _chat_case("client leaves", model, unknown, stream=True, tools=False, manner=Manner.LEAVES),
        _chat_case("client leaves in its body", model, frozenset({0}), tools=False, manner=Manner.HALF),
        *_refused(model),
    ]


def _too_long(mark: Mark, model: str) -> Request:
    words = " ".join([mark("user message"), *["and so on"] * 3000])
    return request(mark, json.dumps({"model": model, "messages": [{"role": "user", "content": words}]}).encode())


def _refused(model: str) -> list[Case]:
    """Requests that never reach an engine."""
    bad = frozenset({400})

    def wrong_key(mark: Mark) -> Request:
        return request(mark, chat(mark, model, stream=False), headers={"authorization": f"Bearer {mark('API key')}"})

    def wrong_path(mark: Mark) -> Request:
        return Request(f"/v1/{mark('path')}?{mark('query')}", chat(mark, model, stream=False), _headers(mark, {}))

    def half_json(mark: Mark) -> Request:
        return request(mark, chat(mark, model, stream=False)[:-9])

    def twice(mark: Mark) -> Request:
        return request(mark, b'{"user": "%b", %b' % (mark("first").encode(), chat(mark, model, stream=False)[1:]))

    def deep(mark: Mark) -> Request:
        tree = "[" * _DEPTH + f'"{mark("depth")}"' + "]" * _DEPTH
        return request(mark, b'{"x": %b, %b' % (tree.encode(), chat(mark, model, stream=False)[1:]))

    def not_text(mark: Mark) -> Request:
        return request(mark, chat(mark, model, stream=False).replace(b'"user":', b'"u\xff":'))

    def wrong_switch(mark: Mark) -> Request:
        return request(mark, chat(mark, model, stream=False), headers={"x-keepless-retention": mark("privacy switch")})

    return [
        Case("unknown model", lambda mark: request(mark, chat(mark, mark("model"), stream=False)), frozenset({404})),
        Case("wrong key", wrong_key, frozenset({401})),
        Case("unknown path", wrong_path, frozenset({404})),
        Case("half a JSON object", half_json, bad),
        Case("the same member twice", twice, bad),
        Case("deep nesting", deep, bad),
        Case("not UTF-8", not_text, bad),
        Case("unknown privacy switch", wrong_switch, bad),
        Case(
            "unknown parameter",
            lambda mark: request(mark, chat(mark, model, stream=False).replace(b'"user"', _quoted(mark("parameter")))),
            bad,
        ),
        Case(
            "metadata",
            lambda mark: request(mark, chat(mark, model, stream=False, metadata={mark("name"): mark("value")})),
            bad,
        ),
        Case(
            "wrong type",
            lambda mark: request(mark, chat(mark, model, stream=False, temperature=mark("temperature"))),
            bad,
        ),
    ]


def _quoted(text: str) -> bytes:
    return f'"{text}"'.encode()


def _too_large(mark: Mark) -> Request:
    return request(mark, chat(mark, Temper.WELL, stream=False, padding=mark("padding") * (BODY_BYTES // 40)))
