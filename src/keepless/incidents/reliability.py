"""Reliability incidents: a request that failed in a way that degrades the service (DECISIONS 3).

Holds: `Reliability`, which captures that one request and what was answered so far, and the cap of five an hour for
each (project, model, reason), held across processes by the database; what is over it is counted (`forget_counts` ends
that). Leaves out: which
failures have a reason at all (`inference.backend.FailureKind.reason`), the decision (policy), the steps (capture).
"""

from typing import Final

import sqlalchemy as sa

from keepless.db import Database, insert_or_ignore
from keepless.incidents.capture import Capture, Incident, PolicyReader, Vault
from keepless.incidents.tables import capture_count
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Discard, Reason, Trigger
from keepless.vault.rows import Kept

__all__ = ["CAPTURES_AN_HOUR", "Incident", "Kept", "Reliability", "forget_counts"]

CAPTURES_AN_HOUR: Final = 5
_HOUR_MS: Final = 3_600_000


class Reliability:
    """Captures failed requests when policy permits. Blocking: call it from a worker thread."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        policy_now: PolicyReader,
        *,
        max_bytes: int,
        an_hour: int = CAPTURES_AN_HOUR,
    ) -> None:
        self._db: Final = db
        self._capture: Final = Capture(vault, policy_now, max_bytes=max_bytes)
        self._an_hour: Final = an_hour

    def consider(self, incident: Incident, reason: Reason) -> Kept | Discard:
        """Keep the failed request, or say why not. Never raises for a policy, store or database."""
        return self._capture.keep(
            incident,
            data_class=DataClass.RELIABILITY_LOG,
            trigger=Trigger.RELIABILITY_ERROR,
            reason=reason,
            cap=_HourlyCap(self._db, incident, reason, self._an_hour),
        )


class _HourlyCap:
    """The row of one (project, model, reason, hour)."""

    def __init__(self, db: Database, incident: Incident, reason: Reason, limit: int) -> None:
        self._db: Final = db
        self._limit: Final = limit
        self._key: Final = {
            "project_id": incident.project_id,
            "model": str(incident.model),
            "reason": reason,
            "hour": incident.created_at_ms // _HOUR_MS,
        }
        self._where: Final = sa.and_(*(capture_count.c[name] == value for name, value in self._key.items()))

    def take(self) -> bool:
        """See `capture.Cap`."""
        with self._db.write() as tx:
            insert_or_ignore(tx, capture_count, **self._key, captured=0, refused=0)
            column = capture_count.c.captured
            free = self._where & (column < self._limit)
            if tx.execute(capture_count.update().where(free).values(captured=column + 1)).rowcount:
                return True
            tx.execute(capture_count.update().where(self._where).values(refused=capture_count.c.refused + 1))
            return False

    def give_back(self) -> None:
        """See `capture.Cap`."""
        with self._db.write() as tx:
            tx.execute(capture_count.update().where(self._where).values(captured=capture_count.c.captured - 1))


def forget_counts(db: Database, before_ms: int) -> int:
    """Delete the counts of hours that ended before an instant (Unix ms); returns how many."""
    with db.write() as tx:
        return tx.execute(capture_count.delete().where(capture_count.c.hour < before_ms // _HOUR_MS)).rowcount
