"""A change of data controls as a form: read from what was typed, and said in words before it is made.

Holds: `read` (form -> `Patch`), `consequences` (what a patch would do), the texts of what stops working. Leaves out:
whether a change is allowed (governance), pages (controls).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS
from keepless.config import ModelConfig, UpstreamRetention
from keepless.console.services import Services
from keepless.console.visit import Visit
from keepless.governance.patch import Patch, applied, check
from keepless.governance.standing import Standing, kept_by_class
from keepless.ids import Id
from keepless.policy.controls import Effective, allowed_days
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import row_of
from keepless.vault.tables import kept

__all__ = ["SWITCHES", "Consequences", "consequences", "fields_of", "read"]

# feature -> (what says on, what says off)
SWITCHES: Final = {
    Feature.INFERENCE_LOGGING: ("allowed", "off"),
    Feature.BATCH: ("enabled", "disabled"),
    Feature.FINE_TUNING: ("enabled", "disabled"),
}
_ZDR: Final = "zero_data_retention"
_COUNTED: Final = 10_000  # ended objects are counted to here, then it is "more than"

STOPS: Final[Mapping[Feature, tuple[str, ...]]] = {
    Feature.INFERENCE_LOGGING: (
        "No request is written any more, not even one that fails: failures are seen as numbers and codes alone.",
        "An open abuse case captures nothing.",
    ),
    Feature.BATCH: (
        "New batches and uploads for them are refused with 403.",
        "Batches that run are cancelled at once; what they have not delivered is lost.",
    ),
    Feature.FINE_TUNING: (
        "New datasets and fine-tunings are refused with 403; jobs that run are cancelled.",
        "Tuned models stop being served at once.",
    ),
}


@dataclass(frozen=True, slots=True)
class Consequences:
    """What a patch does, told before it is done. `ending`: (class, days, objects that end at once, more than that)."""

    off: tuple[Feature, ...]
    on: tuple[Feature, ...]
    stops: tuple[str, ...]
    models: tuple[str, ...]  # whose upstreams would no longer be asked
    logs: int
    states: int
    states_bytes: int
    periods: tuple[tuple[DataClass, int | None, int | None], ...]
    ending: tuple[tuple[DataClass, int, bool], ...]
    zdr: tuple[bool, bool]

    @property
    def changes(self) -> bool:
        """Whether it changes anything that is in force."""
        return bool(self.off or self.on or self.periods) or self.zdr[0] != self.zdr[1]

    @property
    def final(self) -> bool:
        """Whether something ends that does not come back."""
        return bool(self.off or any(objects for _, objects, _ in self.ending))


def fields_of(visit: Visit) -> dict[str, str]:
    """The fields of a change as they were typed, to be sent on; nothing else of the query is."""
    typed = {**visit.query, **visit.form}
    known = (_ZDR, *(feature.value for feature in Feature), *(f"days.{name.value}" for name in DataClass))
    return {name: typed[name].strip() for name in known if name in typed}


def read(visit: Visit, own_days: Mapping[DataClass, int], *, purge: bool | None = None) -> Patch:
    """What was typed as a patch; a period that is as it was is not part of it. Raises `Problem` 400."""
    typed = fields_of(visit)
    off = {
        feature: typed[feature.value] == said[1]
        for feature, said in SWITCHES.items()
        if typed.get(feature.value) in said
    }
    days: dict[DataClass, int | None] = {}
    for name in DataClass:
        field = f"days.{name.value}"
        if field in typed:
            asked = visit.number(field, 1, allowed_days(name)[-1])
            if asked != own_days.get(name):
                days[name] = asked
    zdr = {"on": True, "off": False}.get(typed.get(_ZDR, ""))
    epoch = visit.number("epoch", 0, 999_999_999_999)
    return Patch(zero_data_retention=zdr, off=off, retention_days=days, expected_epoch=epoch, purge=purge)


def consequences(services: Services, organization_id: Id, project_id: Id | None, patch: Patch) -> Consequences:
    """What a patch would do now. Raises `Problem` 400, 404."""
    with services.controls.reading() as tx:
        before = services.controls.standing(tx, organization_id, project_id)
        check(patch, before.above)
        after = before.after(applied(before.own, patch), before.epoch)
        old, new = before.in_force, after.in_force
        off = tuple(feature for feature in Feature if feature in old.on - new.on)
        counts = [one for one in kept_by_class(tx, after) if row_of(one.data_class).feature in off]
        logs = [one for one in counts if row_of(one.data_class).feature is Feature.INFERENCE_LOGGING]
        states = [one for one in counts if one not in logs]
        moved = [name for name in DataClass if old.days[name] != new.days[name]]
        ending = tuple(_ending(tx, before, new, moved, services.clock.now_ms()))
    loses = not old.zero_upstream_only and new.zero_upstream_only
    return Consequences(
        off=off,
        on=tuple(feature for feature in Feature if feature in new.on - old.on),
        stops=tuple(text for feature in off for text in STOPS[feature]),
        models=tuple(model.id for model in services.settings.models if _keeps(model)) if loses else (),
        logs=sum(one.objects for one in logs),
        states=sum(one.objects for one in states),
        states_bytes=sum(one.bytes for one in states),
        periods=tuple((name, old.days[name], new.days[name]) for name in moved),
        ending=ending,
        zdr=(old.zero_data_retention, new.zero_data_retention),
    )


def _ending(
    tx: Connection, before: Standing, new: Effective, classes: Iterable[DataClass], now_ms: int
) -> Iterable[tuple[DataClass, int, bool]]:
    """How many objects a shorter period ends at once; read off one end of an index, up to a bound."""
    for data_class in classes:
        days = new.days[data_class]
        if days is None:
            continue
        projects = [before.project_id] if before.project_id is not None else list(before.projects)
        old = sa.select(kept.c.id).where(
            kept.c.organization_id == before.organization_id,
            kept.c.project_id.in_(projects),
            kept.c.data_class == data_class,
            kept.c.created_at <= now_ms - days * DAY_MS,
            kept.c.hold_id.is_(None),
        )
        found = tx.scalar(sa.select(sa.func.count()).select_from(old.limit(_COUNTED + 1).subquery())) or 0
        if found:
            yield data_class, min(found, _COUNTED), found > _COUNTED


def _keeps(model: ModelConfig) -> bool:
    upstreams: list[Any] = list(model.all_upstreams())
    return bool(upstreams) and all(one.retention is not UpstreamRetention.ZERO for one in upstreams)
