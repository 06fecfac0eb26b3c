"""The parameters of audio/transcriptions and audio/translations: a form or a JSON object in, a checked request out.

Holds: `read_body`, `AudioRules` (of one model, for one endpoint), `AudioRequest`. Leaves out: who is asked and how the
answer is read (audio). A field is refused where the model cannot do it, never ignored.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from keepless.config import Endpoint
from keepless.errors import Code, Problem
from keepless.gateway.form_stream import boundary_of
from keepless.gateway.json_body import decode_object
from keepless.gateway.multipart import Part, read_form
from keepless.gateway.switches import BODY, from_body
from keepless.gateway.values import bad_type, bad_value, missing, unknown_member, unsupported
from keepless.ids import Id, Prefix, parse
from keepless.inference.embedded.hearing import LANGUAGES, Format
from keepless.outbound.urls import Target, UrlError
from keepless.policy.controls import RequestControls

__all__ = ["AudioRequest", "AudioRules", "no_such_file", "read_body", "too_large"]

_ARRAYS: Final = frozenset(
    {"timestamp_granularities", "include", "keywords", "languages", "known_speaker_names", "known_speaker_references"}
)
_BOOLEANS: Final = frozenset({"stream", *(member.name for member in BODY if len(member.path) == 1)})
_COMMON: Final = frozenset({"file", "url", "file_id", "model", "prompt", "response_format", "temperature", "user"})
_TRANSCRIPTIONS: Final = frozenset({"language", "timestamp_granularities", "stream"})
# What only upstreams do; passed on as it is.
_UPSTREAM: Final = (
    "include", "chunking_strategy", "keywords", "languages", "known_speaker_names", "known_speaker_references",
)  # fmt: skip
_FORMATS: Final = tuple(Format)
_DIARIZED: Final = "diarized_json"
_STREAMED: Final = ("json", "text")
_LONGEST_PROMPT: Final = 8192
_LONGEST_FIELD: Final = 4 * 1024 * 1024
_NUMBER: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,20})?\Z")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}\Z")
_DATA_URL: Final = re.compile(
    r"data:audio/[a-z0-9.+-]{1,40}(?:;[a-z0-9-]{1,20}=[a-z0-9.+-]{1,40})?;base64,", re.IGNORECASE
)
_DATA_PREFIX: Final = 160


@dataclass(slots=True)
class AudioRequest:
    """A checked request. `fields`: texts for an upstream, in the order they came; the audio is beside them.

    `source`, `file_id`: where the audio is still to be fetched from.
    """

    audio: bytes
    source: Target | None
    file_id: Id | None
    format: str
    language: str | None
    prompt: str | None
    temperature: float
    words: bool
    segments: bool
    stream: bool
    controls: RequestControls
    fields: list[tuple[str, bytes]]


def read_body(body: bytes, content_type: bytes, depth: int) -> dict[str, Any]:
    """The members of a body, the same for a form and for JSON. Raises `Problem` (400)."""
    boundary = boundary_of(content_type)
    if boundary is not None:
        return _members(read_form(body, boundary))
    kind = content_type.partition(b";")[0].strip().lower()
    if kind not in (b"application/json", b""):
        raise Problem(400, Code.INVALID_VALUE, "The request body must be a multipart form (or a JSON object).")
    members = decode_object(body, depth)[0]
    if "file" in members:
        raise Problem(
            400, Code.UNSUPPORTED_PARAMETER, "A JSON body has no file: send 'url', or a multipart form.", param="file"
        )
    return members


class AudioRules:
    """What one model takes. `capabilities` None: whatever its upstream does. `limit`: bytes of audio.

    `allowed` gives the parts of a url that audio may be fetched from, or raises `UrlError`; None: nothing is fetched.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        capabilities: frozenset[str] | None,
        limit: int,
        allowed: Callable[[str], Target] | None = None,
    ) -> None:
        self._transcribes: Final = endpoint is Endpoint.TRANSCRIPTIONS
        self._capabilities: Final = capabilities
        self._limit: Final = limit
        self._allowed: Final = allowed
        names = _COMMON | (_TRANSCRIPTIONS if self._transcribes else frozenset())
        self._known: Final = names | frozenset(_UPSTREAM if self._transcribes else ())

    def check(self, members: dict[str, Any], *, batch: bool = False) -> AudioRequest:
        """The request. `batch`: it is a line of one. Raises `Problem` (400, 404, 413)."""
        body = dict(members)
        controls = from_body(body)
        if not body.keys() <= self._known:
            position = next(index for index, name in enumerate(members) if name in body and name not in self._known)
            raise unknown_member(None, position, self._known)
        for name in _UPSTREAM:
            if name in body and not self._can(name):
                raise unsupported(name)
        file_id = _file_id(body, allowed=batch)
        audio, source = (b"", None) if file_id is not None else self._audio(body)
        format = self._format(body.get("response_format"))
        words, segments = self._granularities(body.get("timestamp_granularities"), format)
        return AudioRequest(
            audio=audio,
            format=format,
            source=source,
            file_id=file_id,
            language=self._language(body.get("language")),
            prompt=_text(body, "prompt", _LONGEST_PROMPT),
            temperature=_temperature(body.get("temperature")),
            words=words,
            segments=segments,
            stream=self._stream(body.get("stream"), format),
            controls=controls,
            fields=[
                pair for name, value in body.items() if name not in ("file", "model") for pair in _fields(name, value)
            ],
        )

    def _can(self, capability: str) -> bool:
        return self._capabilities is None or capability in self._capabilities

    def sized(self, audio: bytes, param: str = "file") -> bytes:
        """Audio that is neither too much nor nothing. Raises `Problem` (400, 413)."""
        if len(audio) > self._limit:
            raise too_large(self._limit, param)
        if not audio:
            raise Problem(400, Code.INVALID_VALUE, "The audio file is empty.", param=param)
        return audio

    def _audio(self, body: dict[str, Any]) -> tuple[bytes, Target | None]:
        """The audio, or where it is."""
        file, url = body.get("file"), body.pop("url", None)
        if (file is None) == (url is None):
            if file is None:
                raise missing("file")
            raise Problem(400, Code.INVALID_VALUE, "Send either 'file' or 'url', not both.", param="url")
        if file is not None:
            if type(file) is not bytes:
                raise bad_type("file", "a file", file)
            return self.sized(file), None
        if type(url) is not str:
            raise bad_type("url", "a string", url)
        match = _DATA_URL.match(url[:_DATA_PREFIX])
        if match is None:
            return b"", self._target(url)
        try:
            return self.sized(base64.b64decode(url[match.end() :], validate=True), "url"), None
        except (binascii.Error, ValueError):
            raise bad_value("url", "valid base64 after the comma") from None

    def _target(self, url: str) -> Target:
        if self._allowed is None:
            raise Problem(
                400,
                Code.UNSUPPORTED_VALUE,
                "This server fetches nothing from addresses that requests name. Send the audio as 'file', or as a "
                "`data:audio/...;base64,` URL.",
                param="url",
                retry=False,
            )
        try:
            return self._allowed(url)
        except UrlError as refused:
            message = f"Invalid value for 'url': {refused.why}."
            raise Problem(400, Code.INVALID_VALUE, message, param="url", retry=False) from None

    def _format(self, value: object) -> str:
        if value is None:
            return Format.JSON.value
        if type(value) is not str:
            raise bad_type("response_format", "a string", value)
        allowed = [one.value for one in _FORMATS if one not in (Format.SRT, Format.VTT) or self._can(one.value)]
        if self._capabilities is None and self._transcribes:
            allowed.append(_DIARIZED)
        if value not in allowed:
            raise bad_value("response_format", f"one of {', '.join(allowed)}")
        return value

    def _granularities(self, value: object, format: str) -> tuple[bool, bool]:
        if value is None:
            return False, True
        name = "timestamp_granularities"
        if type(value) is not list or not all(one in ("word", "segment") for one in value) or not value:
            raise bad_value(name, "an array of word, segment")
        if format != Format.VERBOSE_JSON:
            raise Problem(400, Code.INVALID_VALUE, f"'{name}' needs 'response_format' to be verbose_json.", param=name)
        if "word" in value and not self._can("word_timestamps"):
            raise unsupported(name, "word timestamps")
        return "word" in value, "segment" in value

    def _language(self, value: object) -> str | None:
        if value is None:
            return None
        if type(value) is not str:
            raise bad_type("language", "a string", value)
        known = _LANGUAGE.match(value) if self._capabilities is None else value in LANGUAGES
        if not known:
            raise bad_value("language", "a language code of ISO 639-1, such as en")
        return value

    def _stream(self, value: object, format: str) -> bool:
        if value is None or value is False:
            return False
        if value is not True:
            raise bad_type("stream", "a boolean", value)
        if not self._can("stream"):
            raise unsupported("stream")
        if self._capabilities is not None and format not in _STREAMED:
            raise bad_value("response_format", f"one of {', '.join(_STREAMED)} when the answer is streamed")
        return True


