"""How well speech is heard again: texts spoken by `/audio/speech`, each by every embedded voice, and transcribed.

Holds: `recognising`. The figure is the word error rate: words put in, left out or replaced, for each word said. Case
and punctuation do not count. The voices are synthetic, so this says that sound and ears fit together, and nothing of
how people are heard.
"""

import json
import re
import shutil
import subprocess
import sys
import urllib.request

from benchmarks.targets import OUT
from keepless.gateway.multipart import FORM, write_form
from keepless.inference.embedded.voices import VOICES

__all__ = ["recognising"]

# The first list of the Harvard sentences (IEEE, 1969), made to be balanced in their sounds.
_TEXT = (
    "The birch canoe slid on the smooth planks. "
    "Glue the sheet to the dark blue background. "
    "It's easy to tell the depth of a well. "
    "These days a chicken leg is a rare dish. "
    "Rice is often served in round bowls. "
    "The juice of lemons makes fine punch. "
    "The box was thrown beside the parked truck. "
    "The hogs were fed chopped corn and garbage. "
    "Four hours of steady work faced us. "
    "A large size in stockings is hard to sell."
)


_MODELS = "".join(
    f'[[models]]\nid = "{name}"\nengine = "{name}"\nthreads = 1\nfirst_byte_timeout = 600\n'
    for name in ("flite", "whisper")
)


_CASES = [*((voice, "wav") for voice in sorted(VOICES)), ("slt", "mp3"), ("slt", "opus")]


def recognising() -> dict[str, float]:
    """The word error rate of each voice, and of one in formats that lose something."""
    folder = OUT / "run" / "words"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "keepless.toml").write_text(_MODELS)
    command = [sys.executable, "-m", "keepless", "serve", "--json", "--port", "0", "--config"]
    command += [str(folder / "keepless.toml"), "--data-dir", str(folder / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    errors: dict[str, float] = {}
    try:
        told = json.loads(process.stdout.readline())
        for voice, form in _CASES:
            heard = _heard(told, _sound(told, _TEXT, voice, form), form)
            errors[f"{voice} {form}"] = round(_wrong(_words(_TEXT), _words(heard)) / len(_words(_TEXT)), 4)
            print(f"{voice} {form}: {errors[f'{voice} {form}']}", file=sys.stderr, flush=True)
    finally:
        process.terminate()
        process.wait(30)
    return errors


def _sound(told: dict[str, str], text: str, voice: str, form: str) -> bytes:
    body = {"model": "flite", "voice": voice, "input": text, "response_format": form}
    return _answer(told, "/audio/speech", json.dumps(body).encode(), "application/json")


def _heard(told: dict[str, str], sound: bytes, form: str) -> str:
    fields = [("model", b"whisper"), ("language", b"en")]
    made = write_form(b"XX", fields, sound, extension=form)
    return json.loads(_answer(told, "/audio/transcriptions", made, (FORM + b"XX").decode()))["text"]


def _answer(told: dict[str, str], path: str, body: bytes, kind: str) -> bytes:
    head = {"authorization": f"Bearer {told['api_key']}", "content-type": kind}
    with urllib.request.urlopen(urllib.request.Request(f"{told['url']}/v1{path}", body, head), timeout=600) as answer:
        return answer.read()


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower().replace("'", ""))


def _wrong(said: list[str], heard: list[str]) -> int:
    """The edit distance in words."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(said, 1):
        before, row[0] = row[0], place
        for at, guess in enumerate(heard, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != guess))
    return row[-1]
