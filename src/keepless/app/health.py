"""What `/readyz` and `/metrics` say of a running process: gathered from the rooms, in closed words and numbers."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from keepless.accounts.lease import Lease
from keepless.admin.health import Check, Metric, MetricKind
from keepless.app.compose import Deployment
from keepless.app.guard import is_behind
from keepless.errors import KeeplessError
from keepless.gateway.server import Server
from keepless.inference.router import Router
from keepless.pipeline import Way
from keepless.receipts.checkpoint import LogForkError
from keepless.usage.ledger import Ledger

__all__ = ["checks_of", "metrics_of"]


def checks_of(deployment: Deployment, ledger: Ledger, router: Router) -> Callable[[], Sequence[Check]]:
    """The checks of `/readyz` beyond those that the admin room makes itself (database, lease, location)."""

    def checks() -> list[Check]:
        found = [
            Check(
                "sweep",
                not deployment.sweeper.paused,
                "the clock jumped; confirm with `keepless sweep --once`" if deployment.sweeper.paused else "",
            ),
            _time(deployment),
            Check("ledger", ledger.healthy, "" if ledger.healthy else "usage rows cannot be written"),
            _log(deployment),
        ]
        for model in router.models():
            route = router.route(model.id)
            up = route is not None and route.backend.healthy
            found.append(Check(f"model {model.id}", up, "" if up else "its engine does not answer"))
        return found

    return checks


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


def metrics_of(server: Server, way: Way, ledger: Ledger, lease: Lease) -> Sequence[Metric]:
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
    return [Metric(f"keepless_{name}", kind, text, (({}, float(value)),)) for name, kind, text, value in numbers]
