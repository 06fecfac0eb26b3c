"""What is a batch and what is not: every named bad input, with its line and code and nothing of its content."""

import json
from typing import Any

import pytest

from keepless.batches.values import MOST_LINE_ERRORS, BatchEndpoint, LineCode, LineError, LineParam
from keepless.content import Content
from keepless.jobs.validate import Rules, Verdict, urls_of, validate

CHAT = BatchEndpoint.CHAT


def rules(**more: Any) -> Rules:
    def model(name: str, endpoint: BatchEndpoint) -> LineCode | None:
        if name == "forbidden":
            return LineCode.MODEL_NOT_ALLOWED
        return None if name == "m" else LineCode.MODEL_NOT_FOUND

    values = {"most_lines": 1000, "most_bytes": 10**6, "line_bytes": 2000, "json_depth": 10}
    return Rules(**({"endpoint": CHAT, "model": model} | values | more))


def line(custom_id: object = "1", **more: Any) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": CHAT.value, "body": {"model": "m"}} | more
    return json.dumps({name: each for name, each in value.items() if each is not ...}).encode()


def judged(*lines: bytes, end: bytes = b"\n", **more: Any) -> Verdict:
    data = end.join(lines)
    return validate([Content(data[:7]), Content(data[7:])], len(data), rules(**more))


GOOD = line("good")


def test_a_good_input_is_cut_into_shards_that_hold_every_line_once() -> None:
    lines = [line(str(at)) for at in range(230)]
    data = b"\n".join(lines)
    verdict = validate([Content(data)], len(data), rules())
    assert (verdict.lines, verdict.found, verdict.errors) == (230, 0, [])
    assert [shard.lines for shard in verdict.shards] == [50, 50, 50, 50, 30]
    assert [shard.first_line for shard in verdict.shards] == [1, 51, 101, 151, 201]
    assert b"".join(data[shard.start : shard.stop] for shard in verdict.shards) == data


@pytest.mark.parametrize(
    ("models", "told"), [(["m"], "m"), (["m", "m", "m"], "m"), (["m", "n", "m"], None), (["m", "forbidden"], None)]
)
def test_the_one_model_of_all_lines(models: list[str], told: str | None) -> None:
    def known(name: str, _: BatchEndpoint) -> LineCode | None:
        return LineCode.MODEL_NOT_ALLOWED if name == "forbidden" else None

    lines = [line(str(at), body={"model": model}) for at, model in enumerate(models)]
    assert judged(*lines, model=known).model == told


def test_shards_are_bounded_by_bytes_too() -> None:
    long = [line(str(at), body={"model": "m", "x": "y" * 3_000_000}) for at in range(5)]
    data = b"\n".join(long)
    verdict = validate([Content(data)], len(data), rules(most_bytes=10**9, line_bytes=4_000_000))
    assert [shard.lines for shard in verdict.shards] == [2, 2, 1]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n\r\n  \n"])
def test_marks_and_line_ends_are_tolerated(begin: bytes, end: bytes, last: bytes) -> None:
    data = begin + end.join([line("1"), line("2")]) + last
    verdict = validate([Content(data)], len(data), rules())
    assert (verdict.lines, verdict.found) == (2, 0)


