"""The members that we read of an upstream's answers to embeddings and speech.

Holds: `Vectors`, `SpeechEvent`. Leaves out: reading (embeddings, speech). Not compiled: see chat_shapes.
"""

import msgspec

from keepless.gateway.chat_shapes import UsageOnly

__all__ = ["SpeechEvent", "Vectors"]


class Vectors(msgspec.Struct, gc=False):
    """An answer to embeddings."""

    data: list[msgspec.Raw]
    usage: UsageOnly | None = None


class SpeechEvent(msgspec.Struct, gc=False):
    """An event of speech."""

    type: str = ""
