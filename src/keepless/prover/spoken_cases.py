"""What the prover says aloud: words that exist in no text of ours, spoken by the embedded voice, heard by the engine.

Holds: `Recording` with `record`, `fault_spoken_cases`, `embedded_spoken_cases` (as in cases), `under_way`, `MODEL` and
`FAILING`. Leaves out: the other endpoints (cases, response_cases, media_cases).

Random letters cannot be spoken. So the words of a recording are looked for as texts in everything that belongs to the
deployment, and pieces of its sound everywhere. Where an upstream is to fail, the "sound" is an ordinary marker.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from keepless.policy.decision import Reason
from keepless.prover.cases import Case, Mark
from keepless.prover.customer import FORM, form
from keepless.prover.markers import Marker, spoken
from keepless.prover.media_cases import VOICE
from keepless.prover.run import Account, Run
from keepless.prover.search import Search
from keepless.prover.upstream import Temper
from keepless.prover.wire import Answer, Manner, ProverError, Request, send

__all__ = [
    "FAILING",
    "HEARD",
    "MODEL",
    "Recording",
    "embedded_spoken_cases",
    "fault_spoken_cases",
    "record",
    "under_way",
]

HEARD: Final = "transcriptions: embedded engine"
MODEL: Final = "embedded-ears"
# Model -> how its upstream behaves.
FAILING: Final[Mapping[str, Temper]] = {
    "well-ears": Temper.WELL,
    "broken-ears": Temper.BROKEN,
    "wrong-ears": Temper.NOT_JSON,
    "cut-ears": Temper.CUT,
}
_TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
_TRANSLATIONS: Final = "/v1/audio/translations"
_WORDS: Final = 4
_PIECES, _PIECE = 8, 48
_LIVELY: Final = _PIECE // 2  # different bytes in a piece: no silence, and no header


@dataclass(frozen=True, slots=True, repr=False)
class Recording:
    """Some words and how they sound."""

    words: tuple[str, ...]
    sound: bytes

    def heard_in(self, answer: Answer) -> bool:
        """Whether most of the words stand in an answer: else nothing was tried."""
        text = answer.body.decode("utf-8", "replace").lower()
        return 2 * sum(word in text for word in self.words) >= len(self.words)


def record(run: Run, url: str, account: Account) -> tuple[Recording, Search]:
    """Speak new words; and the search for them. Pieces of the sound are looked for in every search of the run.

    Raises `ProverError` when nothing is spoken.
    """
    words = tuple(spoken(_WORDS))
    text = " ".join(f"The {word} is here." for word in words)
    body = {"model": VOICE, "input": text, "voice": "slt", "response_format": "wav"}
    answer = send(url, account.api_key, Request("/v1/audio/speech", json.dumps(body).encode()))
    pieces = _pieces(answer.body)
    if answer.status != 200 or not answer.whole or len(pieces) < _PIECES:
        raise ProverError("the embedded voice says nothing")
    sound = run.markers.mint("sound", "spoken", account.setting.name)
    for piece in pieces:
        run.search.add("sound", piece, sound.number)
    marks = []
    for word in words:
        number = run.markers.mint("spoken word", "spoken", account.setting.name).number
        marks += [Marker(number, word, "spoken word"), Marker(number, word.capitalize(), "spoken word")]
    # All but the first letter is common to both ways to write a word.
    return Recording(words, answer.body), Search([word[1:] for word in words], lambda: marks)


def _pieces(sound: bytes) -> list[bytes]:
    found: list[bytes] = []
    for _ in range(50 * _PIECES):
        at = secrets.randbelow(max(1, len(sound) - _PIECE))
        piece = sound[at : at + _PIECE]
        if len(found) < _PIECES and len(set(piece)) >= _LIVELY:
            found.append(piece)
    return found


def _request(
    model: str,
    sound: Callable[[Mark], bytes],
    manner: Manner = Manner.WHOLE,
    *,
    path: str = _TRANSCRIPTIONS,
    fields: Mapping[str, str] | None = None,
) -> Callable[[Mark], Request]:
    def make(mark: Mark) -> Request:
        marked = {"model": model, "prompt": mark("prompt"), "user": mark("user"), **(fields or {})}
        body = form(sound(mark), name=f"{mark('file name')}.wav", fields=marked)
        head = {"user-agent": mark("user agent"), "content-type": FORM}
        return Request(f"{path}?{mark('query')}", body, head, manner)

    return make


def _marked(mark: Mark) -> bytes:
    return b"RIFF\x24\x10\x00\x00WAVEfmt " + mark("sound").encode() * 20


def fault_spoken_cases() -> list[Case]:
    """Upstreams that hear, or fail."""
    bad, cut = frozenset({502}), Reason.UPSTREAM_CUT
    return [
        Case("transcriptions", _request("well-ears", _marked), frozenset({200})),
        Case("translations", _request("well-ears", _marked, path=_TRANSLATIONS), frozenset({200})),
        Case("transcriptions, upstream: broken", _request("broken-ears", _marked), bad, Reason.UPSTREAM_5XX),
        Case("transcriptions, upstream: no JSON", _request("wrong-ears", _marked), bad, Reason.UPSTREAM_MALFORMED),
        Case("translations, upstream: cut", _request("cut-ears", _marked, path=_TRANSLATIONS), bad, cut),
        Case(
            "transcriptions, store: false",
            _request("broken-ears", _marked, fields={"store": "false"}),
            bad,
            forbids=True,
        ),
        Case("transcriptions, left", _request("well-ears", _marked, Manner.HALF), frozenset({0})),
        Case("transcriptions, wrong", _wrong, frozenset({400})),
    ]


def _wrong(mark: Mark) -> Request:
    return _request("well-ears", _marked, fields={mark("field"): mark("value")})(mark)


def embedded_spoken_cases(recording: Recording) -> list[Case]:
    """The ways of the embedded engine."""

    def sound(_: Mark) -> bytes:
        return recording.sound

    good = frozenset({200})
    return [
        Case(HEARD, _request(MODEL, sound, fields={"language": "en"}), good),
        Case("translations: embedded engine", _request(MODEL, sound, path=_TRANSLATIONS), good),
        Case(
            "transcriptions: embedded engine, streamed",
            _request(MODEL, sound, fields={"language": "en", "stream": "true"}),
            good,
            streamed=True,
        ),
        Case("transcriptions: embedded engine, left", _request(MODEL, sound, Manner.HALF), frozenset({0})),
        Case(
            "transcriptions: embedded engine, no sound",
            _request(MODEL, lambda mark: mark("sound").encode() * 20),
            frozenset({400}),
        ),
    ]


def under_way(recording: Recording) -> Request:
    """A request that is heard while the server dies."""
    body = form(recording.sound, name="a.wav", fields={"model": MODEL})
    return Request(_TRANSCRIPTIONS, body, {"content-type": FORM})
