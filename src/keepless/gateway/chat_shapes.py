"""The few members of chat engines' answers that we read, as msgspec reads them.

Holds: `Answer`, `Choices`, `Event`, `UsageOnly`. Leaves out: reading (wire, stream). Not compiled: a compiled class
keeps no annotations that msgspec could read (ADR 0009), and what it cannot read it drops.
"""

from typing import Final

import msgspec

__all__ = ["Answer", "Choices", "Event", "UsageOnly"]

_NULL: Final = msgspec.Raw(b"null")


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class UsageOnly(msgspec.Struct, gc=False):
    """The `usage` member."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class Answer(msgspec.Struct, gc=False):
    """A whole answer."""

    choices: list[msgspec.Raw]
    usage: UsageOnly | None = None


class Choices(msgspec.Struct, gc=False):
    """A whole answer whose usage has a shape of its own."""

    choices: list[msgspec.Raw]


class _Groq(msgspec.Struct, gc=False):
    usage: UsageOnly | None = None


class Event(msgspec.Struct, gc=False):
    """What matters of an event of a stream."""

    choices: list[msgspec.Raw] | None = None
    usage: UsageOnly | None = None
    x_groq: _Groq | None = None
    error: msgspec.Raw = _NULL
