"""A GGUF file's header: what it says of its model, and where its tensors lie (ggml's public specification, version 3).

Holds: `Gguf`, `Tensor`, `open_gguf`, `vocabulary_of`. Leaves out: the numbers in the tensors (who trains reads them),
writing (adapter).
Everything is read with bounds: what points outside of the file, or is of no known type, is a `GgufError`.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from struct import Struct, error
from typing import Any, Final

from keepless.errors import KeeplessError

__all__ = ["Gguf", "GgufError", "Tensor", "open_gguf", "vocabulary_of"]

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = frozenset({2, 3})
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_SCALARS: Final = {
    number: Struct(f"<{form}")
    for number, form in ((0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i"), (6, "f"), (7, "?"))
} | {10: Struct("<Q"), 11: Struct("<q"), 12: Struct("<d")}
_STRING: Final = 8
_ARRAY: Final = 9
_MOST_DIMENSIONS: Final = 4
_WORDS: Final = "tokenizer.ggml.tokens"
_KINDS: Final = "tokenizer.ggml.token_type"
_TEMPLATE: Final = "tokenizer.chat_template"
_NORMAL: Final = 1
_MARKED: Final = frozenset(b"<_[")  # how a name that is no text may begin, though the file calls it text


class GgufError(KeeplessError):
    """Not a GGUF file, or none that can be read here."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies. `shape` as in numpy: the last dimension runs fastest."""

    shape: tuple[int, ...]
    type: int  # ggml's number
    offset: int  # in the file


@dataclass(frozen=True, slots=True)
class Gguf:
    """A file that stays mapped as long as this lives."""

    data: mmap.mmap
    fields: dict[str, Any]
    tensors: dict[str, Tensor]


def open_gguf(path: str) -> Gguf:
    """Map a file and read its header. Raises `OSError`, `GgufError`."""
    data = _mapped(path)
    try:
        return _Reader(data).all()
    except (GgufError, error, UnicodeDecodeError, OverflowError, ValueError):
        data.close()
        raise GgufError from None


def vocabulary_of(path: str) -> tuple[list[tuple[str, int]], str]:
    """Tokens with their kinds, but for those that are plainly text, and the chat template ("": none).

    Every worker asks this: nothing else of the header becomes an object. Raises `OSError`, `GgufError`.
    """
    with _mapped(path) as data:
        try:
            return _Reader(data).vocabulary()
        except (error, UnicodeDecodeError, OverflowError, ValueError, TypeError):
            raise GgufError from None


def _mapped(path: str) -> mmap.mmap:
    with Path(path).open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # empty
            raise GgufError from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data: Final = data
        self._at = 0

    def all(self) -> Gguf:
        if self._take(4) != _MAGIC or self._number(_U32) not in _VERSIONS:
            raise GgufError
        tensors, fields = self._number(_U64), self._number(_U64)
        found = {}
        for _ in range(fields):
            name = self._string()
            found[name] = self._value(self._number(_U32))
        heads = [self._tensor() for _ in range(tensors)]
        alignment = found.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0:
            raise GgufError
        start = -(-self._at // alignment) * alignment
        if any(start + tensor.offset > len(self._data) for _, tensor in heads):
            raise GgufError
        placed = {name: Tensor(tensor.shape, tensor.type, start + tensor.offset) for name, tensor in heads}
        return Gguf(self._data, found, placed)

    def vocabulary(self) -> tuple[list[tuple[str, int]], str]:
        if self._take(4) != _MAGIC or self._number(_U32) not in _VERSIONS:
            raise GgufError
        self._number(_U64)
        words, kinds, template = 0, b"", ""
        for _ in range(self._number(_U64)):
            name, kind = self._string(), self._number(_U32)
            start = self._at
            if name == _TEMPLATE:
                template = self._value(kind)
                continue
            self._skip(kind)
            if name == _WORDS:
                words = start
            elif name == _KINDS:
                kinds = self._data[start + _U32.size + _U64.size : self._at]
        if not words or type(template) is not str:
            raise GgufError
        return self._named(words, memoryview(kinds).cast("i")), template

    def _named(self, start: int, kinds: memoryview) -> list[tuple[str, int]]:
        self._at = start
        inner, count = self._number(_U32), self._number(_U64)
        if inner != _STRING or (kinds and len(kinds) != count):
            raise GgufError
        found = []
        for index in range(count):
            length = self._number(_U64)
            kind = kinds[index] if kinds else _NORMAL
            if kind != _NORMAL or (length and self._data[self._at] in _MARKED):
                found.append((self._take(length).decode("utf-8", "replace"), kind))
            else:
                self._move(length)
        return found

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._move(self._number(_U64))
        elif kind == _ARRAY:
            inner, count = self._number(_U32), self._number(_U64)
            if inner in _SCALARS:
                self._move(count * _SCALARS[inner].size)
                return
            if count > len(self._data) or inner != _STRING:
                raise GgufError
            for _ in range(count):
                self._move(self._number(_U64))
        elif kind in _SCALARS:
            self._move(_SCALARS[kind].size)
        else:
            raise GgufError

    def _move(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise GgufError

    def _tensor(self) -> tuple[str, Tensor]:
        name = self._string()
        dimensions = self._number(_U32)
        if dimensions > _MOST_DIMENSIONS:
            raise GgufError
        shape = tuple(self._number(_U64) for _ in range(dimensions))[::-1]
        return name, Tensor(shape, self._number(_U32), self._number(_U64))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            inner, count = self._number(_U32), self._number(_U64)
            if count > len(self._data) or inner == _ARRAY:
                raise GgufError
            return [self._value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise GgufError
        return self._number(_SCALARS[kind])

    def _string(self) -> str:
        return self._take(self._number(_U64)).decode()

    def _number(self, form: Struct) -> Any:
        found = form.unpack_from(self._data, self._at)[0]
        self._at += form.size
        return found

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise GgufError
        taken = self._data[self._at : end]
        self._at = end
        return taken
