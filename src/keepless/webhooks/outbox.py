"""The outbox: what is to be told, written with the change itself, claimed, tried again, given up after three days.

Holds: `announce`, `Claim`, `Outbox`. Leaves out: sending (send), the loop (deliver).

announce: one row an endpoint that asked for the event, in the caller's transaction: what is told is what was committed.
claim: due rows, at most `_AT_ONCE` an organization so that nobody's silent server holds up the others; each is claimed
by moving `due_at` on (compare-and-set), so a worker that dies with it is no more than a later attempt. Delivery is at
least once; the event's id stays the same.
"""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS, Clock
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.log import Event, emit
from keepless.webhooks.events import EventType, mask_of
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint

__all__ = ["GIVE_UP_MS", "Claim", "Outbox", "announce", "delay_ms"]

GIVE_UP_MS: Final = 3 * DAY_MS
CLAIM_MS: Final = 60_000  # several times what an attempt may take
_AT_ONCE: Final = 4  # of one organization
_FIRST_MS: Final = 5_000
_LONGEST_MS: Final = 6 * 3_600_000
row, endpoint = webhook_delivery.c, webhook_endpoint.c


def announce(
    tx: Connection,
    kind: EventType,
    subject_id: Id,
    *,
    organization_id: Id,
    project_id: Id,
    now_ms: int,
    later_ms: int = 0,
) -> int:
    """Note in the caller's transaction that an event is to be told; how many endpoints want it.

    `later_ms`: how much later than now at the soonest.
    """
    wanted = sa.select(endpoint.id).where(
        endpoint.organization_id == organization_id,
        sa.or_(endpoint.project_id.is_(None), endpoint.project_id == project_id),
        endpoint.events.op("&")(mask_of([kind])) != 0,
    )
    event_id = mint(Prefix.EVENT)
    rows = [
        {
            "event_id": event_id,
            "endpoint_id": endpoint_id,
            "organization_id": organization_id,
            "event_type": kind,
            "subject_id": subject_id,
            "created_at": now_ms,
            "due_at": now_ms + later_ms,
            "attempts": 0,
        }
        for endpoint_id in tx.scalars(wanted).all()
    ]
    if rows:
        tx.execute(webhook_delivery.insert(), rows)
    return len(rows)


def delay_ms(attempts: int, chance: float) -> int:
    """How long after the attempt of that number: doubling from 5 s to 6 h; `chance` (0..1) takes up to half off."""
    longest = min(_LONGEST_MS, _FIRST_MS << min(attempts - 1, 20))
    return longest - int(longest * chance / 2)


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery that is this worker's for a minute, with what it needs of the endpoint."""

    event_id: Id
    endpoint_id: Id
    organization_id: Id
    event_type: EventType
    subject_id: Id
    created_at: int
    attempts: int  # with this one
    url: str
    salt: bytes
    hint: str
    old_salt: bytes | None
    old_until: int | None


class Outbox:
    """The rows. Thread-safe and process-safe; every method blocks."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db: Final = db
        self._clock: Final = clock

    def claim(self, most: int) -> list[Claim]:
        """Due deliveries, the longest due first; at most four of one organization."""
        now_ms = self._clock.now_ms()
        with self._db.read() as tx:
            if tx.execute(sa.select(row.event_id).where(row.due_at <= now_ms).limit(1)).first() is None:
                return []
        with self._db.write() as tx:
            alive = sa.select(endpoint.id).where(endpoint.id == row.endpoint_id).exists()
            tx.execute(webhook_delivery.delete().where(row.due_at <= now_ms, ~alive))  # removed while it was announced
            turn = sa.func.row_number().over(partition_by=row.organization_id, order_by=(row.due_at, row.event_id))
            due = sa.select(*row, turn.label("turn")).where(row.due_at <= now_ms).subquery()
            found = tx.execute(
                sa.select(due, *(endpoint[name] for name in ("url", "salt", "hint", "old_salt", "old_until")))
                .join(webhook_endpoint, endpoint.id == due.c.endpoint_id)
                .where(due.c.turn <= _AT_ONCE)
                .order_by(due.c.due_at)
                .limit(most)
            ).all()
            claims = []
            for one in found:
                mine = webhook_delivery.update().where(
                    row.event_id == one.event_id, row.endpoint_id == one.endpoint_id, row.due_at == one.due_at
                )
                moved = tx.execute(mine.values(due_at=now_ms + CLAIM_MS, attempts=one.attempts + 1))
                if moved.rowcount == 1:  # nobody else was faster
                    values = {name: getattr(one, name) for name in Claim.__slots__ if name != "attempts"}
                    claims.append(Claim(**values, attempts=one.attempts + 1))
        return claims

    def delivered(self, claim: Claim) -> None:
        """The receiver has it."""
        with self._db.write() as tx:
            tx.execute(webhook_delivery.delete().where(*_is(claim)))

    def failed(self, claim: Claim, chance: float) -> None:
        """Try again later, or give up when that would be after three days."""
        due_at = self._clock.now_ms() + delay_ms(claim.attempts, chance)
        given_up = due_at > claim.created_at + GIVE_UP_MS
        with self._db.write() as tx:
            if given_up:
                tx.execute(webhook_delivery.delete().where(*_is(claim)))
            else:
                tx.execute(webhook_delivery.update().where(*_is(claim)).values(due_at=due_at))
        if given_up:
            emit(
                Event.WEBHOOK_GIVEN_UP,
                organization=claim.organization_id,
                endpoint=claim.endpoint_id,
                webhook=claim.event_id,
                attempts=claim.attempts,
            )


def _is(claim: Claim) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return row.event_id == claim.event_id, row.endpoint_id == claim.endpoint_id
