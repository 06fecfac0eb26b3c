"""The body of a request as JSON, strictly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.errors import Code, Problem
from keepless.gateway.json_body import MOST_VALUES, decode_object

MARKER = "MARKER"
BAD = {
    "empty": b"",
    "truncated": b'{"a":"MARKER',
    "trailing": b'{"a":"MARKER"}x',
    "two values": b'{"a":"MARKER"}{"b":1}',
    "nan": b'{"a":NaN,"b":"MARKER"}',
    "infinity": b'{"a":-Infinity,"b":"MARKER"}',
    "number out of range": b'{"a":1e999,"b":"MARKER"}',
    "endless integer": b'{"a":' + b"9" * 5000 + b"}",
    "byte order mark": b'\xef\xbb\xbf{"a":"MARKER"}',
    "utf-16": '{"a":"MARKER"}'.encode("utf-16"),
    "invalid utf-8": b'{"a":"MARKER\xff"}',
    "invalid utf-8 in a name": b'{"MARKER\xff":1}',
    "encoded surrogate": b'{"a":"MARKER\xed\xa0\x80"}',
    "lone surrogate": b'{"a":"MARKER\\ud800"}',
    "control character": b'{"a":"MARKER\x01"}',
    "array": b'["MARKER"]',
    "string": b'"MARKER"',
    "null": b"null",
    "duplicate": b'{"a":"MARKER","a":2}',
    "duplicate by escape": b'{"a":"MARKER","\\u0061":2}',
    "duplicate deep down": b'{"b":[{"c":{"a":"MARKER","a":"MARKER"}}]}',
    "duplicate with spaces": b'{ "a": "MARKER", "a": 2 }',
    "nested": b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
    "nested in a long body": b'{"b":"' + b"x" * 2000 + b'","a":' + b"[" * 100 + b"]" * 100 + b"}",
    "nested objects in a long body": b'{"b":"' + b"x" * 2000 + b'","a":' + b'{"a":' * 100 + b"1" + b"}" * 101,
    "nested beyond the parser": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "comment": b'{"a":1/*MARKER*/}',
    "single quotes": b"{'a':'MARKER'}",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_doubtful_json_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        decode_object(body, 100)
    assert (caught.value.status, caught.value.code) == (400, Code.INVALID_JSON)
    assert MARKER not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1}',
        b'{ "a" : 1 }\n',
        b'{"a":1.0,"b":1e-8,"c":-0}',
        b'{"a":"\\u00e9\\n","b":"\xc3\xa9"}',
        b'{"a":{"b":1},"b":{"b":1}}',
        b'{"a":' + b"[" * 99 + b"]" * 99 + b"}",
        b'{"a":[' + b",".join([b'{"b":[]}'] * 500) + b"]}",
        b'{"b":"' + b"[{" * 2000 + b'","a":' + b"[" * 99 + b"]" * 99 + b"}",
    ],
)
def test_plain_json_is_read(body: bytes) -> None:
    value, encoded = decode_object(body, 100)
    assert value == json.loads(body) == json.loads(encoded)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_reads_what_any_encoder_wrote(value: dict[str, object]) -> None:
    for body in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert decode_object(body.encode("utf-8"), 100)[0] == value


@given(st.dictionaries(st.text(), JSON, min_size=1))
def test_any_duplicate_is_found(value: dict[str, object]) -> None:
    members = [f"{json.dumps(k)}:{json.dumps(v)}" for k, v in value.items()]
    for body in ("{" + ",".join([*members, members[0]]) + "}", '{"x":[{' + ",".join([members[-1], *members]) + "}]}"):
        with pytest.raises(Problem):
            decode_object(body.encode(), 100)


@pytest.mark.parametrize("piece", [b"{}", b"[]", b"1", b'""', b'"\\""', b'{"a":1}'])
def test_more_values_than_allowed_are_refused_before_they_are_made(piece: bytes) -> None:
    body = b'{"a": [' + b",".join([piece] * MOST_VALUES) + b"]}"
    with pytest.raises(Problem) as caught:
        decode_object(body, 100)
    assert str(MOST_VALUES) in caught.value.message


def test_commas_and_brackets_within_a_text_are_no_values() -> None:
    text = '{[,"\\' * MOST_VALUES
    body = json.dumps({"a": text, "b": [text, {}]}).encode()
    assert decode_object(body, 100)[0] == {"a": text, "b": [text, {}]}
