"""The log takes values of closed types only, and exceptions lose their text."""

import io
import json
from collections.abc import Iterator

import pytest

from keepless import log
from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.ids import Prefix, mint
from keepless.log import Event


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    before, stream = log._sink.stream, io.StringIO()
    log.redirect(stream)
    yield stream
    log.redirect(before)


def test_a_line_is_one_json_object(lines: io.StringIO) -> None:
    key = mint(Prefix.OBJECT)
    log.emit(Event.SWEEP_DONE, count=3, share=0.5, ok=True, id=key, code=Code.INTERNAL, nothing=None)
    line = json.loads(lines.getvalue())
    assert line["event"] == "expiry:sweep:done"
    assert (line["count"], line["id"], line["code"], line["nothing"]) == (3, key, "internal_error", None)


@pytest.mark.parametrize("value", ["text", b"bytes", Content(b"x"), ["a"], {"a": 1}, object()])
def test_open_types_are_refused_without_being_shown(lines: io.StringIO, value: object) -> None:
    with pytest.raises(TypeError) as caught:
        log.emit(Event.SWEEP_DONE, value=value)
    assert str(caught.value) == "the log takes an Event and values of closed types only"
    assert lines.getvalue() == ""


def test_an_event_must_be_listed(lines: io.StringIO) -> None:
    with pytest.raises(TypeError):
        log.emit("made:up:event")


def test_an_exception_loses_its_text_and_keeps_its_class(lines: io.StringIO) -> None:
    try:
        int("MARKER")
    except ValueError as error:
        log.failure(Event.SWEEP_FAILED, error)
    assert "MARKER" not in lines.getvalue() and json.loads(lines.getvalue())["error"] == "ValueError"


def test_our_own_exception_keeps_its_code(lines: io.StringIO) -> None:
    log.failure(Event.SERVER_FAILED, Problem(500, Code.INTERNAL, "fixed"))
    assert json.loads(lines.getvalue())["code"] == "internal_error"


def test_a_stream_that_fails_takes_nothing_down() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left")

    before = log._sink.stream
    log.redirect(Full())
    log.emit(Event.SWEEP_DONE)
    log.redirect(before)
