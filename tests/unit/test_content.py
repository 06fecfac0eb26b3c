"""Content has one way out."""

import copy
import json
import pickle
import traceback
from dataclasses import asdict, dataclass

import msgspec
import pytest

from keepless.content import Content, ContentLeakError, Purpose

MARKER = b"MARKER-5d1e"


@pytest.fixture
def content() -> Content:
    return Content(MARKER)


def test_reveal_gives_the_bytes_for_a_listed_purpose(content: Content) -> None:
    assert all(content.reveal(purpose) == MARKER for purpose in Purpose)


@pytest.mark.parametrize("purpose", ["seal", None, 1, object(), Purpose])
def test_reveal_refuses_anything_but_a_purpose(content: Content, purpose: object) -> None:
    with pytest.raises(ContentLeakError):
        content.reveal(purpose)


@pytest.mark.parametrize("show", [str, repr, format, "{}".format, "%s".__mod__, ascii, lambda c: f"{c!r:>40}"])
def test_text_shows_the_size_only(content: Content, show) -> None:
    assert "MARKER" not in show(content) and "11 bytes" in show(content)


LEAKS = {
    "eq": lambda c: c == b"",
    "ne": lambda c: c != b"",
    "hash": hash,
    "iter": list,
    "len": len,
    "bool": bool,
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "contains": lambda c: b"M" in c,
    "index": lambda c: c[0],
    "add": lambda c: c + b"",
    "join": lambda c: b"".join([c]),
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "json": json.dumps,
    "msgspec": msgspec.json.encode,
    "vars": vars,
    "int": int,
    "subclass": lambda c: type("X", (Content,), {}),
    "setattr": lambda c: setattr(c, "extra", 1),
}


@pytest.mark.parametrize("way", LEAKS.values(), ids=LEAKS)
def test_every_everyday_way_out_raises_without_the_bytes(content: Content, way) -> None:
    with pytest.raises((ContentLeakError, TypeError, AttributeError)) as caught:
        way(content)
    assert "MARKER" not in "".join(traceback.format_exception(caught.value))


def test_asdict_of_a_holder_raises(content: Content) -> None:
    @dataclass
    class Holder:
        content: Content

    with pytest.raises(ContentLeakError):
        asdict(Holder(content))
    assert "MARKER" not in repr(Holder(content))
