"""Everything that reads what a client typed, under arbitrary input: a value or a refusal in our own words, no fault.

The marker stands in every place where a client can put a text; no refusal repeats it.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepless.admin import parse
from keepless.admin.matrix import ENDPOINTS
from keepless.config import Engine, ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway import embedding_params, speech_params
from keepless.gateway.chat_params import CAPABILITIES as EVERYTHING
from keepless.gateway.chat_params import PARAMETERS, ChatRules
from keepless.gateway.input_shape import sketch_of as shape_of_input
from keepless.gateway.json_body import decode_object
from keepless.gateway.messages import ROLES
from keepless.gateway.parser import ChunkedBody, check_partial, parse_head
from keepless.gateway.response_answer import decode_chunk, whole
from keepless.gateway.response_bridge import to_chat
from keepless.gateway.response_events import Events
from keepless.gateway.response_items import ITEMS_ONLY_NATIVE
from keepless.gateway.response_object import Draft
from keepless.gateway.response_params import PARAMETERS as OF_RESPONSES
from keepless.gateway.response_params import ResponseRules, bridged_capabilities
from keepless.gateway.rules import model_name
from keepless.gateway.shape import CHAT, RESPONSES
from keepless.gateway.switches import BODY, HEADERS, from_headers
from keepless.http.problems import render
from keepless.inference.asking import MalformedError
from keepless.inference.embedded.dialect import CAPABILITIES as EMBEDDED
from keepless.inference.embedded.dialect import to_llama
from keepless.inference.embedded.inert import Inert
from keepless.usage.record import Phase

MARKER = "xqzMARKERqzx"
ROUNDS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(ROUNDS, max_examples=40)
MODEL = ModelConfig(id="m", engine=Engine.LLAMA)
RULES = [(names, ChatRules(MODEL, names)) for names in (None, EVERYTHING, EMBEDDED, frozenset[str]())]

WORDS = [
    *("role", "content", "name", "type", "function", "parameters", "tool_calls", "tool_call_id", "id", "arguments"),
    *("text", "image_url", "url", "json_schema", "schema", "include_usage", "strict", "enum", "properties", "required"),
    *("minItems", "maxItems", "items", "anyOf", "pattern", "array", "object", "string", "auto", "allowed_tools"),
    *("zdr", "data_collection", "gateway", "zeroDataRetention", "deny", "input_audio", "audio", "refusal", "index"),
    *ROLES,
    MARKER,
    MARKER + "\u0000\r\n",
    "",
]
scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2, 3.0, 2**63, -(2**64), 10**40, 1e308, 5e-324, -0.0])
    | st.sampled_from(WORDS)
    | st.text(max_size=4).map(lambda text: text + MARKER)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
function = st.fixed_dictionaries({"name": st.just("f"), "parameters": values})
functions = st.fixed_dictionaries({"type": st.just("function"), "function": function})
messages = st.lists(
    values
    | st.fixed_dictionaries(
        {"role": st.sampled_from([*ROLES]), "content": values}, optional={"tool_calls": values, "name": values}
    ),
    max_size=3,
)
bodies = st.fixed_dictionaries(
    {"model": st.just("m") | values, "messages": messages | st.just([{"role": "user", "content": MARKER}])},
    optional={
        **dict.fromkeys(set(PARAMETERS) - {"model", "messages"}, values),
        **{member.path[0]: values for member in BODY},
        "tools": values | st.lists(functions, max_size=2),
        "response_format": values
        | st.fixed_dictionaries(
            {
                "type": st.just("json_schema"),
                "json_schema": st.fixed_dictionaries({"name": st.just("n"), "schema": values}),
            }
        ),
        MARKER: values,
    },
)


def silent(problem: Problem) -> None:
    """The refusal says nothing that the client typed."""
    _, head, body = render(problem, "req_x")
    assert MARKER.encode() not in head + body
    assert MARKER not in str(problem) + repr(problem.args)
    assert 400 <= problem.status < 500


def ask(body: dict[str, Any], names: frozenset[str] | None, rules: ChatRules) -> None:
    """One request as far as the embedded engine's dialect."""
    CHAT.sketch(body, Phase.VALIDATE, body_bytes=1)
    model_name(body)
    checked = rules.check(body)
    CHAT.estimate(checked.body, checked.max_tokens, checked.choices)
    CHAT.sketch(checked.body, Phase.ANSWER, body_bytes=1, max_tokens=checked.max_tokens)
    encoded = msgspec.json.encode(checked.body)
    if names == EMBEDDED:
        to_llama(msgspec.json.decode(encoded), MODEL, "req_x", 1, 1.0, inert=Inert(None))


