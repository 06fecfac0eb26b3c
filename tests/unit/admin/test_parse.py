"""Bodies and query strings into structs, and refusals that echo nothing."""

from typing import Annotated

import msgspec
import pytest

from keepless.admin import parse
from keepless.admin.asks import ControlsPatch, MemberCreate
from keepless.admin.audit_logs import AuditQuery
from keepless.admin.usage_asks import CostsQuery
from keepless.errors import Problem
from keepless.policy.schedule import DataClass


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    data_class: str | None = msgspec.field(default=None, name="class")
    days: dict[str, int] | None = None
    on: bool | None = None
    ids: list[str] = []


class Empty(msgspec.Struct, frozen=True):
    pass


def refusal(function: object, raw: bytes, kind: type[msgspec.Struct] = Thing) -> tuple[str, str | None, str]:
    with pytest.raises(Problem) as caught:
        function(raw, kind)
    assert caught.value.status == 400
    assert "MARKER" not in caught.value.message
    return caught.value.code.value, caught.value.param, caught.value.message


def test_a_body_becomes_a_struct() -> None:
    found = parse.body(b'{"name": "a", "class": "x", "days": {"q": 3}, "on": null, "ids": ["1"]}', Thing)
    assert found == Thing(name="a", data_class="x", days={"q": 3}, on=None, ids=["1"])


@pytest.mark.parametrize("raw", [b"", b"  ", b"{}"])
def test_no_body_is_an_empty_object(raw: bytes) -> None:
    assert parse.body(raw, Empty) == Empty()


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        b'{"name": "a", "name": "b"}',
        b'{"name": "a", "days": {"x": 1, "x": 2}}',
        b'{"name": NaN}',
        b'{"name": "a", "days": {"x": Infinity}}',
        b'{"name": "\\ud800"}',
        b"[" * 100_000,
        b"1" * 5000,
        b"[1]",
        b'"MARKER"',
        b"null",
    ],
)
def test_what_is_not_one_json_object_is_refused(raw: bytes) -> None:
    assert refusal(parse.body, raw)[0] == "invalid_json"


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"", "missing_required_parameter", "name"),
        (b'{"name": 1}', "invalid_value", "name"),
        (b'{"name": "MARKER"}', "invalid_value", "name"),
        (b'{"name": "a", "on": 1}', "invalid_value", "on"),
        (b'{"name": "a", "days": {"MARKER": "MARKER"}}', "invalid_value", "days"),
        (b'{"name": "a", "class": ["MARKER"]}', "invalid_value", "class"),
        (b'{"name": "a", "MARKER": 1}', "unknown_parameter", None),
        (b'{"name": "a", "data_class": "x"}', "unknown_parameter", None),
    ],
)
def test_a_refusal_names_our_parameter_and_nothing_of_theirs(raw: bytes, code: str, param: str | None) -> None:
    assert refusal(parse.body, raw)[:2] == (code, param)


def test_a_refusal_says_what_is_accepted() -> None:
    assert refusal(parse.body, b'{"name": ""}')[2].endswith("a text from 1 up to 5 letters.")
    assert refusal(parse.body, b'{"x": 1}')[2].endswith("Known: name, class, days, on, ids.")


def test_what_objects_and_lists_accept_is_said_too() -> None:
    assert refusal(parse.body, b'{"retention_days": {"x": 1}}', ControlsPatch)[2] == (
        "Invalid value for retention_days: an object with a whole number or null for any of "
        + ", ".join(DataClass)
        + " or null."
    )
    assert refusal(parse.body, b'{"name": "a", "ids": [1]}')[2].endswith("a list, each of it a text.")


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        (b"name=a&ids=1&ids=2", ["1", "2"]),
        (b"name=a&ids[]=1&ids[]=2", ["1", "2"]),
        (b"name=a&ids%5B%5D=1", ["1"]),
        (b"name=a&ids=1%2C2", ["1", "2"]),
    ],
)
def test_lists_in_a_query_string(raw: bytes, ids: list[str]) -> None:
    assert parse.query(raw, Thing).ids == ids


def test_a_query_string_is_converted() -> None:
    assert parse.query(b"name=a&on=true&class=x", Thing) == Thing(name="a", on=True, data_class="x")


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"name=a&name=b", "invalid_value", "name"),
        (b"name=%ff", "invalid_value", None),
        (b"\xff", "invalid_value", None),
        (b"&".join(b"ids=1" for _ in range(300)), "invalid_value", None),
        (b"name=a&on=MARKER", "invalid_value", "on"),
        (b"name=a&on=null", "invalid_value", "on"),
        (b"name=a&MARKER=1", "unknown_parameter", None),
        (b"", "missing_required_parameter", "name"),
    ],
)
def test_bad_query_strings(raw: bytes, code: str, param: str | None) -> None:
    assert refusal(parse.query, raw)[:2] == (code, param)


def test_the_text_null_is_a_text_in_a_query_string() -> None:
    assert parse.query(b"name=null&class=null", Thing) == Thing(name="null", data_class="null")


@pytest.mark.parametrize(("number", "days"), [(b"3", 3), (b"3.0", 3), (b"3e0", 3), (b"-0.0", 0)])
def test_json_has_one_kind_of_number(number: bytes, days: int) -> None:
    assert parse.body(b'{"name": "a", "days": {"x": ' + number + b"}}", Thing).days == {"x": days}


@pytest.mark.parametrize("number", [b"3.5", b"1e300", b"9007199254740993.0", b"1e400"])
def test_what_is_no_whole_number(number: bytes) -> None:
    assert refusal(parse.body, b'{"name": "a", "days": {"x": ' + number + b"}}")[0] == "invalid_value"


@pytest.mark.parametrize(
    ("raw", "kind", "says"),
    [
        (b"after=MARKER", AuditQuery, "a text (the id of an event)"),
        (b"event_types=MARKER", AuditQuery, "a list, each of it a text from 1 up to 80 letters (a type of events)"),
        (b"start_time=1&page=MARKER", CostsQuery, "a text (what next_page said)"),
    ],
)
def test_a_text_of_another_form_is_told_the_form(raw: bytes, kind: type, says: str) -> None:
    with pytest.raises(Problem) as caught:
        parse.query(raw, kind)
    assert caught.value.message.endswith(f": {says}.") and "MARKER" not in caught.value.message


def test_an_address_that_is_none_is_told_so() -> None:
    with pytest.raises(Problem) as caught:
        parse.body(b'{"email": "MARKER", "role": "reader"}', MemberCreate)
    assert caught.value.message == "Invalid value for email: a text from 3 up to 254 letters (an e-mail address)."
