"""Legal holds as values (PRODUCT 2, DECISIONS 10). Pure: which objects a hold covers.

A hold stops purging what already exists and never starts collection: nothing here is asked when something is written.
Leaves out: placing, releasing and listing (governance), the KEK that held objects move to (vault).
"""

from dataclasses import dataclass
from enum import StrEnum

from keepless.policy.data_class import DataClass

__all__ = ["Hold", "HoldAuthority", "HoldReason", "covers"]


class HoldReason(StrEnum):
    """Why a hold was placed: a closed list."""

    LITIGATION = "litigation"
    REGULATOR_REQUEST = "regulator_request"
    LAW_ENFORCEMENT = "law_enforcement"
    INTERNAL_INVESTIGATION = "internal_investigation"


class HoldAuthority(StrEnum):
    """On whose authority."""

    COURT_ORDER = "court_order"
    REGULATOR = "regulator"
    COUNSEL = "counsel"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Hold:
    """The scope of one hold within one organization; None = not narrowed by that field. Instants in ms."""

    id: str
    organization_id: str
    project_id: str | None = None
    data_class: DataClass | None = None
    object_id: str | None = None
    created_from_ms: int | None = None
    created_to_ms: int | None = None


def covers(
    hold: Hold, *, organization_id: str, project_id: str, data_class: DataClass, object_id: str, created_at_ms: int
) -> bool:
    """Whether a hold covers an object: every field that narrows it must match."""
    return (
        hold.organization_id == organization_id
        and hold.project_id in (None, project_id)
        and hold.data_class in (None, data_class)
        and hold.object_id in (None, object_id)
        and (hold.created_from_ms is None or created_at_ms >= hold.created_from_ms)
        and (hold.created_to_ms is None or created_at_ms < hold.created_to_ms)
    )
