"""The form of an upload: its fields read as they come, its file handed on piece by piece.

Holds: `FileForm`. Leaves out: framing (form_stream), what is kept and where (files).

The file may stand before or after the other fields; what is known when it begins is checked before a byte is taken.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.files.refusals import too_large
from keepless.files.values import UPLOADED, FilePurpose
from keepless.gateway.form_stream import FIELD_END, Field, FieldEnd, FormStream, boundary_of
from keepless.gateway.switches import combined, from_body
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.vault.writer import LONGEST_LABEL

__all__ = ["FileForm", "ends_after", "purpose_of", "tell_encoding"]

_FIELD_BYTES: Final = 1024
_ALIASES: Final = {"fine_tuning": FilePurpose.FINE_TUNE}
_SHORTEST_S: Final = 3600
_LONGEST_S: Final = 2_592_000
_TRUTH: Final = {"true": True, "false": False}
_SWITCHES: Final = frozenset({"store", "no-log"})
_FIELDS: Final = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"}) | _SWITCHES


def tell_encoding(encoding: str | None) -> None:
    """A body must be what it is. Raises `Problem` 415."""
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise Problem(
            415, Code.UNSUPPORTED_VALUE, "A compressed body (content-encoding) is not served. Send it as it is."
        )


def purpose_of(text: object) -> FilePurpose:
    """What a file is for. Raises `Problem` 400 with those that are served."""
    for purpose in UPLOADED:
        if text == purpose.value or (isinstance(text, str) and _ALIASES.get(text) is purpose):
            return purpose
    allowed = ", ".join([*(purpose.value for purpose in UPLOADED), *_ALIASES])
    code = Code.MISSING_PARAMETER if text is None else Code.INVALID_VALUE
    raise Problem(400, code, f"'purpose' must be one of: {allowed}.", param="purpose")


def ends_after(anchor: object, seconds: object) -> int | None:
    """`expires_after` in seconds; None when it was not sent. Raises `Problem` 400."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise Problem(
            400, Code.INVALID_VALUE, "'expires_after.anchor' must be created_at.", param="expires_after.anchor"
        )
    if type(seconds) is not int or not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise Problem(
            400,
            Code.INVALID_VALUE,
            f"'expires_after.seconds' must be a whole number from {_SHORTEST_S} to {_LONGEST_S}.",
            param="expires_after.seconds",
        )
    return seconds


class FileForm:
    """One form.

    `most`: bytes of the file; `part`: the name of the field that holds it; `fields`: those that may stand beside it.
    """

    def __init__(
        self,
        content_type: bytes,
        *,
        most: int,
        part: str = "file",
        fields: frozenset[str] = _FIELDS,
        refusal: Callable[[int], Problem] = too_large,
    ) -> None:
        self._refusal: Final = refusal
        self._most: Final = most
        self._size = 0
        boundary = boundary_of(content_type)
        if boundary is None:
            message = "The body must be multipart/form-data, with a boundary of its own."
            raise Problem(415, Code.UNSUPPORTED_VALUE, message)
        self._stream: Final = FormStream(boundary)
        self._part: Final = part
        self._allowed: Final = fields
        self._texts: Final[dict[str, str]] = {}
        self._name = ""
        self._text: bytearray | None = None  # of the field that is being read; None: it is the file
        self.file_name: bytes | None = None  # None: no file has begun

    async def read(
        self,
        body: AsyncIterator[bytes],
        begin: Callable[[], Awaitable[None]],
        write: Callable[[Content], Awaitable[None]],
    ) -> None:
        """Read the whole form: `begin` when the file begins, `write` for each piece of it. Raises `Problem`."""
        async for chunk in body:
            for event in self._stream.feed(chunk):
                if isinstance(event, Field):
                    self._begin(event)
                    if self._text is None:
                        await begin()
                elif self._text is None:
                    await self._file(event, write)
                else:
                    self._field(event, self._text)
        self._stream.finish()
        if self.file_name is None:
            raise Problem(400, Code.MISSING_PARAMETER, f"The form has no '{self._part}'.", param=self._part)

    async def _file(self, event: bytes | FieldEnd, write: Callable[[Content], Awaitable[None]]) -> None:
        if isinstance(event, bytes):
            self._size += len(event)
            if self._size > self._most:
                raise self._refusal(self._most)
            await write(Content(event))

    def _field(self, event: bytes | FieldEnd, text: bytearray) -> None:
        if event is FIELD_END:
            self._texts[self._name] = _decoded(text, self._name)
            return
        text += event
        if len(text) > _FIELD_BYTES:
            raise Problem(400, Code.INVALID_VALUE, "A field of the form is too long.", param=self._name)

    def _begin(self, field: Field) -> None:
        self._name = field.name
        self._text = self._begun(field)

    def _begun(self, field: Field) -> bytearray | None:
        if field.name == self._part:
            if self.file_name is not None:
                raise Problem(400, Code.INVALID_VALUE, f"The form has more than one '{self._part}'.", param=self._part)
            self.file_name = field.file_name or b"file"
            if len(self.file_name) > LONGEST_LABEL:
                raise Problem(
                    400, Code.INVALID_VALUE, f"The name of the file has more than {LONGEST_LABEL} bytes.", param="file"
                )
            return None
        if field.name not in self._allowed:
            raise Problem(400, Code.UNKNOWN_PARAMETER, "The form has a field that this endpoint does not know.")
        if field.name in self._texts or field.file_name is not None:
            raise Problem(400, Code.INVALID_VALUE, "A field of the form is repeated, or a file.", param=field.name)
        return bytearray()

    @property
    def purpose(self) -> FilePurpose | None:
        """What the file is for, as far as that has come. Raises `Problem` 400."""
        text = self._texts.get("purpose")
        return None if text is None else purpose_of(text)

    @property
    def ends_after_s(self) -> int | None:
        """The earlier end that was asked for. Raises `Problem` 400."""
        seconds: Any = self._texts.get("expires_after[seconds]")
        whole = int(seconds) if seconds is not None and seconds.isascii() and seconds.isdigit() else seconds
        return ends_after(self._texts.get("expires_after[anchor]"), whole)

    @property
    def controls(self) -> RequestControls:
        """Privacy switches among the fields. Raises `Problem` 400."""
        asked = NO_REQUEST
        for name in _SWITCHES & self._texts.keys():
            text = self._texts[name]
            asked = combined(asked, from_body({name: _TRUTH.get(text, text)}))
        return asked


def _decoded(text: bytearray, name: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, Code.INVALID_VALUE, "A field of the form is not UTF-8.", param=name) from None
