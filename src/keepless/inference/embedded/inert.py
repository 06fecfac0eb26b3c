"""A customer's text that spells one of the model's control tokens must be text to it: no turn can be forged.

Holds: `Inert` (text without control tokens), `inert_of` (of a GGUF file), `control_words`. Leaves out: the engine,
which puts everybody's texts into the model's template and reads the names of control tokens wherever they stand.

Such a name gets a sign without width behind its first letter: the engine then reads ordinary tokens, and a reader sees
what was written. It is done to every content of every message, whoever is said to have written it, for none of them is
the template's. The names come from the file that the engine reads: tokens of control, whatever else has their look (the
runtime takes those for control tokens too), and of the words that were added for users those that the template itself
uses (`<think>`, `<tool_call>`). When the file cannot be read here, everything that looks like one of them is broken.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from keepless.inference.embedded.gguf import GgufError, vocabulary_of

__all__ = ["Inert", "control_words", "inert_of"]

_NO_WIDTH: Final = "\u200b"
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # kinds of tokens in ggml's specification
_LOOK: Final = "<[|\uff5c][^<>]{1,80}[|\uff5c]>"  # some models have the wide bar
# Names that llama.cpp makes control tokens of, whatever the file says that they are.
_OVERRIDDEN: Final = frozenset(
    {"<end_of_turn>", "<start_of_turn>", "<EOT>", "< EOT >", "_<EOT>", "<PRE>", "<SUF>", "<MID>", "<FIM_PREFIX>"}
    | {f"<fim{sign}{part}>" for sign in "_-" for part in ("prefix", "suffix", "middle", "pad")}
)
_ANY: Final = re.compile(rf"{_LOOK}|</?[A-Za-z][A-Za-z0-9_:-]{{0,40}}>|\[/?[A-Z][A-Z_]{{1,40}}\]|<</?[A-Z]{{1,10}}>>")


class Inert:
    """Call it with a text. `words`: the names to be broken; None = whatever looks like one."""

    def __init__(self, words: Iterable[str] | None) -> None:
        self._pattern: re.Pattern[str] | None = _ANY
        if words is not None:
            ordered = sorted((re.escape(word) for word in words if len(word) > 1), key=len, reverse=True)
            self._pattern = re.compile("|".join(ordered)) if ordered else None

    def __call__(self, text: str) -> str:
        """The text, in which no name is whole."""
        pattern = self._pattern
        while pattern is not None and pattern.search(text) is not None:  # again: what is broken may have hidden another
            text = pattern.sub(_broken, text)
        return text


def control_words(words: Iterable[tuple[str, int]], template: str) -> frozenset[str]:
    """Of a vocabulary (names with their kinds) those that are no text."""
    look = re.compile(_LOOK)
    return frozenset(
        word
        for word, kind in words
        if kind in (_UNKNOWN, _CONTROL)
        or word in _OVERRIDDEN
        or look.fullmatch(word) is not None
        or (kind == _USER_DEFINED and word.startswith(("<", "[")) and word in template)
    )


@lru_cache(16)
def inert_of(weights: str) -> Inert:
    """For the model in a file. Reads the file's header once."""
    try:
        words, template = vocabulary_of(weights)
    except (OSError, GgufError):
        return Inert(None)
    return Inert(control_words(words, template))


def _broken(found: re.Match[str]) -> str:
    word = found[0]
    return word[0] + _NO_WIDTH + word[1:]