INPUTS = st.fixed_dictionaries(
    {
        "model": st.just("m") | values,
        "input": values | st.just(MARKER) | st.lists(st.just(MARKER) | values, max_size=3),
    },
    optional={
        **dict.fromkeys({*embedding_params.PARAMETERS, *speech_params.PARAMETERS} - {"model", "input"}, values),
        MARKER: values,
    },
)
HEARD = [None, speech_params.CAPABILITIES, frozenset[str]()]


@ROUNDS
@given(INPUTS, st.sampled_from(HEARD), st.none() | st.binary(max_size=20))
def test_requests_of_an_input(body: dict[str, Any], names: frozenset[str] | None, accept: bytes | None) -> None:
    """Embeddings and speech, of the embedded engines and of an upstream."""
    ours = names is not None
    embedder = ModelConfig(
        id="m", engine=Engine.MINILM if ours else Engine.OPENAI, base_url=None if ours else "http://x"
    )
    voice = ModelConfig(id="m", engine=Engine.FLITE if ours else Engine.OPENAI, base_url=None if ours else "http://x")
    vectors = embedding_params.EmbeddingRules(embedder, names)
    speech = speech_params.SpeechRules(voice, names)
    checks: list[Callable[[dict[str, Any]], object]] = [vectors.check, lambda value: speech.check(value, accept)]
    for check, table in zip(checks, (embedding_params.PARAMETERS, speech_params.PARAMETERS), strict=True):
        try:
            value, _ = decode_object(json.dumps(body).encode(), 100)
            shape_of_input(value, table, Phase.VALIDATE, body_bytes=1)
            model_name(value)
            check(value)
        except Problem as problem:
            silent(problem)


@ROUNDS
@given(bodies, st.sampled_from(RULES))
def test_chat_requests(body: dict[str, Any], bound: tuple[frozenset[str] | None, ChatRules]) -> None:
    try:
        value, _ = decode_object(json.dumps(body).encode(), 100)
        ask(value, *bound)
    except Problem as problem:
        silent(problem)


ITEM_WORDS = ["message", "function_call", "function_call_output", "reasoning", "item_reference", *ITEMS_ONLY_NATIVE]
PART_WORDS = ["input_text", "output_text", "input_image", "input_file", "input_audio", "refusal", "text"]
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(PART_WORDS)},
    optional=dict.fromkeys(("text", "refusal", "image_url", "file_id", "file_data", "input_audio"), values),
)
items = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(ITEM_WORDS) | values,
        "role": st.sampled_from(["user", "assistant", "system", "developer"]) | values,
        "content": st.text(max_size=4) | st.lists(parts, max_size=2) | values,
        "call_id": st.just("c") | values,
        "name": st.just("f") | values,
        "arguments": st.just("{}") | values,
        "output": st.text(max_size=4) | st.lists(parts, max_size=2) | values,
        "encrypted_content": values,
    },
)
flat = st.fixed_dictionaries({"type": st.just("function"), "name": st.just("f"), "parameters": values})
response_bodies = st.fixed_dictionaries(
    {"model": st.just("m"), "input": st.just(MARKER) | st.lists(items, max_size=4) | values},
    optional={
        **dict.fromkeys(set(OF_RESPONSES) - {"model", "input"}, values),
        **{member.path[0]: values for member in BODY},
        "tools": values | st.lists(flat, max_size=2),
        "tool_choice": values
        | st.just({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}),
        "text": values
        | st.fixed_dictionaries(
            {"format": st.fixed_dictionaries({"type": st.just("json_schema"), "name": st.just("n"), "schema": values})}
        ),
        "metadata": values | st.dictionaries(st.sampled_from(WORDS), st.sampled_from(WORDS), max_size=2),
        MARKER: values,
    },
)
RESPONSE_RULES = [
    (names, ResponseRules(MODEL, names))
    for names in (None, bridged_capabilities(None), bridged_capabilities(EMBEDDED), frozenset[str]())
]
CHAT_RULES = ChatRules(MODEL, None)


@ROUNDS
@given(response_bodies, st.sampled_from(RESPONSE_RULES))
def test_responses(body: dict[str, Any], bound: tuple[frozenset[str] | None, ResponseRules]) -> None:
    """What passes the checks of /responses passes those of chat, once it is translated."""
    names, rules = bound
    try:
        value, _ = decode_object(json.dumps(body).encode(), 100)
        RESPONSES.sketch(value, Phase.VALIDATE, body_bytes=1)
        checked = rules.check(value)
        RESPONSES.estimate(checked.body, checked.max_tokens)
        RESPONSES.sketch(checked.body, Phase.ANSWER, body_bytes=1, max_tokens=checked.max_tokens)
        msgspec.json.encode(Draft(checked, "m", 1).response("completed"))
        chat = None if names is None else to_chat(checked)
    except Problem as problem:
        silent(problem)
        return
    if chat is not None:
        encoded = msgspec.json.encode(chat)
        try:
            CHAT_RULES.check(msgspec.json.decode(encoded))
            to_llama(msgspec.json.decode(encoded), MODEL, "req_x", 1, 1.0, inert=Inert(None))
        except Problem as problem:
            silent(problem)


