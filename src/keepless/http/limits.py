"""Rate limits: requests a minute and a day, tokens a minute, for an organization, a project and a model of it
(DECISIONS 23).

Holds: `RateLimits` (`admit` before, `settle` after a request), the counters that all worker processes of one machine
share, Groq's headers and refusals. Leaves out: limits themselves (accounts), a store for several machines (Redis or
Valkey, later): on N machines each counts for itself.

A minute is a bucket that empties evenly, so `retry-after` is exact and there is no burst at the turn of a minute. A day
is the UTC day; its counts are seeded from the usage ledger at start, because they live in memory only. Tokens are
charged by estimate before and by real usage after. The tightest of the three counts; a request that one of them
refuses is charged to none. Where nothing is set, nothing is counted or locked.

The counters are an anonymous memory file (memfd_create(2)): no file on disk, inherited by number (`RateLimits.fd`,
which the supervisor hands to its workers), locked by fcntl(2) record locks, which the kernel releases when a process
dies. A process that serves alone takes no locks.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
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
_NO_LIMITS: Final = Limits()
_ROUNDING: Final = 1e-6
_REQUESTS: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
)
_TOKENS_LINES: Final = _REQUESTS.replace(b"requests", b"tokens")
_BOTH: Final = _REQUESTS + _TOKENS_LINES
_MOST_TEXTS: Final = 4096


class LimitsFullError(KeeplessError):
    """More organizations and projects have limits than there is room to count."""


class _Slot:
    """The counts of one organization or project, brought up to now; made once, used for each request."""

    __slots__ = ("at", "day", "limits", "requests", "then", "today", "tokens")

    def __init__(self, at: int) -> None:
        self.at: Final = at  # where its counts stand
        self.limits = _NO_LIMITS
        self.then = 0.0  # when the counts of the minute were right, seconds of the monotonic clock
        self.requests = 0.0  # of this minute, still in the bucket
        self.tokens = 0.0
        self.day = 0
        self.today = 0

    def read(self, memory: mmap.mmap) -> None:
        """Take the counts from where all processes see them."""
        self.then, self.requests, self.tokens, self.day, self.today = _COUNTS.unpack_from(memory, self.at)

    def write(self, memory: mmap.mmap) -> None:
        """Put the counts where all processes see them."""
        _COUNTS.pack_into(memory, self.at, self.then, self.requests, self.tokens, self.day, self.today)

    def bring(self, now: float, day: int) -> None:
        """Let what has passed since the last request run out."""
        minutes = max(0.0, now - self.then) / _MINUTE_S
        a_minute, most = self.limits.requests_per_minute, self.limits.tokens_per_minute
        self.requests = max(0.0, self.requests - minutes * (a_minute or self.requests))
        self.tokens = max(0.0, self.tokens - minutes * (most or self.tokens))
        if self.day != day:
            self.day, self.today = day, 0
        self.then = now

    def obey(self, limits: Limits) -> bool:
        """Count under `limits` from now on; whether that changed the counts.

        What was used under looser limits fills tighter ones at most, so that nobody waits longer than a minute of
        theirs for having kept to those that were in force.
        """
        if limits == self.limits:
            self.limits = limits
            return False
        a_minute, most = limits.requests_per_minute, limits.tokens_per_minute
        requests = self.requests if a_minute is None else min(self.requests, float(a_minute))
        tokens = self.tokens if most is None else min(self.tokens, float(most))
        changed = requests != self.requests or tokens != self.tokens
        self.limits, self.requests, self.tokens = limits, requests, tokens
        return changed

    def takes(self, tokens: int) -> bool:
        """Whether one more request of so many tokens is within the limits."""
        limits = self.limits
        a_day, a_minute, most = limits.requests_per_day, limits.requests_per_minute, limits.tokens_per_minute
        return (
            (a_day is None or self.today < a_day)
            and (a_minute is None or self.requests + 1 <= a_minute + _ROUNDING)
            and (most is None or self.tokens + tokens <= most + _ROUNDING)
        )

    def count(self, tokens: int) -> None:
        """One more request."""
        self.requests += 1
        self.tokens += tokens
        self.today += 1


@dataclass(frozen=True, slots=True)
class _Refusal:
    what: str  # Groq's words
    type: ErrorType
    limit: int
    used: int
    requested: int
    wait_s: float


class Grant:
    """An admitted request. `counted`: where its tokens are that are limited; `headers` are encoded lines."""

    __slots__ = ("charged", "counted", "headers")

    def __init__(self, charged: int, counted: list[_Slot], headers: bytes) -> None:
        self.charged: Final = charged
        self.counted: Final = counted
        self.headers: Final = headers


class RateLimits:
    """The counters. Use from one thread a process: record locks do not keep threads apart.

    `alone`: no other process counts here; then the shared memory is only read, for what was counted before.
    """

    def __init__(self, clock: Clock, fd: int | None = None, *, alone: bool = False) -> None:
        self._clock: Final = clock
        self._shared: Final = not alone
        self.fd: Final = os.memfd_create("keepless-limits") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SLOTS * _SLOT_BYTES)
        self._memory: Final = mmap.mmap(self.fd, _SLOTS * _SLOT_BYTES)
        self._slots: Final[dict[Id, _Slot]] = {}

    def seed(self, today: Mapping[Id, int]) -> None:
        """Set how many requests organizations and projects made today (from the ledger). Before anything is served."""
        now, day = self._clock.monotonic(), self._clock.now_ms() // DAY_MS
        with self:
            for owner, count in today.items():
                slot = self._slot(owner, _NO_LIMITS)
                slot.bring(now, day)
                slot.today = count
                slot.write(self._memory)

    def admit(self, principal: Principal, model: str, tokens: int) -> Grant | None:
        """Count a request of an estimated number of tokens. None = nothing is limited. Raises `Problem` 429, 413."""
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        if self._shared:
            with self:
                slots, takes = self._count(principal, model, tokens, now, now_ms // DAY_MS)
        else:
            slots, takes = self._count(principal, model, tokens, now, now_ms // DAY_MS)
        if not slots:
            return None
        lines = _lines(slots, now_ms)
        if not takes:
            refusals = [refusal for slot in slots for refusal in _refusals(slot, tokens, now_ms)]
            worst = max(refusals, key=lambda refusal: refusal.wait_s)
            headers = dict(line.split(": ") for line in lines.decode("ascii").splitlines())
            raise _problem(worst, model, principal.organization.id, headers)
        return Grant(tokens, [slot for slot in slots if slot.limits.tokens_per_minute is not None], lines)

    def settle(self, grant: Grant, tokens: int) -> None:
        """Replace the estimate by what a request really used."""
        difference = tokens - grant.charged
        if difference == 0 or not grant.counted:
            return
        if not self._shared:
            for slot in grant.counted:
                slot.tokens = max(0.0, slot.tokens + difference)
            return
        with self:
            for slot in grant.counted:
                left = _TOKENS.unpack_from(self._memory, slot.at + _TOKENS_AT)[0] + difference
                _TOKENS.pack_into(self._memory, slot.at + _TOKENS_AT, max(0.0, left))

    def __enter__(self) -> None:
        if self._shared:
            fcntl.lockf(self.fd, fcntl.LOCK_EX, 1)

    def __exit__(self, *_: object) -> None:
        if self._shared:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, 1)

    # -- counters ------------------------------------------------------------------------------------------------

    def _count(self, principal: Principal, model: str, tokens: int, now: float, day: int) -> tuple[list[_Slot], bool]:
        """The counts of whoever is limited, and whether one more request is within them: then it is in them."""
        organization, project = principal.organization, principal.project
        slots: list[_Slot] = []
        if not organization.limits.none_set:
            slots.append(self._slot(organization.id, organization.limits))
        if not project.limits.none_set:
            slots.append(self._slot(project.id, project.limits))
        if project.model_limits is not None and (own := project.model_limits.get(model)) is not None:
            slots.append(self._slot(Id(f"{project.id}/{model}"), own))
        takes = True
        for slot in slots:
            slot.bring(now, day)
            takes = slot.takes(tokens) and takes
        if takes:
            for slot in slots:
                slot.count(tokens)
                if self._shared:
                    slot.write(self._memory)
        return slots, takes

    def _slot(self, owner: Id, limits: Limits) -> _Slot:
        """The counts of an owner as they are: read again where others count too."""
        slot = self._slots.get(owner)
        if slot is None:
            slot = self._slots[owner] = _Slot(self._place(owner) + _KEY.size)
            slot.read(self._memory)
        elif self._shared:
            slot.read(self._memory)
        if slot.limits is not limits and slot.obey(limits) and self._shared:
            slot.write(self._memory)
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
    left = most = wait = tokens_left = tokens_most = tokens_wait = -1  # -1: none is limited yet
    for slot in slots:
        limits = slot.limits
        a_day, a_minute, tokens = limits.requests_per_day, limits.requests_per_minute, limits.tokens_per_minute
        if a_day is not None:
            remaining = max(0, a_day - slot.today)
            if left < 0 or remaining < left or (remaining == left and a_day < most):
                left, most, wait = remaining, a_day, DAY_MS - now_ms % DAY_MS
        elif a_minute is not None:
            remaining = _remaining(a_minute, slot.requests)
            if left < 0 or remaining < left or (remaining == left and a_minute < most):
                left, most, wait = remaining, a_minute, _empty_ms(a_minute, slot.requests)
        if tokens is not None:
            remaining = _remaining(tokens, slot.tokens)
            if tokens_left < 0 or remaining < tokens_left or (remaining == tokens_left and tokens < tokens_most):
                tokens_left, tokens_most, tokens_wait = remaining, tokens, _empty_ms(tokens, slot.tokens)
    if left < 0:
        return b"" if tokens_left < 0 else _TOKENS_LINES % (tokens_most, tokens_left, _go(tokens_wait))
    if tokens_left < 0:
        return _REQUESTS % (most, left, _go(wait))
    return _BOTH % (most, left, _go(wait), tokens_most, tokens_left, _go(tokens_wait))


def _rest_of_day_s(now_ms: int) -> float:
    return (DAY_MS - now_ms % DAY_MS) / 1000


def go_duration(seconds: float) -> str:
    """As Go writes a duration: `1h2m3s`, `1m26.4s`, `310ms`."""
    return _go(ceil(seconds * 1000 - _ROUNDING)).decode("ascii")


_texts: Final[dict[int, bytes]] = {}


def _go(milliseconds: int) -> bytes:
    found = _texts.get(milliseconds)
    if found is None:
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        found = _texts[milliseconds] = _text(milliseconds).encode("ascii")
    return found


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


def _remaining(limit: int, used: float) -> int:
    return max(0, int(limit - used + _ROUNDING))


def _empty_ms(limit: int, used: float) -> int:
    """Milliseconds until all of a minute's limit is there again."""
    return ceil(used * 60_000 / limit - _ROUNDING) if limit else 0


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
