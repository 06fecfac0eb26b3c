"""Rate limits: requests a minute and a day, tokens a minute, for an organization and for a project (DECISIONS 23).

Holds: `RateLimits` (`admit` before, `settle` after a request), the counters that all worker processes of one machine
share, Groq's headers and refusals. Leaves out: limits themselves (accounts), a store for several machines (Redis or
Valkey, later): on N machines each counts for itself.

A minute is a bucket that empties evenly, so `retry-after` is exact and there is no burst at the turn of a minute. A day
is the UTC day; its counts are seeded from the usage ledger at start, because they live in memory only. Tokens are
charged by estimate before and by real usage after. The tighter of organization and project counts; a request that one
of them refuses is charged to neither. Where nothing is set, nothing is counted or locked.

The counters are an anonymous memory file (memfd_create(2)): no file on disk, inherited by number (`RateLimits.fd`,
which the supervisor hands to its workers), locked by fcntl(2) record locks, which the kernel releases when a process
dies. A process that serves alone takes no locks.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from typing import Final

from keepless.accounts.principal import Limits, Principal
from keepless.clock import DAY_MS, Clock
from keepless.errors import Code, ErrorType, KeeplessError, Problem
from keepless.ids import Id

__all__ = ["Grant", "RateLimits", "go_duration"]

_SLOT_BYTES: Final = 64
_KEY: Final = struct.Struct("=Q")  # whose slot it is; then, at 8:
_COUNTS: Final = struct.Struct("=dddqq")  # instant, requests and tokens of the minute then, day, requests of the day
_TOKENS: Final = struct.Struct("=d")  # the tokens of a slot alone, from its counts on
_TOKENS_AT: Final = 16
_SLOTS: Final = 65_536
_MINUTE_S: Final = 60.0
_ROUNDING: Final = 1e-6
_REQUESTS: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
)
_TOKENS_LINES: Final = _REQUESTS.replace(b"requests", b"tokens")


class LimitsFullError(KeeplessError):
    """More organizations and projects have limits than there is room to count."""


class _Slot:
    """The counts of one organization or project, brought up to now; made once, used for each request."""

    __slots__ = ("at", "limits", "requests", "today", "tokens")

    def __init__(self, at: int) -> None:
        self.at = at  # where its counts stand
        self.limits = Limits()
        self.requests = 0.0  # of this minute, still in the bucket
        self.tokens = 0.0
        self.today = 0

    def takes(self, tokens: int) -> bool:
        """Whether one more request of so many tokens is within the limits."""
        limits = self.limits
        a_day, a_minute, most = limits.requests_per_day, limits.requests_per_minute, limits.tokens_per_minute
        return (
            (a_day is None or self.today < a_day)
            and (a_minute is None or self.requests + 1 <= a_minute + _ROUNDING)
            and (most is None or self.tokens + tokens <= most + _ROUNDING)
        )


_Tightest = tuple[int, int, int]  # what remains, of how much, milliseconds until all of it is there again


@dataclass(frozen=True, slots=True)
class _Refusal:
    what: str  # Groq's words
    type: ErrorType
    limit: int
    used: int
    requested: int
    wait_s: float


@dataclass(slots=True)
class Grant:
    """An admitted request. `headers` are encoded lines."""

    charged: int
    counted: list[int]  # where the tokens are counted that are limited
    headers: bytes


class RateLimits:
    """The counters. Use from one thread a process: record locks do not keep threads apart.

    `alone`: no other process counts here.
    """

    def __init__(self, clock: Clock, fd: int | None = None, *, alone: bool = False) -> None:
        self._clock: Final = clock
        self._lock: Final[AbstractContextManager[None]] = nullcontext() if alone else self
        self.fd: Final = os.memfd_create("keepless-limits") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SLOTS * _SLOT_BYTES)
        self._memory: Final = mmap.mmap(self.fd, _SLOTS * _SLOT_BYTES)
        self._slots: Final[dict[Id, _Slot]] = {}

    def seed(self, today: Mapping[Id, int]) -> None:
        """Set how many requests organizations and projects made today (from the ledger). Before anything is served."""
        with self._lock:
            now, day = self._clock.monotonic(), self._clock.now_ms() // DAY_MS
            for owner, count in today.items():
                slot = self._read(owner, Limits(), now, day)
                _COUNTS.pack_into(self._memory, slot.at, now, slot.requests, slot.tokens, day, count)

    def admit(self, principal: Principal, model: str, tokens: int) -> Grant | None:
        """Count a request of an estimated number of tokens. None = nothing is limited. Raises `Problem` 429, 413."""
        organization, project = principal.organization, principal.project
        slots: list[_Slot] = []
        with self._lock:
            now, now_ms = self._clock.monotonic(), self._clock.now_ms()
            day = now_ms // DAY_MS
            if not organization.limits.none_set:
                slots.append(self._read(organization.id, organization.limits, now, day))
            if not project.limits.none_set:
                slots.append(self._read(project.id, project.limits, now, day))
            takes = True
            for slot in slots:
                takes = takes and slot.takes(tokens)
            if takes:
                for slot in slots:
                    slot.requests += 1
                    slot.tokens += tokens
                    slot.today += 1
                    _COUNTS.pack_into(self._memory, slot.at, now, slot.requests, slot.tokens, day, slot.today)
        if not slots:
            return None
        lines = _lines(slots, now_ms)
        if not takes:
            refusals = [refusal for slot in slots for refusal in _refusals(slot, tokens, now_ms)]
            worst = max(refusals, key=lambda refusal: refusal.wait_s)
            headers = dict(line.split(": ") for line in lines.decode("ascii").splitlines())
            raise _problem(worst, model, organization.id, headers)
        return Grant(tokens, [slot.at for slot in slots if slot.limits.tokens_per_minute is not None], lines)

    def settle(self, grant: Grant, tokens: int) -> None:
        """Replace the estimate by what a request really used."""
        difference = tokens - grant.charged
        if difference == 0 or not grant.counted:
            return
        with self._lock:
            for at in grant.counted:
                left = _TOKENS.unpack_from(self._memory, at + _TOKENS_AT)[0] + difference
                _TOKENS.pack_into(self._memory, at + _TOKENS_AT, max(0.0, left))

    def __enter__(self) -> None:
        fcntl.lockf(self.fd, fcntl.LOCK_EX, 1)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1)

    # -- counters ------------------------------------------------------------------------------------------------

    def _read(self, owner: Id, limits: Limits, now: float, day: int) -> _Slot:
        slot = self._slots.get(owner)
        if slot is None:
            slot = self._slots[owner] = _Slot(self._place(owner) + _KEY.size)
        then, requests, tokens, counted, today = _COUNTS.unpack_from(self._memory, slot.at)
        minutes = max(0.0, now - then) / _MINUTE_S
        slot.limits = limits
        slot.requests = max(0.0, requests - minutes * (limits.requests_per_minute or requests))
        slot.tokens = max(0.0, tokens - minutes * (limits.tokens_per_minute or tokens))
        slot.today = today if counted == day else 0
        return slot

    def _place(self, owner: Id) -> int:
        """The slot of an owner: where it is, or the first free one after its place (linear probing)."""
        key = int.from_bytes(blake2b(owner.encode("ascii"), digest_size=8).digest(), "little") | 1
        for step in range(_SLOTS):
            offset = (key + step) % _SLOTS * _SLOT_BYTES
            present = _KEY.unpack_from(self._memory, offset)[0]
            if present == key:
                return offset
            if present == 0:
                _KEY.pack_into(self._memory, offset, key)
                return offset
        raise LimitsFullError("no room to count the limits of another organization or project")


def _refusals(slot: _Slot, tokens: int, now_ms: int) -> list[_Refusal]:
    found = []
    limits = slot.limits
    if (day := limits.requests_per_day) is not None and slot.today + 1 > day:
        found.append(_Refusal("requests per day (RPD)", ErrorType.REQUESTS, day, slot.today, 1, _rest_of_day_s(now_ms)))
    if (minute := limits.requests_per_minute) is not None and slot.requests + 1 > minute + _ROUNDING:
        found.append(_over("requests per minute (RPM)", ErrorType.REQUESTS, minute, slot.requests, 1))
    if (minute := limits.tokens_per_minute) is not None and slot.tokens + tokens > minute + _ROUNDING:
        found.append(_over("tokens per minute (TPM)", ErrorType.TOKENS, minute, slot.tokens, tokens))
    return found


def _lines(slots: list[_Slot], now_ms: int) -> bytes:
    """Groq's headers of the tightest: requests are a day's (a minute's where no day is limited), tokens a minute's."""
    requests: _Tightest | None = None
    tokens: _Tightest | None = None
    for slot in slots:
        limits = slot.limits
        if (most := limits.requests_per_day) is not None:
            found = (max(0, most - slot.today), most, DAY_MS - now_ms % DAY_MS)
            requests = found if requests is None or found < requests else requests
        elif (most := limits.requests_per_minute) is not None:
            found = _bucket(most, slot.requests)
            requests = found if requests is None or found < requests else requests
        if (most := limits.tokens_per_minute) is not None:
            found = _bucket(most, slot.tokens)
            tokens = found if tokens is None or found < tokens else tokens
    lines = b""
    if requests is not None:
        lines = _REQUESTS % (requests[1], requests[0], _go(requests[2]))
    if tokens is not None:
        lines += _TOKENS_LINES % (tokens[1], tokens[0], _go(tokens[2]))
    return lines


def _rest_of_day_s(now_ms: int) -> float:
    return (DAY_MS - now_ms % DAY_MS) / 1000


def go_duration(seconds: float) -> str:
    """As Go writes a duration: `1h2m3s`, `1m26.4s`, `310ms`."""
    return _go(ceil(seconds * 1000 - _ROUNDING)).decode("ascii")


@lru_cache(4096)
def _go(milliseconds: int) -> bytes:
    return _text(milliseconds).encode("ascii")


def _text(milliseconds: int) -> str:
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _over(what: str, kind: ErrorType, limit: int, used: float, asked: int) -> _Refusal:
    wait = float("inf") if asked > limit else (used + asked - limit) * _MINUTE_S / limit
    return _Refusal(what, kind, limit, ceil(used - _ROUNDING), asked, wait)


def _bucket(limit: int, used: float) -> _Tightest:
    return max(0, int(limit - used + _ROUNDING)), limit, ceil(used * 60_000 / limit - _ROUNDING) if limit else 0


def _problem(refusal: _Refusal, model: str, organization_id: Id, headers: dict[str, str]) -> Problem:
    place = f"model `{model}` in organization `{organization_id}` service tier `on_demand` on {refusal.what}"
    if refusal.wait_s == float("inf"):
        return Problem(
            413,
            Code.RATE_LIMIT,
            f"Request too large for {place}: Limit {refusal.limit}, Requested {refusal.requested}, please reduce your "
            "message size and try again.",
            type=refusal.type,
            headers=headers,
        )
    return Problem(
        429,
        Code.RATE_LIMIT,
        f"Rate limit reached for {place}: Limit {refusal.limit}, Used {refusal.used}, Requested {refusal.requested}. "
        f"Please try again in {go_duration(refusal.wait_s)}.",
        type=refusal.type,
        headers={**headers, "retry-after": str(max(1, ceil(refusal.wait_s)))},
    )
