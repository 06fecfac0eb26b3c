"""Organizations of this deployment, for operators, who run it: names and counts, never what anything says."""

from typing import Any

import sqlalchemy as sa

from keepless.console.paging import paged
from keepless.console.services import Services
from keepless.console.visit import Answer, View, Visit
from keepless.ids import Prefix
from keepless.incidents.states import CaseState
from keepless.incidents.tables import abuse_case
from keepless.vault.tables import kept_total, legal_hold

__all__ = ["platform"]


def platform(services: Services, visit: Visit) -> Answer:
    """The page."""
    found, after = paged(services.organizations.all(), visit.asked_id("after", Prefix.ORGANIZATION))
    return View("platform.html", {"found": found, "after": after, **_counts(services)})


def _counts(services: Services) -> dict[str, dict[Any, int]]:
    kept = sa.select(kept_total.c.organization_id, sa.func.sum(kept_total.c.objects)).group_by(
        kept_total.c.organization_id
    )
    holds = _by_organization(legal_hold.c.organization_id, legal_hold.c.released_at.is_(None))
    cases = _by_organization(abuse_case.c.organization_id, abuse_case.c.state != CaseState.CLOSED)
    with services.db.read() as tx:
        return {
            name: {row[0]: int(row[1]) for row in tx.execute(query)}
            for name, query in (("kept", kept), ("holds", holds), ("cases", cases))
        }


def _by_organization(whose: sa.Column[Any], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(whose, sa.func.count()).where(condition).group_by(whose)
