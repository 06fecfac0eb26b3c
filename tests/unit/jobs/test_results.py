"""Lines of the result files: one line of JSON each, whatever the engine said; records come back byte for byte."""

import json

import pytest

from keepless.content import Content
from keepless.ids import Prefix, mint
from keepless.jobs.results import Record, Undone, answered, seal, unanswered, unseal

IDS = ["a", 'quote" \\ \n', "ünï", "x" * 512]


@pytest.mark.parametrize("custom_id", IDS)
@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'{\n  "a": "\\n"\r\n}\n', {"a": "\n"}),
        (b"[1]", [1]),
        (b"plain text\nof two lines", "plain text\nof two lines"),
        (b"\xff", "\ufffd"),
        (b"", ""),
    ],
)  # fmt: skip
def test_an_answer_stands_on_one_line(custom_id: str, body: bytes, read: object) -> None:
    request_id = mint(Prefix.REQUEST)
    line = answered(custom_id, request_id, 200, Content(body))
    assert b"\n" not in line
    assert b"\r" not in line
    told = json.loads(line)
    assert told == {
        "id": "batch_" + request_id,
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": request_id, "body": read},
        "error": None,
    }


@pytest.mark.parametrize("custom_id", IDS)
@pytest.mark.parametrize("why", Undone)
def test_what_was_not_run_says_why(custom_id: str, why: Undone) -> None:
    told = json.loads(unanswered(custom_id, why))
    assert told["id"].startswith("batch_req_")
    assert (told["custom_id"], told["response"]) == (custom_id, None)
    assert told["error"] == {"code": why.value[0].decode(), "message": why.value[1].decode()}


@pytest.mark.parametrize("record", [Record(1, True, b""), Record(50_000, False, b'{"a":\x00}' * 100)])
def test_a_record_comes_back(record: Record) -> None:
    assert unseal(seal(record)) == record