def _file_id(body: dict[str, Any], *, allowed: bool) -> Id | None:
    """The file that a line of a batch names. Raises `Problem` (400, 404)."""
    value = body.pop("file_id", None)
    if value is None:
        return None
    if not allowed:
        message = "'file_id' is for lines of batches: send the audio as 'file', or as a `data:audio/...;base64,` URL."
        raise Problem(400, Code.UNSUPPORTED_VALUE, message, param="file_id", retry=False)
    if type(value) is not str:
        raise bad_type("file_id", "a string", value)
    if body.get("url") is not None:
        raise Problem(400, Code.INVALID_VALUE, "Send either 'file_id' or 'url', not both.", param="url")
    found = parse(value, Prefix.FILE)
    if found is None:
        raise no_such_file()
    return found


def no_such_file() -> Problem:
    """Not there, another project's, expired or deleted: always the same answer (DECISIONS 9)."""
    return Problem(404, Code.NOT_FOUND, "No such File object.", param="file_id", retry=False)


def too_large(limit: int, param: str) -> Problem:
    """The refusal of audio of more than `limit` bytes."""
    return Problem(
        413,
        Code.REQUEST_TOO_LARGE,
        f"The audio is larger than {limit} bytes, the most that this server takes.",
        param=param,
        retry=False,
    )


