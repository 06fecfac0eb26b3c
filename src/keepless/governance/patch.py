"""A change of data controls as a value: what it makes of what was set, whether it loosens, whether it is allowed at
all.

Holds: `Patch`, `applied`, `loosens`, `check`. Pure but for the `Problem` it raises. Leaves out: transactions
(controls).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from keepless.errors import Code, Problem
from keepless.policy.controls import Controls, Effective, allowed_days
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import max_days, row_of

__all__ = ["Patch", "applied", "check", "loosens"]

SWITCH: Final = {
    Feature.INFERENCE_LOGGING: "inference_logging: off",
    Feature.BATCH: "batch: disabled",
    Feature.FINE_TUNING: "fine_tuning: disabled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What to change; what is not named stays. `off[feature]` True = off; a period of None = back to the schedule's.

    `purge` says what becomes of application state (DECISIONS 6); None = not said. `no_override` lets a project drop
    what it has tightened itself although its organization is as tight (OpenAI's `organization_default`).
    """

    zero_data_retention: bool | None = None
    off: Mapping[Feature, bool] = field(default_factory=dict)
    retention_days: Mapping[DataClass, int | None] = field(default_factory=dict)
    expected_epoch: int | None = None
    purge: bool | None = None
    no_override: bool = False


def applied(controls: Controls, patch: Patch) -> Controls:
    """The controls after a patch."""
    zdr = controls.zero_data_retention if patch.zero_data_retention is None else patch.zero_data_retention
    off = {feature for feature in Feature if patch.off.get(feature, feature in controls.off)}
    days = {**controls.retention_days, **patch.retention_days}
    return Controls(zdr, frozenset(off), {name: number for name, number in days.items() if number is not None})


def loosens(before: Controls, after: Controls) -> bool:
    """Whether anything that was set becomes looser, also what a mask hides at present (it would come back looser)."""
    if before.off - after.off or (before.zero_data_retention and not after.zero_data_retention):
        return True
    for data_class in DataClass:
        old = before.retention_days.get(data_class, max_days(data_class))
        new = after.retention_days.get(data_class, max_days(data_class))
        if old is not None and (new is None or new > old):
            return True
    return False


def check(patch: Patch, organization: Effective | None) -> None:
    """Refuse periods that cannot be, and for a project (`organization`: what is in force above it) anything looser.

    Raises `Problem` 400.
    """
    for data_class, days in patch.retention_days.items():
        allowed = allowed_days(data_class)
        if days == 0:
            switch = SWITCH[row_of(data_class).feature]
            message = f"A period of 0 days is not a period. To keep nothing, turn the feature off ({switch})."
            raise Problem(400, Code.INVALID_VALUE, message, param="retention_days")
        if days is not None and days not in allowed:
            message = f"retention_days.{data_class.value} is a whole number from 1 to {allowed[-1]}, or null."
            raise Problem(400, Code.INVALID_VALUE, message, param="retention_days")
        above = None if organization is None else organization.days[data_class]
        if above is not None and days is not None and days > above:
            raise _looser("retention_days")
    if organization is None or patch.no_override:
        return
    if patch.zero_data_retention is False and organization.zero_data_retention:
        raise _looser("zero_data_retention")
    for feature, off in patch.off.items():
        if not off and feature not in organization.on:
            raise _looser(feature.value)


def _looser(param: str) -> Problem:
    message = "A project can be tighter than its organization, never looser. An owner can change the organization."
    return Problem(400, Code.LOOSENING_REFUSED, message, param=param)
