"""What the gateway asks of the engines for speech and embeddings: the header of a request. Its text goes beside it.

Holds: `SpeechHeader`, `EmbeddingHeader`. Leaves out: the text, which is content and travels as such (frames).
"""

import msgspec

__all__ = ["EmbeddingHeader", "SpeechHeader"]


class SpeechHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The content is the text, UTF-8. `events`: as server-sent events instead of sound."""

    format: str
    rate: int
    voice: str
    speed: float
    events: bool


class EmbeddingHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The content is a JSON array of texts, or of arrays of tokens. `model`: as the answer names it."""

    model: str
    base64: bool
    dimensions: int | None
