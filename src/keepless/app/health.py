"""What `/readyz` and `/metrics` say of a running process: gathered from the rooms, in closed words and numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from keepless.accounts.lease import Lease
from keepless.admin.health import Check, Metric, MetricKind
from keepless.app.compose import Deployment, is_day_key_missing
from keepless.app.guard import is_behind
from keepless.errors import ConfigError, KeeplessError
from keepless.gateway.server import Server
from keepless.inference.condition import Reach, condition_of, is_well
from keepless.inference.embedded.pulse import State
from keepless.inference.router import Route, Router
from keepless.inference.target import Target
from keepless.pipeline import Way
from keepless.receipts.checkpoint import LogForkError
from keepless.usage.ledger import Ledger
from keepless.vault.states import KekState

__all__ = ["checks_of", "engines_of", "metrics_of", "models_of"]

_WHY: Final[Mapping[State | Reach, str]] = {
    Reach.DOWN: "its upstreams do not answer",
    State.CRASHED: "its engine crashed; it is started again, with the next request at the latest",
    State.MISSING: "its engine is not installed on this machine",
}


def checks_of(deployment: Deployment, ledger: Ledger, router: Router) -> Callable[[], Sequence[Check]]:
    """The checks of `/readyz` beyond those that the admin room makes itself (database, lease, location)."""

    def checks() -> list[Check]:
        return [
            Check(
                "sweep",
                not deployment.sweeper.paused,
                "the clock jumped; confirm with `keepless sweep --once`" if deployment.sweeper.paused else "",
            ),
            _time(deployment),
            Check("ledger", ledger.healthy, "" if ledger.healthy else "usage rows cannot be written"),
            _log(deployment),
            *_keyring(deployment),
            *models_of(list(router.routes())),
        ]

    return checks


def models_of(routes: Sequence[Route]) -> Iterator[Check]:
    """Whether any model can be asked, and each of them."""
    some = any(is_well(condition_of(route)) for route in routes)
    yield Check("models", some, "" if some else "no model can be asked")
    for route in routes:
        yield from _model(route)


def _model(route: Route) -> Iterator[Check]:
    """A model is there when one of its upstreams can be asked; each of several is told as well.

    An engine of ours that crashed is started again, and one that is not installed never is: neither is a reason to take
    the requests of all other models away from this deployment.
    """
    condition = condition_of(route)
    well = is_well(condition)
    yield Check(f"model {route.model.id}", well, "" if well else _WHY[condition], vital=not route.embedded)
    for target in route.targets if route.only is None else ():
        why = "" if target.healthy else "its circuit is open" if target.reachable else "it does not answer"
        yield Check(f"model {route.model.id} upstream {target.index}", target.healthy, why, vital=False)


def _time(deployment: Deployment) -> Check:
    behind = is_behind(deployment.wall, deployment.clock)
    return Check("clock", not behind, "this machine's clock is behind the latest time seen" if behind else "")


def _log(deployment: Deployment) -> Check:
    try:
        deployment.log.checkpoint()
    except LogForkError:
        return Check("transparency log", ok=False, why="the database does not continue what was signed before")
    except (KeeplessError, sa.exc.SQLAlchemyError):
        return Check("transparency log", ok=False, why="the database or the keyring fails")
    return Check("transparency log", ok=True)


def _keyring(deployment: Deployment) -> Iterator[Check]:
    why = lost = ""
    try:
        why = deployment.keyring.fault()
        if not why and is_day_key_missing(deployment, KekState.ACTIVE):
            why = "keyring: a key is missing; restore the keyring of this data folder"
        elif is_day_key_missing(deployment, KekState.RETIRING):
            lost = "a key is lost: what it wraps cannot be read; restore the keyring of this data folder"
    except (ConfigError, sa.exc.SQLAlchemyError):
        why = "the database or the keyring cannot be read"
    yield Check("keyring", not why, why)
    yield Check("keys of what is kept", not lost, lost, vital=False)


def metrics_of(server: Server, way: Way, ledger: Ledger, lease: Lease, router: Router) -> Sequence[Metric]:
    """The numbers of `/metrics`, of this process."""
    gauge, counter, counters = MetricKind.GAUGE, MetricKind.COUNTER, ledger.counters
    numbers: tuple[tuple[str, MetricKind, str, float], ...] = (
        ("connections", gauge, "Open connections.", server.connections),
        ("connections_total", counter, "Accepted connections.", server.accepted),
        ("requests_total", counter, "Requests with a valid head.", server.requests),
        ("refused_total", counter, "Requests refused before a handler saw them.", server.refused),
        ("requests_in_flight", gauge, "Requests at an engine.", len(way.inflight)),
        ("captures_pending", gauge, "Captures being decided or stored.", way.afterwards.pending),
        ("ledger_rows_total", counter, "Usage rows taken.", counters.added),
        ("ledger_waiting", gauge, "Usage rows not yet written.", ledger.waiting),
        ("ledger_gapped_total", counter, "Requests of which only sums remain.", counters.gapped),
        ("policy_lease", gauge, "1 while policy may be acted on.", float(lease.valid)),
    )
    own = [Metric(f"keepless_{name}", kind, text, (({}, float(value)),)) for name, kind, text, value in numbers]
    routes = list(router.routes())
    return [*own, *engines_of(routes), *_upstreams([target for route in routes for target in route.targets])]


def engines_of(routes: Sequence[Route]) -> Iterator[Metric]:
    """How each embedded engine is: 1 at the word that holds, 0 at every other."""
    embedded = [(route, condition_of(route)) for route in routes if route.embedded]
    states = [
        ({"model": route.model_id, "state": state.value}, float(condition is state))
        for route, condition in embedded
        for state in State
    ]
    yield Metric("keepless_engine_state", MetricKind.GAUGE, "1 at how the embedded engine is.", states)
    crashes = [
        ({"model": route.model_id}, float(route.pulse.crashes)) for route, _ in embedded if route.pulse is not None
    ]
    yield Metric("keepless_engine_crashes_total", MetricKind.COUNTER, "Ends that nobody had asked for.", crashes)


def _upstreams(targets: Sequence[Target]) -> Iterator[Metric]:
    """The same for each upstream (an embedded engine is upstream 0 of its model)."""
    gauge, counter = MetricKind.GAUGE, MetricKind.COUNTER
    columns: tuple[tuple[str, MetricKind, str, Callable[[Target], float]], ...] = (
        ("up", gauge, "1 while it can be reached.", lambda target: target.reachable),
        ("circuit_open", gauge, "1 while it is avoided after failures.", lambda target: target.health.open),
        ("in_flight", gauge, "Requests at it.", lambda target: target.in_flight),
        ("tries_total", counter, "Requests sent to it.", lambda target: target.tries),
        ("failures_total", counter, "Of those, failed through it.", lambda target: target.failures),
        ("left_total", counter, "Of those, sent to another upstream afterwards.", lambda target: target.left),
    )
    for name, kind, text, value in columns:
        samples = [({"model": t.model_id, "upstream": str(t.index)}, float(value(t))) for t in targets]
        yield Metric(f"keepless_upstream_{name}", kind, text, samples)
