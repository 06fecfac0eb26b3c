"""Which fields are taken, in a form and in JSON, and which are refused."""

import base64
from typing import Any

import msgspec
import pytest

from keepless.config import Endpoint
from keepless.errors import Problem
from keepless.gateway.audio_params import AudioRequest, AudioRules, read_body
from keepless.gateway.multipart import FORM, write_form
from keepless.inference.embedded.hearing import CAPABILITIES

SOUND = b"RIFF sound"
EMBEDDED = AudioRules(Endpoint.TRANSCRIPTIONS, CAPABILITIES, 100)
UPSTREAM = AudioRules(Endpoint.TRANSCRIPTIONS, None, 100)
TRANSLATIONS = AudioRules(Endpoint.TRANSLATIONS, CAPABILITIES, 100)
PLAIN = AudioRules(Endpoint.TRANSCRIPTIONS, frozenset(), 100)


def form(*fields: tuple[str, str], file: bytes = SOUND) -> dict[str, Any]:
    encoded = [(name, value.encode()) for name, value in (("model", "m"), *fields)]
    return read_body(write_form(b"XX", encoded, file, extension="wav"), FORM + b"XX", 100)


def refused(rules: AudioRules, members: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        rules.check(members)
    assert "zebra" not in caught.value.message
    return caught.value


def test_everything_that_the_engine_takes() -> None:
    members = form(
        ("language", "en"), ("prompt", "Hello"), ("temperature", "0.5"), ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment"), ("stream", "false"),
        ("store", "false"),
    )  # fmt: skip
    checked = EMBEDDED.check(members)
    assert (checked.audio, checked.format, checked.language) == (SOUND, "verbose_json", "en")
    assert (checked.prompt, checked.temperature, checked.words, checked.segments) == ("Hello", 0.5, True, True)
    assert (checked.stream, checked.controls.keep_nothing) == (False, True)


def test_defaults() -> None:
    checked = EMBEDDED.check(form())
    assert (checked.format, checked.language, checked.temperature) == ("json", None, 0.0)
    assert (checked.words, checked.segments, checked.stream) == (False, True, False)


def test_json_with_a_data_url_is_the_same() -> None:
    url = "data:audio/wav;base64," + base64.b64encode(SOUND).decode()
    body = msgspec.json.encode({"model": "m", "url": url, "language": "de", "temperature": 0})
    checked = EMBEDDED.check(read_body(body, b"application/json; charset=utf-8", 100))
    assert (checked.audio, checked.language, checked.temperature) == (SOUND, "de", 0.0)
    assert checked.fields == [("language", b"de"), ("temperature", b"0")]


def test_an_upstream_gets_every_field_in_order_but_the_model() -> None:
    checked: AudioRequest = UPSTREAM.check(
        form(("include[]", "logprobs"), ("chunking_strategy", "auto"), ("stream", "true"), ("no-log", "true"))
    )
    assert checked.fields == [("include[]", b"logprobs"), ("chunking_strategy", b"auto"), ("stream", b"true")]
    assert UPSTREAM.check(form(("response_format", "diarized_json"))).format == "diarized_json"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("include[]", "logprobs")], "include"),
        ([("chunking_strategy", "auto")], "chunking_strategy"),
        ([("zebra", "x")], None),
        ([("language", "zebra")], "language"),
        ([("language", "English")], "language"),
        ([("temperature", "hot")], "temperature"),
        ([("temperature", "1.1")], "temperature"),
        ([("temperature", "nan")], "temperature"),
        ([("response_format", "zebra")], "response_format"),
        ([("response_format", "diarized_json")], "response_format"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities"),
        ([("timestamp_granularities[]", "zebra"), ("response_format", "verbose_json")], "timestamp_granularities"),
        ([("stream", "true"), ("response_format", "srt")], "response_format"),
        ([("stream", "maybe")], "stream"),
        ([("prompt", "x" * 9000)], "prompt"),
        ([("url", "https://example.com/zebra.wav")], "url"),
        ([("store", "true")], "store"),
        ([("store", "maybe")], "store"),
    ],
)
def test_what_the_engine_refuses(fields: list[tuple[str, str]], param: str | None) -> None:
    problem = refused(EMBEDDED, form(*fields))
    assert (problem.status, problem.param) == (400, param)


def test_a_model_without_a_capability() -> None:
    for fields in (
        [("response_format", "srt")],
        [("response_format", "vtt")],
        [("stream", "true")],
        [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")],
    ):
        assert refused(PLAIN, form(*fields)).status == 400
    assert PLAIN.check(form(("response_format", "verbose_json"))).segments


def test_translations_are_whole_and_english() -> None:
    for name, value in (("language", "en"), ("stream", "true"), ("timestamp_granularities[]", "word")):
        assert refused(TRANSLATIONS, form((name, value))).code == "unknown_parameter"
    assert TRANSLATIONS.check(form(("prompt", "x"))).prompt == "x"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/a.wav", "unsupported_value"),
        ("http://127.0.0.1/a.wav", "unsupported_value"),
        ("file:///etc/passwd", "unsupported_value"),
        ("data:text/html;base64,AAAA", "unsupported_value"),
        ("data:audio/wav;base64,!!!!", "invalid_value"),
        ("data:audio/wav;base64,", "invalid_value"),
        (7, "invalid_type"),
    ],
)
def test_no_url_is_fetched(url: object, code: str) -> None:
    problem = refused(EMBEDDED, {"model": "m", "url": url})
    assert problem.code == code


def test_sizes_and_presence() -> None:
    large = refused(EMBEDDED, form(file=b"x" * 101))
    assert (large.status, large.param) == (413, "file")
    assert "100 bytes" in large.message
    assert refused(EMBEDDED, form(file=b"")).code == "invalid_value"
    assert refused(EMBEDDED, {"model": "m"}).param == "file"
    assert refused(EMBEDDED, {"model": "m", "file": SOUND, "url": "x"}).param == "url"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"model":"m","file":"x"}', b"application/json"),
        (b"model=m", b"application/x-www-form-urlencoded"),
        (b"--XX--\r\n", b"multipart/mixed; boundary=XX"),
        (write_form(b"XX", [("model", b"\xff")], b"", extension="wav"), FORM + b"XX"),
        (write_form(b"XX", [("model", b"a"), ("model", b"b")], b"", extension="wav"), FORM + b"XX"),
        (write_form(b"XX", [("file", b"a")], b"", extension="wav"), FORM + b"XX"),
    ],
)
def test_bodies_that_are_none(body: bytes, kind: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_body(body, kind, 100)
    assert caught.value.status == 400
