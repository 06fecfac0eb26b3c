"""How the answers of a model are to be had now, in one closed word: what `/readyz`, `/metrics` and `/models` say.

Holds: `Reach` (of upstreams), `condition_of`, `is_well`. Leaves out: who learns it (app.health, gateway.models),
embedded engines' own words (embedded.pulse).

Of an embedded engine its supervisor says how it is, not the last request: an engine that was started again is well
before anybody has asked it.
"""

from enum import StrEnum
from typing import Final

from keepless.inference.embedded.pulse import State
from keepless.inference.router import Route

__all__ = ["Reach", "condition_of", "is_well"]


class Reach(StrEnum):
    """Of the upstreams of a model, the best."""

    UP = "up"
    AVOIDED = "avoided"  # its circuit is open: asked when there is no other
    DOWN = "down"


_WELL: Final = frozenset({Reach.UP, Reach.AVOIDED, State.RUNNING, State.STARTING, State.RESTING})


def condition_of(route: Route) -> State | Reach:
    """The word for a model now."""
    if route.embedded:
        return _engine(route)
    if any(target.healthy for target in route.targets):
        return Reach.UP
    return Reach.AVOIDED if any(target.reachable for target in route.targets) else Reach.DOWN


def is_well(condition: State | Reach) -> bool:
    """Whether a request can be answered, if need be after a start."""
    return condition in _WELL


def _engine(route: Route) -> State:
    if route.pulse is not None:
        return route.pulse.state
    return State.RUNNING if any(target.backend.healthy for target in route.targets) else State.MISSING
