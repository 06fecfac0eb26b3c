"""Signals of rate-limit circumvention, from metadata alone: which key met a 429 when, and which key was used after it.

Holds: `Detector`, in memory, for one process, and `Suspicion`, what it finds. Leaves out: opening a case (cases),
finding origins (origin), the limits themselves. Nothing here sees a request's content, and nothing is kept longer
than an hour.

Signals (thresholds are constants below):
- many keys: within the window one origin met refusals with several keys of one organization;
- many organizations: within the window one origin met refusals with keys of several organizations; each of them gets
  its own suspicion, which names its own keys only;
- key rotation: right after a refusal of one key, another key of the organization comes into use that had rested for an
  hour, several times in a row. It needs no origin.

Called on the event loop's thread; each call is a few dictionary look-ups, and none at all for an organization that
never met a limit. Memory is bounded: past `_MOST` things of a kind the older half is forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from keepless.clock import Clock
from keepless.ids import Id
from keepless.incidents.states import Signal

__all__ = ["Detector", "Suspicion"]

WINDOW_S: Final = 600.0
REFUSALS: Final = 10
KEYS: Final = 3
ORGANIZATIONS: Final = 2
ROTATIONS: Final = 3
ROTATION_S: Final = 60.0
REST_S: Final = 3600.0
QUIET_S: Final = 600.0  # the same suspicion is not reported again so soon, unless it names a new key
_MOST: Final = 10_000

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What was found about one organization: metadata only."""

    organization_id: Id
    signal: Signal
    key_ids: frozenset[Id]
    refusals: int


@dataclass(slots=True)
class _Origin:
    """What one origin met within the window that began at `since` (monotonic seconds)."""

    since: float
    refusals: int = 0
    keys: dict[Id, set[Id]] = field(default_factory=dict)  # organization -> its keys that were refused


@dataclass(slots=True)
class _Chain:
    """The keys of one organization that followed each other through refusals."""

    at: float  # of the last refusal
    since: float
    refusals: int
    keys: list[Id]


class Detector:
    """Watches refusals and uses of keys. `report` is called with each suspicion, on the caller's thread."""

    def __init__(self, clock: Clock, report: Callable[[Suspicion], None]) -> None:
        self._clock: Final = clock
        self._report: Final = report
        self._origins: dict[bytes, _Origin] = {}
        self._chains: dict[Id, _Chain] = {}
        self._used: dict[Id, float] = {}
        self._reported: dict[tuple[Id, Signal], tuple[float, frozenset[Id]]] = {}

    def refused(self, organization_id: Id, key_id: Id, origin: bytes | None) -> None:
        """A request of this key was answered 429."""
        now = self._clock.monotonic()
        self._note_chain(organization_id, key_id, now)
        self._used[key_id] = now
        if origin is not None:
            seen = self._origins.get(origin)
            if seen is None or now - seen.since > WINDOW_S:
                _bound(self._origins)
                seen = self._origins[origin] = _Origin(now)
            seen.refusals += 1
            seen.keys.setdefault(organization_id, set()).add(key_id)
            self._judge(seen, organization_id, now)

    def admitted(self, organization_id: Id, key_id: Id) -> None:
        """A request of this key was admitted."""
        chain = self._chains.get(organization_id)
        if chain is None:
            return
        now = self._clock.monotonic()
        rested = now - self._used.get(key_id, -REST_S) >= REST_S
        self._used[key_id] = now
        if now - chain.at > REST_S:
            del self._chains[organization_id]
        elif key_id not in chain.keys and rested and now - chain.at <= ROTATION_S:
            chain.keys.append(key_id)
            if len(chain.keys) > ROTATIONS:
                self._suspect(organization_id, Signal.KEY_ROTATION, frozenset(chain.keys), chain.refusals, now)

    def forget(self) -> None:
        """Forget what is older than an hour; to be called every few minutes."""
        now = self._clock.monotonic()
        self._origins = _young(self._origins, lambda seen: now - seen.since <= WINDOW_S)
        self._chains = _young(self._chains, lambda chain: now - chain.at <= REST_S)
        self._used = _young(self._used, lambda at: now - at < REST_S)
        self._reported = _young(self._reported, lambda told: now - told[0] <= QUIET_S)

    def _note_chain(self, organization_id: Id, key_id: Id, now: float) -> None:
        chain = self._chains.get(organization_id)
        if chain is None or now - chain.since > REST_S:
            _bound(self._chains)
            _bound(self._used)
            self._chains[organization_id] = _Chain(now, now, 1, [key_id])
            return
        chain.at = now
        chain.refusals += 1

    def _judge(self, seen: _Origin, organization_id: Id, now: float) -> None:
        if seen.refusals < REFUSALS:
            return
        if len(seen.keys[organization_id]) >= KEYS:
            keys = frozenset(seen.keys[organization_id])
            self._suspect(organization_id, Signal.MANY_KEYS, keys, seen.refusals, now)
        if len(seen.keys) >= ORGANIZATIONS:
            for each, keys_of in seen.keys.items():
                self._suspect(each, Signal.MANY_ORGANIZATIONS, frozenset(keys_of), seen.refusals, now)

    def _suspect(self, organization_id: Id, signal: Signal, keys: frozenset[Id], refusals: int, now: float) -> None:
        told_at, told_keys = self._reported.get((organization_id, signal), (-QUIET_S, frozenset()))
        if now - told_at < QUIET_S and keys <= told_keys:
            return
        _bound(self._reported)
        self._reported[organization_id, signal] = (now, keys)
        self._report(Suspicion(organization_id, signal, keys, refusals))


def _young(things: dict[K, V], keep: Callable[[V], bool]) -> dict[K, V]:
    return {name: thing for name, thing in things.items() if keep(thing)}


def _bound(things: dict[K, V]) -> None:
    if len(things) >= _MOST:
        for name in list(things)[: _MOST // 2]:
            del things[name]
