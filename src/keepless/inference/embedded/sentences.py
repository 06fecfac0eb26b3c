"""A text in pieces that can be spoken one after the other: cut where a sentence ends.

Holds: `plain` (what an English voice can read of a text) and `pieces`. Leaves out: speaking (flite).

The first piece is one sentence, so that it can be heard soon; the next ones hold more and more sentences, because each
costs the start of a process. A sentence that is longer than a piece is cut at a comma, else between words. A "word"
longer than any real one is cut too: the voices' letter-to-sound rules take quadratic time on it.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

__all__ = ["LONGEST_PIECE", "pieces", "plain"]

LONGEST_PIECE: Final = 800  # characters
_FIRST_PIECE: Final = 200
_LONGEST_WORD: Final = 40

_WRITTEN: Final = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2013": "-", "\u2014": ", ", "\u2026": "...", "\u00df": "ss", "\u00e6": "ae", "\u00c6": "Ae",
        "\u00f8": "o", "\u00d8": "O", "\u0142": "l", "\u0141": "L", "\u20ac": " euro ", "\u00a3": " pound ",
        "\u00b0": " degrees ", "\u00d7": " times ", "\u3002": ". ", "\uff01": "! ", "\uff1f": "? ",
    }
)  # fmt: skip
_UNREADABLE: Final = re.compile(r"[^\x20-\x7e]+")
_LONG_WORD: Final = re.compile(rf"\S{{{_LONGEST_WORD}}}(?=\S)")
_SPACES: Final = re.compile(r" {2,}")
_BEFORE_MARK: Final = re.compile(r" +([.,;:!?])")
# The end of a sentence: a mark, what closes with it and a space, but not after an initial or a usual abbreviation, and
# not before a small letter.
_END: Final = re.compile(
    r"(?<![\s.][A-Z])(?<!\b[A-Z])(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\bNo)(?<!\bMrs)(?<!\bJr)(?<!\bSr)"
    r"(?<!\betc)(?<!\be\.g)(?<!\bi\.e)(?<!\bProf)[.!?]+[\"')\]]*\s+(?![a-z])"
)
_PAUSE: Final = re.compile(r"[,;:)] ")


def plain(text: str) -> str:
    """What an English voice can read of a text: ASCII, accents taken off; "" when nothing is left to say."""
    spelled = unicodedata.normalize("NFKD", text.translate(_WRITTEN))
    spelled = "".join(character for character in spelled if not unicodedata.combining(character))
    # A line's end is a pause even without a full stop.
    spelled = re.sub(r"\s*\n\s*\n\s*", "\n\n", spelled)
    parts = [_UNREADABLE.sub(" ", part).strip() for part in spelled.split("\n\n")]
    whole = " ".join(part if part[-1] in ".!?:;," else f"{part}." for part in parts if part)
    whole = _BEFORE_MARK.sub(r"\1", whole)
    whole = _SPACES.sub(" ", _LONG_WORD.sub(lambda found: f"{found.group()} ", whole))
    return whole if any(character.isalnum() for character in whole) else ""


def pieces(text: str) -> Iterator[str]:
    """A text of `plain` in pieces of at most `LONGEST_PIECE` characters, none without something to say."""
    room = 1  # the first piece takes one sentence whatever its length
    piece = ""
    for sentence in _sentences(text):
        if piece and len(piece) + 1 + len(sentence) > room:
            yield piece
            room = min(2 * max(room, _FIRST_PIECE), LONGEST_PIECE) if room > 1 else _FIRST_PIECE
            piece = ""
        piece = f"{piece} {sentence}" if piece else sentence
    if piece:
        yield piece


def _sentences(text: str) -> Iterator[str]:
    at, silent = 0, ""
    for found in [*_END.finditer(text), None]:
        end = len(text) if found is None else found.end()
        sentence = f"{silent} {text[at:end].strip()}".strip()
        at, silent = end, ""
        if not any(character.isalnum() for character in sentence):
            silent = sentence[-_LONGEST_WORD:]  # "...": said with what follows, or not at all
            continue
        while len(sentence) > LONGEST_PIECE:
            cut = _cut(sentence)
            yield sentence[:cut].strip()
            sentence = sentence[cut:].strip()
        if sentence:
            yield sentence


def _cut(sentence: str) -> int:
    """Where to cut what is too long: behind the last pause, else the last space, that still fits."""
    half = LONGEST_PIECE // 2
    pauses = [found.end() for found in _PAUSE.finditer(sentence, half, LONGEST_PIECE)]
    if pauses:
        return pauses[-1]
    space = sentence.rfind(" ", half, LONGEST_PIECE)
    return space + 1 if space > 0 else LONGEST_PIECE
