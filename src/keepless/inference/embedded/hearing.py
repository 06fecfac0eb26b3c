"""What the engine `whisper` is asked, and its answer in each format: values shared by the gateway and the engine.

Holds: `Hearing` (the header of a request), `Line` and `Word` (what was heard), the formats of an answer, `LANGUAGES`.
Leaves out: audio, the model (whisper_process).
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

__all__ = [
    "CAPABILITIES",
    "LANGUAGES",
    "Format",
    "Hearing",
    "Line",
    "Task",
    "Word",
    "content_type_of",
    "delta",
    "done",
    "whole",
]


# What the engine can beyond json, text and verbose_json with segments.
CAPABILITIES: Final = frozenset({"srt", "stream", "vtt", "word_timestamps"})


class Task(StrEnum):
    """What becomes of the speech."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


class Format(StrEnum):
    """`response_format`."""

    JSON = "json"
    TEXT = "text"
    VERBOSE_JSON = "verbose_json"
    SRT = "srt"
    VTT = "vtt"


class Hearing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request. `language`: a key of `LANGUAGES`, None to find out."""

    request_id: str
    task: Task = Task.TRANSCRIBE
    format: Format = Format.JSON
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0
    words: bool = False
    segments: bool = True
    stream: bool = False


class Word(msgspec.Struct, frozen=True):
    """A word and when it was said, seconds."""

    word: str
    start: float
    end: float


class Line(msgspec.Struct, frozen=True):
    """A stretch of speech, with OpenAI's and Groq's members."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


_encode: Final = msgspec.json.encode
_TYPES: Final = {
    Format.JSON: "application/json",
    Format.VERBOSE_JSON: "application/json",
    Format.TEXT: "text/plain; charset=utf-8",
    Format.SRT: "text/plain; charset=utf-8",
    Format.VTT: "text/vtt; charset=utf-8",
}


def content_type_of(format: Format, *, stream: bool) -> str:
    """Of an answer."""
    return "text/event-stream" if stream else _TYPES[format]


def delta(text: str) -> bytes:
    """One event of a stream."""
    return _event({"type": "transcript.text.delta", "delta": text})


def done(text: str, seconds: float) -> bytes:
    """The last events of a stream."""
    usage = {"type": "duration", "seconds": seconds}
    return _event({"type": "transcript.text.done", "text": text, "usage": usage}) + b"data: [DONE]\n\n"


def whole(asked: Hearing, language: str, seconds: float, lines: Sequence[Line], words: Sequence[Word]) -> bytes:
    """The whole answer in the format asked for. `language`: a key of `LANGUAGES`."""
    text = "".join(line.text for line in lines).strip()
    if asked.format is Format.TEXT:
        return text.encode() + b"\n"
    if asked.format is Format.SRT:
        return _srt(lines).encode()
    if asked.format is Format.VTT:
        return _vtt(lines).encode()
    answer: dict[str, Any] = {"text": text}
    if asked.format is Format.VERBOSE_JSON:
        translated = asked.task is Task.TRANSLATE
        answer = {
            "task": asked.task.value,
            "language": "english" if translated else LANGUAGES.get(language, language),
            "duration": seconds,
            **answer,
        }
        if asked.segments:
            answer["segments"] = lines
        if asked.words:
            answer["words"] = words
    answer["usage"] = {"type": "duration", "seconds": seconds}
    answer["x_groq"] = {"id": asked.request_id}
    return _encode(answer)


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + _encode(event) + b"\n\n"


def _srt(lines: Iterable[Line]) -> str:
    return "".join(
        f"{number}\n{_clock(line.start, ',')} --> {_clock(line.end, ',')}\n{_flat(line.text)}\n\n"
        for number, line in enumerate(lines, 1)
    )


def _vtt(lines: Iterable[Line]) -> str:
    cues = (f"{_clock(line.start, '.')} --> {_clock(line.end, '.')}\n{_flat(line.text)}\n\n" for line in lines)
    return "WEBVTT\n\n" + "".join(cues)


def _flat(text: str) -> str:
    """A cue's text: an empty line or an arrow in it would end it or begin another one."""
    return " ".join(text.split()).replace("-->", "->")


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"


# Whisper's languages: ISO 639-1 where there is a code of two letters.
LANGUAGES: Final[dict[str, str]] = dict(
    re.findall(
        r"(\w+):(\w+)",
        """
    en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese tr:turkish
    pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi fi:finnish vi:vietnamese
    he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish hu:hungarian ta:tamil no:norwegian
    th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak
    te:telugu fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada et:estonian
    mk:macedonian br:breton eu:basque is:icelandic hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh
    sq:albanian sw:swahili gl:galician mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali
    af:afrikaans oc:occitan ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao
    uz:uzbek fo:faroese ht:haitian ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish
    my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa ba:bashkir
    jv:javanese jw:javanese su:sundanese
        """,
    )
)