def _members(parts: list[Part]) -> dict[str, Any]:
    """A form's fields as JSON would have them."""
    members: dict[str, Any] = {}
    for part in parts:
        listed = part.name.endswith("[]")
        name = part.name[:-2] if listed else part.name
        if name == "file":
            if not part.file:
                raise bad_type("file", "a file", "")
            value: Any = part.data
        else:
            value = _value(name, part.data)
        if name in _ARRAYS:
            members.setdefault(name, []).append(value)
        elif listed or name in members:
            raise Problem(400, Code.INVALID_VALUE, "A field of the form came more than once.")
        else:
            members[name] = value
    return members


def _value(name: str, data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, Code.INVALID_VALUE, "A field of the form is not UTF-8.") from None
    if name == "temperature" and _NUMBER.match(text):
        return float(text)
    if name in _BOOLEANS and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _text(body: dict[str, Any], name: str, longest: int) -> str | None:
    value = body.get(name)
    if value is not None and type(value) is not str:
        raise bad_type(name, "a string", value)
    if value is not None and len(value) > longest:
        raise bad_value(name, f"a string of at most {longest} characters")
    return value


def _temperature(value: object) -> float:
    if value is None:
        return 0.0
    if type(value) not in (int, float):
        raise bad_type("temperature", "a number", value)
    if not 0 <= float(str(value)) <= 1:
        raise bad_value("temperature", "a number from 0 to 1")
    return float(str(value))


def _fields(name: str, value: Any) -> list[tuple[str, bytes]]:
    """A checked member as fields of a form."""
    if value is None:
        return []
    if type(value) is list:
        return [(f"{name}[]", _plain(name, one)) for one in value]
    return [(name, _plain(name, value))]


def _plain(name: str, value: Any) -> bytes:
    if type(value) is bool:
        return b"true" if value else b"false"
    if type(value) in (int, float):
        return str(value).encode("ascii")
    if type(value) is not str:
        raise bad_type(name, "a string", value)
    if len(value) > _LONGEST_FIELD:
        raise bad_value(name, f"a string of at most {_LONGEST_FIELD} characters")
    return value.encode("utf-8", "replace")
