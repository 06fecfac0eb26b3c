"""A transcript in every format."""

import msgspec
import pytest

from keepless.inference.embedded.hearing import (
    LANGUAGES,
    Format,
    Hearing,
    Line,
    Task,
    Word,
    content_type_of,
    delta,
    done,
    whole,
)


def line(number: int, text: str, start: float, end: float) -> Line:
    return Line(number, 0, start, end, text, [1, 2], 0.0, -0.2, 1.1, 0.01)


LINES = [line(0, " Hello there.", 0.0, 1.5), line(1, " A second\n\nline --> here.", 3661.25, 3662.0)]
WORDS = [Word("Hello", 0.0, 0.5)]


def told(format: Format, **more: object) -> bytes:
    return whole(Hearing(request_id="req_1", format=format, **more), "de", 4.2, LINES, WORDS)


def test_json_and_text() -> None:
    text = "Hello there. A second\n\nline --> here."
    assert msgspec.json.decode(told(Format.JSON)) == {
        "text": text,
        "usage": {"type": "duration", "seconds": 4.2},
        "x_groq": {"id": "req_1"},
    }
    assert told(Format.TEXT).decode() == text + "\n"


@pytest.mark.parametrize(("words", "segments"), [(True, True), (True, False), (False, True)])
def test_verbose_json_has_what_was_asked_for(words: bool, segments: bool) -> None:
    answer = msgspec.json.decode(told(Format.VERBOSE_JSON, words=words, segments=segments))
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "german", 4.2)
    assert ("words" in answer, "segments" in answer) == (words, segments)
    if segments:
        assert answer["segments"][1]["start"] == 3661.25
        assert answer["segments"][0]["tokens"] == [1, 2]
    if words:
        assert answer["words"] == [{"word": "Hello", "start": 0.0, "end": 0.5}]


def test_a_translation_is_english() -> None:
    answer = msgspec.json.decode(told(Format.VERBOSE_JSON, task=Task.TRANSLATE))
    assert (answer["task"], answer["language"]) == ("translate", "english")


def test_cues_cannot_end_early() -> None:
    assert told(Format.SRT).decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n01:01:01,250 --> 01:01:02,000\nA second line -> here.\n\n"
    )
    assert told(Format.VTT).decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n"
        "01:01:01.250 --> 01:01:02.000\nA second line -> here.\n\n"
    )


def test_events() -> None:
    assert delta("a") == b'data: {"type":"transcript.text.delta","delta":"a"}\n\n'
    first, last, rest = done("ab", 1.0).split(b"\n\n")
    assert msgspec.json.decode(first.removeprefix(b"data: ")) == {
        "type": "transcript.text.done",
        "text": "ab",
        "usage": {"type": "duration", "seconds": 1.0},
    }
    assert (last, rest) == (b"data: [DONE]", b"")


def test_types_and_languages() -> None:
    assert content_type_of(Format.JSON, stream=True) == "text/event-stream"
    assert {content_type_of(one, stream=False).partition(";")[0] for one in Format} == {
        "application/json",
        "text/plain",
        "text/vtt",
    }
    assert len(LANGUAGES) == 100
    assert (LANGUAGES["en"], LANGUAGES["haw"]) == ("english", "hawaiian")
