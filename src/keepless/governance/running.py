"""Jobs that a change of policy ends: batches and fine-tunings that have not ended and may not go on.

Holds: `Running`, `not_allowed`, `everything`. Leaves out: the changes (controls, organizations), what jobs hold in the
vault, which their workers destroy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from keepless.batches import store as batches
from keepless.batches import transitions as batch_transitions
from keepless.governance.standing import Standing
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.tuning import store as tunings
from keepless.tuning import transitions as tuning_transitions

__all__ = ["Running", "everything", "not_allowed"]


@dataclass(frozen=True, slots=True)
class Running:
    """Some jobs that run."""

    batches: Sequence[Id]
    tunings: Sequence[Id]

    def __len__(self) -> int:
        return len(self.batches) + len(self.tunings)

    def cancel(self, tx: Connection, now_ms: int) -> None:
        """End them in the transaction of the change: nothing they do can be committed after it."""
        batch_transitions.cancel_at_once(tx, self.batches, now_ms)
        tuning_transitions.cancel_at_once(tx, self.tunings, now_ms)


def not_allowed(tx: Connection, after: Standing) -> Running:
    """Those that may not go on after a change."""

    def off(project_id: Id, work: DataClass) -> bool:
        return not after.for_project(project_id).allows(work)

    own, below = after.organization_id, after.project_id
    return Running(
        [one.id for one in batches.active_of(tx, own, below) if off(one.project_id, DataClass.BATCH_WORK)],
        [one.id for one in tunings.active_of(tx, own, below) if off(one.project_id, DataClass.FINE_TUNING_WORK)],
    )


def everything(tx: Connection, organization_id: Id, project_id: Id | None = None) -> Running:
    """Those of an organization or of one of its projects, which ends."""
    return Running(
        [one.id for one in batches.active_of(tx, organization_id, project_id)],
        [one.id for one in tunings.active_of(tx, organization_id, project_id)],
    )
