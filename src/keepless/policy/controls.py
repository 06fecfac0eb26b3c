"""Data controls as values: what an organization set, what a project tightened, what a request asked, what is in force.

Holds: the four value types and `effective`, which folds them, each value with its source. Pure.
Leaves out: where they are stored (accounts), how a change is made (governance).

ZDR is a mask (DECISIONS 2): it hides the features' own settings and restores them when it is turned off. A project can
only tighten; a stored looser value has no effect (min and `or` are the only operations here).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import SCHEDULE, max_days, row_of

__all__ = ["NO_REQUEST", "Controls", "Effective", "RequestControls", "Source", "allowed_days", "effective"]


class Source(StrEnum):
    """Who decided a value in force."""

    SCHEDULE = "schedule"
    ORGANIZATION = "organization"
    ORGANIZATION_ZDR = "organization_zdr"
    PROJECT = "project"
    PROJECT_ZDR = "project_zdr"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Controls:
    """What one level (organization or project) has set. For a project every default means "no override"."""

    zero_data_retention: bool = False
    off: frozenset[Feature] = frozenset()
    retention_days: Mapping[DataClass, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestControls:
    """What one request tightened. `keep_nothing` binds us; `zero_upstream` also binds routing (DECISIONS 8)."""

    keep_nothing: bool = False
    zero_upstream: bool = False


NO_REQUEST = RequestControls()


@dataclass(frozen=True, slots=True)
class Effective:
    """What is in force. `days[c]` is the period in days, None = until deleted; `source` names who decided each."""

    zero_data_retention: bool
    on: frozenset[Feature]
    days: Mapping[DataClass, int | None]
    feature_source: Mapping[Feature, Source]
    days_source: Mapping[DataClass, Source]
    zdr_source: Source
    # Whether only upstreams that promise zero retention may answer (DECISIONS 6); asked twice in every request.
    zero_upstream_only: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_upstream_only", Feature.INFERENCE_LOGGING not in self.on)

    def allows(self, data_class: DataClass) -> bool:
        """Whether objects of a class may be written and used."""
        return row_of(data_class).feature in self.on


def allowed_days(data_class: DataClass) -> range:
    """The days an owner may set for a class: 1..ceiling, or 1..3650 where the default is "until deleted"."""
    return range(1, (max_days(data_class) or 3650) + 1)


def effective(organization: Controls, project: Controls | None = None) -> Effective:
    """Fold an organization's and a project's controls into what is in force."""
    levels = [(organization, Source.ORGANIZATION, Source.ORGANIZATION_ZDR)]
    if project is not None:
        levels.append((project, Source.PROJECT, Source.PROJECT_ZDR))
    zdr, zdr_source = False, Source.SCHEDULE
    feature_source = dict.fromkeys(Feature, Source.SCHEDULE)
    on = set(Feature)
    for controls, own, by_zdr in levels:
        if controls.zero_data_retention and not zdr:
            zdr, zdr_source = True, own
        for feature in Feature:
            if feature in on and (controls.zero_data_retention or feature in controls.off):
                on.discard(feature)
                feature_source[feature] = by_zdr if controls.zero_data_retention else own
    days: dict[DataClass, int | None] = {}
    days_source: dict[DataClass, Source] = {}
    for row in SCHEDULE:
        for data_class in row.classes:
            days[data_class], days_source[data_class] = row.max_days, Source.SCHEDULE
            for controls, own, _ in levels:
                asked, present = controls.retention_days.get(data_class), days[data_class]
                if asked is not None and (present is None or asked < present):
                    days[data_class], days_source[data_class] = asked, own
    return Effective(zdr, frozenset(on), days, feature_source, days_source, zdr_source)
