"""The search for markers in bytes: in every form, and inside compressed members.

Holds: `Search` (what is looked for) and `Hit`. Leaves out: which bytes (places).

First the forms of what every marker of a run has in common are looked for: a few dozen passes over the bytes at the
speed of memory. Only around the places where one is found is it asked which marker that is. gzip, zlib, deflate in a
zip, bzip2, xz and (where the system has libzstd) zstd members are opened wherever they begin, to the depth of `_DEPTH`.
"""

import bz2
import ctypes
import functools
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from keepless.prover.markers import Marker, Markers, forms

__all__ = ["ZSTD", "Data", "Hit", "Search"]

_DEPTH: Final = 2
_MEMBER_BYTES: Final = 32 * 1024 * 1024  # of one member, opened
_INPUT_BYTES: Final = 64 * 1024 * 1024  # of one member, closed
_ZIP_HEAD: Final = 30
_AROUND: Final = 400  # bytes on either side that hold the rest of a marker in its widest form
_ZSTD_UNKNOWN: Final = 0xFFFF_FFFF_FFFF_FFFE  # this and above: the frame does not say its size, or is none

Data = bytes | bytearray


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """One marker found in one form. `marker` 0: the run's tag stands there, cut off before what names a marker."""

    form: str
    marker: int


class Search:
    """Looks for what is common to all, then for each: `common` texts, and who they may be."""

    def __init__(self, common: Sequence[str], markers: Callable[[], Sequence[Marker]]) -> None:
        self._needles: Final = tuple(
            (name, needle) for text in common for name, needles in forms(text).items() for needle in needles
        )
        self._markers: Final = markers
        self._raw: Final[list[tuple[bytes, Hit]]] = []

    def add(self, form: str, needle: bytes, marker: int) -> None:
        """Look for these bytes too, as they are: they are this marker in this form."""
        self._raw.append((needle, Hit(form, marker)))

    @classmethod
    def of_run(cls, markers: Markers) -> "Search":
        """For the markers of a run, also those minted later."""
        return cls([markers.tag], markers.all)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> "Search":
        """For texts that somebody else chose; numbered from 1 in their order."""
        markers = [Marker(number, text, "") for number, text in enumerate(texts, 1)]
        return cls(texts, lambda: markers)

    def within(self, data: Data) -> set[Hit]:
        """Every marker in `data`, also inside compressed members."""
        return set(self._within(data, "", 0))

    def _within(self, data: Data, inside: str, depth: int) -> Iterator[Hit]:
        for form in {name for name, needle in self._needles if data.find(needle) >= 0}:
            yield from self._named(data, form, inside)
        for needle, hit in tuple(self._raw):
            if data.find(needle) >= 0:
                yield Hit(inside + hit.form, hit.marker)
        if depth < _DEPTH:
            for kind, member in _members(data):
                yield from self._within(member, f"{inside}{kind}, ", depth + 1)

    def _named(self, data: Data, form: str, inside: str) -> list[Hit]:
        around = b"".join(_surroundings(data, [needle for name, needle in self._needles if name == form]))
        hits = [
            Hit(inside + form, marker.number)
            for marker in self._markers()
            if any(needle in around for needle in _forms_of(marker)[form])
        ]
        return hits or [Hit(inside + form, 0)]


@functools.cache
def _forms_of(marker: Marker) -> dict[str, tuple[bytes, ...]]:
    """The forms of a marker and, where it is long enough, of its halves."""
    texts = (marker.text, *marker.halves) if len(marker.text) >= 32 else (marker.text,)
    each = [forms(text) for text in texts]
    return {form: tuple(needle for one in each for needle in one[form]) for form in each[0]}


def _surroundings(data: Data, needles: Sequence[bytes]) -> set[bytes]:
    """What stands around each occurrence, each different one once: what repeats itself is not read again."""
    found = set()
    for needle in needles:
        at = data.find(needle)
        while at >= 0:
            found.add(bytes(data[max(0, at - _AROUND) : at + len(needle) + _AROUND]))
            at = data.find(needle, at + len(needle))
    return found


_BEGINNINGS: Final = re.compile(
    rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|BZh[1-9]1AY&SY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|PK\x03\x04", re.DOTALL
)


def _members(data: Data) -> Iterator[tuple[str, bytes]]:
    """Whatever can be decompressed, from wherever a member may begin."""
    for match in _BEGINNINGS.finditer(data):
        at, magic = match.start(), match.group()
        if magic.startswith(b"\x1f"):
            opened, kind = _inflate(data, at, 31), "gzip"
        elif magic.startswith(b"\x78"):
            opened, kind = _inflate(data, at, 15), "zlib"
        elif magic.startswith(b"BZ"):
            opened, kind = _decompress(bz2.BZ2Decompressor(), data, at), "bzip2"
        elif magic.startswith(b"\xfd"):
            opened, kind = _decompress(lzma.LZMADecompressor(), data, at), "xz"
        elif magic.startswith(b"PK"):
            opened, kind = _zip_member(data, at), "zip"
        else:
            opened, kind = _zstd(data, at), "zstd"
        if opened:
            yield kind, opened


def _inflate(data: Data, at: int, bits: int) -> bytes:
    decompressor, opened = zlib.decompressobj(bits), bytearray()
    try:
        # The first bytes tell most of those that only look like a member.
        while at < len(data) and not decompressor.eof and len(opened) < _MEMBER_BYTES:
            opened += decompressor.decompress(data[at : at + 65536], _MEMBER_BYTES)
            at += 65536
    except zlib.error:
        return bytes(opened)  # what came before the damage counts
    return bytes(opened)


def _decompress(decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: Data, at: int) -> bytes:
    try:
        return decompressor.decompress(data[at : at + _INPUT_BYTES], _MEMBER_BYTES)
    except (OSError, EOFError, lzma.LZMAError):
        return b""


def _zip_member(data: Data, at: int) -> bytes:
    head = data[at : at + _ZIP_HEAD]
    if len(head) < _ZIP_HEAD or head[8:10] != b"\x08\x00":
        return b""  # stored members are searched as they are
    return _inflate(data, at + _ZIP_HEAD + head[26] + 256 * head[27] + head[28] + 256 * head[29], -15)


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    library.ZSTD_isError.restype = ctypes.c_uint
    return library


_LIBZSTD: Final = _library()
ZSTD: Final = _LIBZSTD is not None


def _zstd(data: Data, at: int) -> bytes:
    if _LIBZSTD is None:
        return b""
    frame = bytes(data[at : at + _INPUT_BYTES])
    source = (ctypes.c_char_p(frame), ctypes.c_size_t(len(frame)))
    size = int(_LIBZSTD.ZSTD_getFrameContentSize(*source))
    capacity = _MEMBER_BYTES if size >= _ZSTD_UNKNOWN else min(size, _MEMBER_BYTES)
    whole = int(_LIBZSTD.ZSTD_findFrameCompressedSize(*source))
    if not 0 < whole <= len(frame):
        return b""
    target = ctypes.create_string_buffer(capacity)
    written = _LIBZSTD.ZSTD_decompress(target, ctypes.c_size_t(capacity), source[0], ctypes.c_size_t(whole))
    return b"" if _LIBZSTD.ZSTD_isError(ctypes.c_size_t(written)) else target.raw[:written]
