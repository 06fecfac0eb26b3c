"""Is this deployment alive, able to serve, able to keep its promises; and a few numbers for the operator's monitoring.

Holds: `Check`, `Metric`, `readiness` and the text of `/metrics` (Prometheus text exposition format 0.0.4). Leaves
out: who may ask (public), measuring (each room counts for itself; app hands the numbers over).

`/healthz` says alive and nothing else. `/readyz` is 200 only when every vital check holds; whoever wants inference to
go on while content cannot be stored (a red location keeps nothing) lets the load balancer ask `/healthz`. Names, labels
and details are fixed texts, enums and ids of ours: both are read by machines that keep what they read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import sqlalchemy as sa

from keepless.db import Database

__all__ = ["Check", "Metric", "MetricKind", "exposition", "readable"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should hold. `why` is a fixed text or a closed code, empty when it holds.

    `vital` False: it is told, but the deployment is ready without it.
    """

    name: str
    ok: bool
    why: str = ""
    vital: bool = True


class MetricKind(StrEnum):
    """Prometheus' `# TYPE`."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number, or one for each set of labels. Labels are closed values of ours."""

    name: str
    kind: MetricKind
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]] = field(default_factory=tuple)


def readable(db: Database) -> Check:
    """Whether the database answers."""
    try:
        with db.read() as tx:
            tx.execute(sa.select(1)).scalar_one()
    except sa.exc.SQLAlchemyError:
        return Check("database", ok=False, why="cannot be read")
    return Check("database", ok=True)


def exposition(metrics: Iterable[Metric]) -> str:
    """The text that Prometheus reads."""
    lines: list[str] = []
    for metric in metrics:
        name = metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind.value}"]
        for labels, value in metric.samples:
            inner = ",".join(f'{label}="{text}"' for label, text in labels.items())
            number = int(value) if float(value).is_integer() else value  # a counter is never rounded
            lines.append(f"{name}{{{inner}}} {number}" if inner else f"{name} {number}")
    return "\n".join(lines) + "\n"