WRONG: dict[str, tuple[bytes, LineCode, LineParam | None]] = {
    "not JSON": (b"{", LineCode.INVALID_JSON, None),
    "no object": (b"[1]", LineCode.INVALID_JSON, None),
    "an empty line": (b"", LineCode.INVALID_JSON, None),
    "spaces": (b"  ", LineCode.INVALID_JSON, None),
    "a name twice": (b'{"custom_id":"1","custom_id":"2"}', LineCode.INVALID_JSON, None),
    "NaN": (b'{"custom_id":NaN}', LineCode.INVALID_JSON, None),
    "nested too deep": (line(body=[[[[[[[[[[[1]]]]]]]]]]]), LineCode.INVALID_JSON, None),
    "not UTF-8": (b'{"custom_id":"\xff"}', LineCode.INVALID_ENCODING, None),
    "too long": (line(body={"model": "m", "x": "y" * 2000}), LineCode.LINE_TOO_LONG, None),
    "no id": (line(...), LineCode.MISSING, LineParam.CUSTOM_ID),
    "null id": (line(None), LineCode.MISSING, LineParam.CUSTOM_ID),
    "a number as id": (line(7), LineCode.INVALID_TYPE, LineParam.CUSTOM_ID),
    "an empty id": (line(""), LineCode.INVALID_VALUE, LineParam.CUSTOM_ID),
    "a long id": (line("x" * 513), LineCode.INVALID_VALUE, LineParam.CUSTOM_ID),
    "an id twice": (line("good"), LineCode.DUPLICATE_ID, LineParam.CUSTOM_ID),
    "no method": (line(method=...), LineCode.MISSING, LineParam.METHOD),
    "GET": (line(method="GET"), LineCode.INVALID_METHOD, LineParam.METHOD),
    "no url": (line(url=...), LineCode.MISSING, LineParam.URL),
    "another url": (line(url="/v1/embeddings"), LineCode.URL_MISMATCH, LineParam.URL),
    "no body": (line(body=...), LineCode.MISSING, LineParam.BODY),
    "a text as body": (line(body="x"), LineCode.INVALID_TYPE, LineParam.BODY),
    "an unknown member": (line(extra=1), LineCode.UNKNOWN_PARAMETER, None),
    "a stream": (line(body={"model": "m", "stream": True}), LineCode.STREAM_NOT_ALLOWED, LineParam.STREAM),
    "no model": (line(body={}), LineCode.MISSING, LineParam.MODEL),
    "a number as model": (line(body={"model": 1}), LineCode.INVALID_TYPE, LineParam.MODEL),
    "no such model": (line(body={"model": "x"}), LineCode.MODEL_NOT_FOUND, LineParam.MODEL),
    "a forbidden model": (line(body={"model": "forbidden"}), LineCode.MODEL_NOT_ALLOWED, LineParam.MODEL),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_told_by_number_and_code(name: str) -> None:
    wrong, code, param = WRONG[name]
    verdict = judged(GOOD, wrong, line("last"))
    assert (verdict.errors, verdict.found, verdict.shards) == ([LineError(2, code, param)], 1, [])


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"an id twice", "an empty line", "spaces"}))
def test_also_when_it_is_the_first_or_the_last(name: str) -> None:
    wrong, code, param = WRONG[name]
    assert judged(wrong, GOOD).errors == [LineError(1, code, param)]
    assert judged(GOOD, wrong).errors == [LineError(2, code, param)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", LineCode.EMPTY_FILE),
        (b"\n \n", LineCode.EMPTY_FILE),
        (b"\xef\xbb\xbf", LineCode.EMPTY_FILE),
        (b"\x1f\x8b\x08\x00\n", LineCode.COMPRESSED),
        ("ab".encode("utf-16"), LineCode.INVALID_ENCODING),
        (b"x" * 1_000_001, LineCode.FILE_TOO_LARGE),
    ],
)
def test_a_wrong_file_is_told_as_a_whole(data: bytes, code: LineCode) -> None:
    verdict = validate([Content(data)], len(data), rules())
    assert (verdict.errors, verdict.found) == ([LineError(None, code)], 1)


def test_too_many_lines_are_told_once() -> None:
    lines = [line(str(at)) for at in range(4)]
    assert judged(*lines, most_lines=3).errors == [LineError(None, LineCode.TOO_MANY_LINES)]
    assert judged(*lines, most_lines=4).errors == []


def test_all_errors_are_counted_and_the_first_kept() -> None:
    verdict = judged(*[b"{"] * 500)
    assert (verdict.found, len(verdict.errors)) == (500, MOST_LINE_ERRORS)
    assert verdict.errors[-1].line == MOST_LINE_ERRORS


def test_urls_may_have_the_prefix_and_audio_lines_may_be_mixed() -> None:
    assert urls_of(CHAT) == {"/v1/chat/completions": CHAT, "/openai/v1/chat/completions": CHAT}
    assert set(urls_of(BatchEndpoint.TRANSLATIONS).values()) == {
        BatchEndpoint.TRANSLATIONS,
        BatchEndpoint.TRANSCRIPTIONS,
    }