message = st.fixed_dictionaries(
    {},
    optional={
        "content": st.text(max_size=4) | values,
        "refusal": st.text(max_size=4) | values,
        "reasoning": st.text(max_size=4) | values,
        "tool_calls": values
        | st.lists(
            st.fixed_dictionaries(
                {"function": st.fixed_dictionaries({"name": st.just("f"), "arguments": st.text(max_size=4)})},
                optional={"id": st.just("c") | st.just("d"), "index": st.integers(0, 2)},
            ),
            max_size=2,
        ),
    },
)
answers = st.fixed_dictionaries(
    {
        "choices": values
        | st.lists(
            st.fixed_dictionaries({}, optional={"message": message, "delta": message, "finish_reason": scalars}),
            max_size=2,
        )
    },
    optional={"usage": values | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), scalars)},
)


@ROUNDS
@given(st.lists(answers, max_size=4))
def test_a_chat_engine_that_says_anything(said: list[dict[str, Any]]) -> None:
    """An answer is a response or malformed; a stream is events that end, or malformed."""
    checked = RESPONSE_RULES[1][1].check({"model": "m", "input": "x"})
    events = Events(Draft(checked, "m", 1))
    events.begin()
    try:
        for answer in said:
            raw = msgspec.json.encode(answer)
            events.chunk(decode_chunk(raw))
            msgspec.json.encode(whole(Draft(checked, "m", 1), raw, 1))
    except (MalformedError, msgspec.MsgspecError):
        events.fail(Problem(502, Code.UPSTREAM_MALFORMED, "no answer"))
    else:
        events.finish()
    assert events.take().endswith(b"\n\n")


@ROUNDS
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | values.map(lambda v: json.dumps(v).encode()))
def test_json(raw: bytes) -> None:
    for body in (raw, b'{"a":' + raw + b"}"):
        try:
            decode_object(body, 5)
        except Problem as problem:
            silent(problem)


SIGNS = [b"\r\n", b"\n", b"\r", b": ", b":", b" ", b"\t", b"\0", b",", b"?", b"#", b"*", b"\xff", MARKER.encode()]
NAMES = [b"Content-Length", b"Transfer-Encoding", b"Host", b"Expect", b"Connection", b"Authorization"]
OTHERS = [
    b"chunked",
    b"close",
    b"5",
    b"0",
    b"-1",
    b"GET",
    b"POST",
    b"/v1",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"http://h/",
    b"a;b=c",
]
RAW = st.lists(st.sampled_from([*SIGNS, *NAMES, *OTHERS]), max_size=20).map(b"".join) | st.binary(max_size=40)


@ROUNDS
@given(RAW)
def test_heads(raw: bytes) -> None:
    for head in (raw + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n" + raw + b"\r\n\r\n", b"POST " + raw + b"\r\n\r\n"):
        try:
            check_partial(head)
            request = parse_head(head)
        except Problem as problem:
            if problem.status != 505:
                silent(problem)
        else:
            assert not any(sign in name + value for name, value in request.headers for sign in (b"\r", b"\n", b"\0"))
            names = [name for name, _ in request.headers]
            assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


@ROUNDS
@given(st.lists(RAW, max_size=6))
def test_chunked_bodies(pieces: list[bytes]) -> None:
    body = ChunkedBody(100)
    taken = 0
    try:
        for piece in pieces:
            if not body.done:
                taken += sum(map(len, body.feed(piece)))
    except Problem as problem:
        silent(problem)
    assert taken <= 100


@ROUNDS
@given(st.lists(st.tuples(st.sampled_from([*HEADERS, b"x-keepless-new", b"cf-aig-zdr-2"]), RAW), max_size=3))
def test_privacy_headers(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        asked = from_headers(headers)
    except Problem as problem:
        silent(problem)
    else:
        for name, value in headers:
            assert HEADERS[name][value.strip().lower()].value != "loosen"
        assert asked is not None


@FEW
@given(st.data())
@pytest.mark.parametrize("kind", sorted({e.body for e in ENDPOINTS} | {e.query for e in ENDPOINTS}, key=str), ids=str)
def test_admin_bodies_and_queries(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    body = data.draw(st.dictionaries(st.sampled_from([*names, MARKER, *names]), values | scalars, max_size=4))
    query = data.draw(st.lists(st.tuples(st.sampled_from([*names, MARKER]), RAW), max_size=3))
    for read, raw in (
        (parse.body, json.dumps(body).encode()),
        (parse.body, data.draw(RAW)),
        (parse.query, b"&".join(name.encode() + b"=" + value for name, value in query)),
    ):
        try:
            read(raw, kind)
        except Problem as problem:
            silent(problem)
