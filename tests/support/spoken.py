"""Recordings made by flite, and how well they were heard."""

import re
import subprocess
import tempfile
from functools import cache

__all__ = ["SENTENCE", "heard_wrong", "spoken", "words_of"]

SENTENCE = "The quick brown fox jumps over the lazy dog, and seven purple elephants walk along the river."


@cache
def spoken(text: str = SENTENCE) -> bytes:
    """A wav file (16 kHz)."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:  # flite goes back to write the length
        command = ["flite", "-voice", "slt", "-f", "/dev/stdin", "-o", file.name]
        subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=60)
        return file.read()


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def heard_wrong(said: str, heard: str) -> float:
    """Word error rate: insertions, deletions and substitutions for each word that was said."""
    one, other = words_of(said), words_of(heard)
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, guess in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != guess))
    return row[-1] / len(one)
