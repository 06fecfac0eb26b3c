"""When an object ends, computed on read (DECISIONS 7). Pure.

The end in force is min(the end written with the object, `created_at` + every period that has been in force since it
was created). Shortening acts at once and rewrites no row. Lengthening leaves a `Ratchet` behind: objects created before
the change stay bound by the shorter period they have already been under.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["DAY_MS", "Ratchet", "end_in_force_ms", "ratchets_after"]

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Ratchet:
    """A period of `days` that objects created before `created_before_ms` remain bound by."""

    created_before_ms: int
    days: int


def end_in_force_ms(
    *, created_at_ms: int, expires_at_ms: int | None, days: int | None, ratchets: Iterable[Ratchet] = ()
) -> int | None:
    """The instant from which an object is no longer served; None = until deleted."""
    ends = [expires_at_ms] if expires_at_ms is not None else []
    if days is not None:
        ends.append(created_at_ms + days * DAY_MS)
    ends += [created_at_ms + r.days * DAY_MS for r in ratchets if created_at_ms < r.created_before_ms]
    return min(ends) if ends else None


def ratchets_after(
    *, present: Iterable[Ratchet], days_before: int | None, days_after: int | None, ceiling: int | None, now_ms: int
) -> tuple[Ratchet, ...]:
    """The ratchets after a change of period at `now_ms`: one more when it was lengthened, and none that is spent.

    `ceiling` is the schedule's own period in days (None: until deleted). A ratchet is spent when the end written with
    every object it could bind has passed (its cut-off plus the ceiling lies in the past). That the object has ended is
    not enough: what a hold keeps beyond its end must not be served again.
    """
    kept = [r for r in present if ceiling is None or r.created_before_ms + ceiling * DAY_MS > now_ms]
    if days_before is not None and (days_after is None or days_after > days_before):
        kept = [r for r in kept if r.days < days_before]
        cutoff = now_ms + 1  # what is created in the very millisecond of the change may have been there before it
        if all(r.created_before_ms < cutoff for r in kept):  # else one made in this millisecond binds them shorter
            kept.append(Ratchet(cutoff, days_before))
    return tuple(kept)
