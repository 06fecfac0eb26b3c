"""Identifiers that Keepless mints: random, prefixed, never derived from content (DECISIONS 20).

Holds: `Prefix`, the closed list of kinds; `Id`, a `str` that was minted or parsed here (the log accepts only this
kind of text); `mint` and `parse`. An id carries 120 random bits in 24 base-32 letters; a request's id, of which
every request makes one and the ledger keeps an index, is the millisecond and 48 random bits, so that the index
grows at its end.
"""

import os
import re
import time
from enum import StrEnum
from functools import lru_cache
from typing import Final

__all__ = ["ID_LENGTH", "Id", "Prefix", "mint", "parse", "requested_at", "trusted"]

ID_LENGTH: Final = 40  # the longest id fits; database columns use it
_AT_ONCE: Final = 256  # random halves of request ids made with one call of the system
_IN_ORDER: Final = bytes.maketrans(b"0123456789abcdef", b"234567abcdefghij")  # sorts as the hexadecimal digits do
_BACK: Final = bytes.maketrans(b"234567abcdefghij" + b"klmnopqrstuvwxyz", b"0123456789abcdef" + b"g" * 16)
_LETTERS: Final = 24
# Of a random byte five bits make a letter: each of the 32 stands for eight bytes.
_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz234567" * 8
_SHAPE: Final = re.compile(r"([a-z]{2,7}[_-])([a-z2-7]{24})\Z")


class Prefix(StrEnum):
    """What an id names. The separator belongs to the prefix: OpenAI's files use a hyphen."""

    ORGANIZATION = "org_"
    PROJECT = "proj_"
    API_KEY = "key_"
    ADMIN_KEY = "akey_"
    OPERATOR_KEY = "okey_"
    MEMBER = "user_"
    INVITE = "invite_"
    FILE = "file-"
    UPLOAD = "upload_"
    UPLOAD_PART = "part_"
    BATCH = "batch_"
    TUNED_MODEL = "ft_"  # Groq's name of a fine-tuning: the letters are those of its job
    TUNING_JOB = "ftjob-"
    TUNING_EVENT = "ftevent-"
    CHECKPOINT = "ftckpt_"
    OBJECT = "obj_"
    HOLD = "hold_"
    CASE = "case_"
    RECEIPT = "rcpt_"
    REQUEST = "req_"
    PURGE = "purge_"
    EXPORT = "export_"
    OPENING = "open_"  # a request to see the content of what is kept
    KEK = "kek_"
    PROCESS = "proc_"
    BLOB = "blob_"
    JOURNAL = "jrnl_"  # a blob that grows
    WEBHOOK = "hook_"
    EVENT = "evt_"
    RESPONSE = "resp_"
    MESSAGE = "msg_"
    FUNCTION_CALL = "fc_"
    REASONING = "rs_"


class Id(str):
    """An identifier minted by Keepless (in this process or read back from its own tables)."""

    __slots__ = ()


_REQUEST: Final = Prefix.REQUEST
_halves: Final[list[str]] = []  # random, each used once
os.register_at_fork(after_in_child=_halves.clear)


def mint(prefix: Prefix) -> Id:
    """A new random id of the given kind."""
    if prefix is _REQUEST:
        try:
            half = _halves.pop()
        except IndexError:
            half = _more_halves()
        return Id(_beginning(time.time_ns() // 1_000_000) + half)
    return Id(prefix + os.urandom(_LETTERS).translate(_ALPHABET).decode("ascii"))


@lru_cache(1)
def _beginning(at_ms: int) -> str:
    return "req_" + (b"%012x" % at_ms).translate(_IN_ORDER).decode()


def _more_halves() -> str:
    letters = os.urandom(6 * _AT_ONCE).hex().encode().translate(_IN_ORDER).decode()
    _halves.extend(letters[at : at + 12] for at in range(12, 12 * _AT_ONCE, 12))
    return letters[:12]


def requested_at(request_id: Id) -> int | None:
    """When a request's id was minted, Unix ms; None when it was not minted here."""
    letters = request_id.removeprefix(_REQUEST)[:12].encode("ascii")
    try:
        return int(letters.translate(_BACK), 16)
    except ValueError:
        return None


def parse(text: str, prefix: Prefix) -> Id | None:
    """`text` as an id of the given kind, or None when it cannot be one (never raises, never echoes)."""
    match = _SHAPE.match(text)
    return Id(text) if match is not None and match[1] == prefix.value else None


def trusted(text: str) -> Id:
    """An id read back from our own tables or made by the operator's configuration."""
    return Id(text)
