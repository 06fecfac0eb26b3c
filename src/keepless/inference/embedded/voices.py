"""The voices of the embedded speech engine, and which of them answers to a name of OpenAI's.

Holds: `VOICES`, `ALIASES`, `voice_of`. Leaves out: speaking (flite). The names of OpenAI's voices are accepted because
clients send them by default; what is heard is one of ours, as the table says (and `/models/{id}` shows).
"""

from typing import Final

__all__ = ["ALIASES", "VOICES", "voice_of"]

# Our name -> flite's own. Voices of CMU, built into Debian's package: an American woman, an American man, a Scottish
# man, and a robot (diphones, the quickest).
VOICES: Final = {"slt": "slt", "rms": "rms", "awb": "awb", "kal": "kal16"}
ALIASES: Final = {
    "alloy": "slt", "coral": "slt", "marin": "slt", "nova": "slt", "sage": "slt", "shimmer": "slt",
    "ash": "rms", "ballad": "rms", "cedar": "rms", "echo": "rms", "onyx": "rms", "verse": "rms",
    "fable": "awb",
}  # fmt: skip


def voice_of(name: str) -> str | None:
    """Which voice answers to a name; None when none does."""
    return ALIASES.get(name, name if name in VOICES else None)
