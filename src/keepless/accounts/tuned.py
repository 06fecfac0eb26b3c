"""What every process knows of tuned models: whose they are and where their weights are kept. No name: that is content.

Holds: `Tuned` and `ReadTuned`, how the lease reads them, together with keys and policy: a model that is deleted is gone
from every process as a revoked key is. Leaves out: the rows (tuning), serving (inference).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from keepless.ids import Id

__all__ = ["ReadTuned", "Tuned", "none_at_all"]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model that can be served. `object_id`: its weights; their label is its name. `created_at`: Unix ms."""

    hexadecimal: str
    organization_id: Id
    project_id: Id
    base_model: str
    object_id: Id
    created_at: int


# Those there are, by their digits. Given what was read last: the same object when nothing has changed.
ReadTuned = Callable[[Connection, Mapping[str, Tuned]], Mapping[str, Tuned]]


def none_at_all(_: Connection, present: Mapping[str, Tuned]) -> Mapping[str, Tuned]:
    """For a process that serves none."""
    return present
