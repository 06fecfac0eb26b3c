"""A form with a file (RFC 7578), read in memory, and written again for an upstream.

Holds: `read_form`, `write_form`, `Part`. Leaves out: how a form is read (form_stream), what the fields mean (each
endpoint). No temp file, ever: the body is there as a whole, within the server's limits. File names and types that a
client gives are read past: both are content, and neither is needed.
"""

import secrets
from collections.abc import Iterable
from typing import Final, NamedTuple

from keepless.gateway.form_stream import Field, FormStream

__all__ = ["FORM", "Part", "new_boundary", "read_form", "write_form"]

FORM: Final = b"multipart/form-data; boundary="


class Part(NamedTuple):
    """One field. `file`: it was sent as a file."""

    name: str
    data: bytes
    file: bool = False


def read_form(body: bytes, boundary: bytes) -> list[Part]:
    """The fields in their order. Raises `Problem` (400)."""
    form = FormStream(boundary)
    parts: list[Part] = []
    name, data, is_file = "", b"", False
    for event in form.feed(body):
        if isinstance(event, Field):
            name, data, is_file = event.name, b"", event.file_name is not None
        elif isinstance(event, bytes):
            data += event
        else:
            parts.append(Part(name, data, is_file))
    form.finish()
    return parts


def new_boundary() -> bytes:
    """One that no part can hold but by chance (128 random bits)."""
    return b"keepless" + secrets.token_hex(16).encode("ascii")


def write_form(boundary: bytes, fields: Iterable[tuple[str, bytes]], file: bytes, *, extension: str) -> bytes:
    """Our own encoding; its content type is `FORM` and the boundary. The file is called `audio`, whatever it was."""
    pieces: list[bytes] = []
    for name, data in fields:
        pieces += [
            b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n' % (boundary, name.encode("ascii")),
            data,
            b"\r\n",
        ]
    pieces += [
        b'--%b\r\ncontent-disposition: form-data; name="file"; filename="audio.%b"\r\n'
        b"content-type: application/octet-stream\r\n\r\n" % (boundary, extension.encode("ascii")),
        file,
        b"\r\n--%b--\r\n" % boundary,
    ]
    return b"".join(pieces)
