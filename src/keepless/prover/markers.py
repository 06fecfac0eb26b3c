"""Markers: random words that exist nowhere else in the world, and every form in which a store may hold one.

Holds: `Marker` and `Markers` (minted in memory, reported by number), `forms` (how bytes look in base64, hex and so on),
`spoken` (words that a voice can say and a transcript will hold; those cannot be random letters).
Leaves out: where they are sent (cases) and looked for (search).

A marker is 40 letters and digits: twice a tag of the run and eight random ones. Half a marker is enough to be found, so
one that is cut in two (by the pages of a database, the frames of a WAL, the pieces of a stream) is found as well.
"""

import base64
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Marker", "Markers", "forms", "spoken"]

_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
# Long, unlike each other, heard right from a synthetic voice, and in no text of ours.
_SPOKEN: Final = (
    "crocodile", "umbrella", "pineapple", "telescope", "volcano", "penguin", "harmonica", "dinosaur", "watermelon",
    "kangaroo", "strawberry", "butterfly", "submarine", "chocolate", "helicopter", "mushroom",
)  # fmt: skip
_TAG: Final = 12  # letters: 60 bits
_OWN: Final = 8


@dataclass(frozen=True, slots=True, repr=False)
class Marker:
    """One marker: its number is for reports, its text for requests only. `part`: where in a request it was put."""

    number: int
    text: str
    part: str
    case: str = ""
    setting: str = ""

    def __repr__(self) -> str:
        return f"<marker {self.number}>"

    @property
    def halves(self) -> tuple[str, str]:
        """Either is enough to recognise it."""
        middle = len(self.text) // 2
        return self.text[:middle], self.text[middle:]


class Markers:
    """The markers of one run. `tag` stands in each half of each of them."""

    def __init__(self) -> None:
        self.tag: Final = _random(_TAG)
        self._minted: Final[list[Marker]] = []
        self._lock: Final = threading.Lock()

    def mint(self, part: str, case: str = "", setting: str = "") -> Marker:
        """A new marker for one part of one request; in any thread."""
        text = "".join(self.tag + _random(_OWN) for _ in range(2))
        with self._lock:
            marker = Marker(len(self._minted) + 1, text, part, case, setting)
            self._minted.append(marker)
        return marker

    def all(self) -> list[Marker]:
        """Every marker minted so far."""
        return list(self._minted)

    def __len__(self) -> int:
        return len(self._minted)


def spoken(count: int) -> list[str]:
    """Different words of the list, chosen and ordered at random."""
    return secrets.SystemRandom().sample(_SPOKEN, count)


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def forms(text: str) -> dict[str, tuple[bytes, ...]]:
    """Every form of a text: name -> byte strings of which one stands wherever the text does in that form."""
    plain = text.encode()
    hexadecimal = [f"{byte:02x}" for byte in plain]
    found = {
        "plain": {plain, plain.upper()},
        "base64": _aligned(plain, 3, 4, base64.b64encode) | _aligned(plain, 3, 4, base64.urlsafe_b64encode),
        "base32": {each for found in _aligned(plain, 5, 8, base64.b32encode) for each in (found, found.lower())},
        "hex": {both for step in ("", " ", ":") for both in _cases(step.join(hexadecimal))},
        "utf-16": {text.encode("utf-16-le"), text.encode("utf-16-be")},
        "url-encoded": _cases("%" + "%".join(hexadecimal)),
        "json-escaped": {b"".join(b"\\u00" + digits for digits in each) for each in _digits(hexadecimal)},
        "quoted-printable": _cases("=" + "=".join(hexadecimal)),
        "escaped": {b"".join(b"\\x" + digits for digits in each) for each in _digits(hexadecimal)},
        "reversed": {plain[::-1]},
    }
    return {name: tuple(sorted(values)) for name, values in found.items()}


def _cases(text: str) -> set[bytes]:
    return {text.encode(), text.upper().encode()}


def _digits(hexadecimal: list[str]) -> tuple[list[bytes], list[bytes]]:
    return [digits.encode() for digits in hexadecimal], [digits.upper().encode() for digits in hexadecimal]


def _aligned(plain: bytes, of: int, makes: int, encode: Callable[[bytes], bytes]) -> set[bytes]:
    """The text encoded at each alignment, without the letters that its neighbours have a share in."""
    found = set()
    for before in range(of):
        encoded = encode(b"\0" * before + plain + b"\0" * of)
        first = -(-before * makes // of)
        last = (before + len(plain)) * makes // of
        found.add(encoded[first:last])
    return found
