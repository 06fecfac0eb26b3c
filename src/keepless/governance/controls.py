"""Data Controls: read, previewed and changed, each change one transaction and then the fence (PRODUCT 3).

Holds: `DataControls`. Leaves out: what a patch means (patch), what is kept (standing), OpenAI's labels (labels), the
purge itself (expiry), HTTP.

The order of a change:
1. refusals that need no database: impossible periods
2. one transaction: the organization's row locked; compare-and-set on the epoch; looser than above (project); loosening
   without the right; purge choice missing; then the purge row, running jobs that may not go on cancelled, the
   generation, controls, periods, ratchets and the epoch, and last the log entries. COMMIT POINT: from here on no write
   decided before can be committed
3. the fence: no process acts on anything older; only then is the new state answered
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy.engine import Connection

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Permission
from keepless.accounts.store import (
    WHOLE_ORGANIZATION,
    control_values,
    ratchets_of,
    replace_periods,
    replace_ratchets,
    touch,
    update_organization,
    update_project,
)
from keepless.errors import Code, Problem
from keepless.expiry.progress import request
from keepless.governance.change import (
    Office,
    allow,
    may_loosen,
    organization_row,
    own_organization,
    recent_sign_in_required,
)
from keepless.governance.patch import Patch, applied, check, loosens
from keepless.governance.running import not_allowed
from keepless.governance.standing import (
    KeptCount,
    Standing,
    held_of,
    kept_by_class,
    oldest_of,
    residual,
    standing_of,
)
from keepless.ids import Id
from keepless.log import Event, emit
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.period import ratchets_after
from keepless.policy.schedule import SCHEDULE, max_days, row_of
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue

__all__ = ["DataControls", "State", "words"]

State = dict[str, Any]  # the JSON of CONTRACT.md
_WORDS: Final = {
    Feature.INFERENCE_LOGGING: ("allowed", "off"),
    Feature.BATCH: ("enabled", "disabled"),
    Feature.FINE_TUNING: ("enabled", "disabled"),
}


def words(off: Iterable[Feature]) -> dict[str, str]:
    """How the API says which features are on and off."""
    gone = set(off)
    return {feature.value: pair[feature in gone] for feature, pair in _WORDS.items()}


def _nothing(_: Id) -> None:
    """For who lets the next sweep find the purge."""


class DataControls:
    """The data controls of all organizations. Every method blocks (database, fence): call it from a worker thread.

    `on_purge` is told of a purge that has been requested; `terms_version` is the version of the operator's terms that
    an owner who opts out acknowledges.
    """

    def __init__(self, office: Office, on_purge: Callable[[Id], None] = _nothing, *, terms_version: int = 1) -> None:
        self._office: Final = office
        self._on_purge: Final = on_purge
        self._terms_version: Final = terms_version

    def state(self, organization_id: Id, project_id: Id | None = None) -> State:
        """What is in force, with the source of each value, and what still exists. Raises `Problem` 404."""
        with self._office.db.read() as tx:
            return _state(tx, self.standing(tx, organization_id, project_id))

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction for `standing`."""
        return self._office.db.read()

    def standing(self, tx: Connection, organization_id: Id, project_id: Id | None = None) -> Standing:
        """What has been set, on the caller's transaction. Raises `Problem` 404."""
        return standing_of(tx, organization_row(tx, organization_id), project_id)

    def preview(self, organization_id: Id, patch: Patch, project_id: Id | None = None) -> State:
        """What a patch with `purge: true` would destroy. Changes nothing. Raises `Problem` 400, 404."""
        with self._office.db.read() as tx:
            before = self.standing(tx, organization_id, project_id)
            check(patch, before.above)
            after = before.after(applied(before.own, patch), before.epoch)
            counts = [c for c in kept_by_class(tx, after) if not after.for_project(c.project_id).allows(c.data_class)]
            oldest = oldest_of(tx, after, counts)
            return {
                "object": _object("data_controls.preview", project_id),
                "epoch": before.epoch,
                "objects": sum(count.objects for count in counts),
                "bytes": sum(count.bytes for count in counts),
                "oldest": None if oldest is None else oldest // 1000,
                "held": held_of(tx, after, counts),
                "running_jobs": len(not_allowed(tx, after)),
                "classes": sorted({count.data_class.value for count in counts}),
                "loosens": loosens(before.own, after.own),
            }

    def change(
        self, organization_id: Id, patch: Patch, actor: AdminPrincipal, *, project_id: Id | None = None
    ) -> State:
        """Change what is set; the new state with its epoch and `purge_id` (None = there was nothing to destroy).

        When it returns nothing older is committed, routed or accepted anywhere. Raises `Problem` 400
        (`purge_choice_required` with counts, looser than the organization, impossible period), 403, 404, 412.
        """
        now_ms = self._office.clock.now_ms()
        allow(actor, Permission.CONTROLS_CHANGE, organization_id)
        check(patch, None)

        def make(tx: Connection) -> State:
            before = standing_of(tx, own_organization(tx, organization_id), project_id)
            if patch.expected_epoch not in (None, before.epoch):
                message = "The data controls were changed by somebody else. Read them again, then decide."
                raise Problem(412, Code.EPOCH_MISMATCH, message, extra={"epoch": before.epoch})
            check(patch, before.above)
            after = before.after(applied(before.own, patch), before.epoch + 1)
            if loosens(before.own, after.own) and not may_loosen(actor, now_ms):
                raise recent_sign_in_required()
            doomed = _doomed(kept_by_class(tx, after), before, after, patch)
            if after.own == before.own and not doomed:
                return {**_state(tx, before), "purge_id": None}
            return self._write(tx, before, after, doomed, actor=actor, now_ms=now_ms)

        state = self._office.fence.change(make)
        emit(Event.CONTROLS_CHANGED, organization=organization_id, project=project_id, epoch=state["epoch"])
        if state["purge_id"] is not None:
            self._on_purge(state["purge_id"])
        return state

    def _write(
        self,
        tx: Connection,
        before: Standing,
        after: Standing,
        doomed: list[KeptCount],
        *,
        actor: AdminPrincipal,
        now_ms: int,
    ) -> State:
        own_id, project_id = after.organization_id, after.project_id
        classes = sorted({count.data_class for count in doomed}, key=list(DataClass).index)
        purge_id = None
        if classes:
            purge_id = request(
                tx,
                organization_id=own_id,
                project_id=project_id,
                classes=classes,
                epoch=after.epoch,
                now_ms=now_ms,
            )
        not_allowed(tx, after).cancel(tx, now_ms)
        generation = touch(tx)
        if project_id is None:
            update_organization(tx, own_id, generation, epoch=after.epoch, **control_values(after.own))
        else:
            update_organization(tx, own_id, generation, epoch=after.epoch)
            update_project(tx, project_id, generation, **control_values(after.own))
        level = project_id or WHOLE_ORGANIZATION
        changed = _changed_periods(before, after)
        if before.own.retention_days != after.own.retention_days:
            replace_periods(tx, own_id, level, after.own.retention_days)
        present = ratchets_of(tx, own_id, level) if changed else {}
        for data_class, (old, new) in changed.items():
            kept_on = ratchets_after(
                present=present.get(data_class, ()),
                days_before=old,
                days_after=new,
                ceiling=max_days(data_class),
                now_ms=now_ms,
            )
            replace_ratchets(tx, own_id, level, data_class, kept_on)
        state = {**_state(tx, after), "purge_id": purge_id}
        by: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.EPOCH: after.epoch}
        self._office.log.append(
            tx,
            [
                Entry(kind, now_ms, own_id, project_id, facts={**by, **facts})
                for kind, facts in self._statements(before, after, changed, purge_id, doomed)
            ],
        )
        return state

    def _statements(
        self,
        before: Standing,
        after: Standing,
        changed: dict[DataClass, tuple[int | None, int | None]],
        purge_id: Id | None,
        doomed: list[KeptCount],
    ) -> Iterable[tuple[EntryKind, dict[Fact, FactValue]]]:
        if (before.own.zero_data_retention, before.own.off) != (after.own.zero_data_retention, after.own.off):
            off = after.own.off
            yield (
                EntryKind.CONTROLS_CHANGED,
                {
                    Fact.ZERO_DATA_RETENTION: after.own.zero_data_retention,
                    Fact.INFERENCE_LOGGING_OFF: Feature.INFERENCE_LOGGING in off,
                    Fact.BATCH_OFF: Feature.BATCH in off,
                    Fact.FINE_TUNING_OFF: Feature.FINE_TUNING in off,
                },
            )
        for data_class, (old, new) in changed.items():
            yield EntryKind.PERIOD_CHANGED, {Fact.DATA_CLASS: data_class, Fact.DAYS_BEFORE: old, Fact.DAYS: new}
        if Feature.INFERENCE_LOGGING in before.in_force.on - after.in_force.on:
            yield EntryKind.OPT_OUT_ACKNOWLEDGED, {Fact.TERMS_VERSION: self._terms_version}
        if purge_id is not None:
            mask = sum(1 << list(DataClass).index(name) for name in {count.data_class for count in doomed})
            objects = sum(count.objects for count in doomed)
            yield EntryKind.PURGE_REQUESTED, {Fact.PURGE_ID: purge_id, Fact.CLASSES: mask, Fact.OBJECTS: objects}


def _changed_periods(before: Standing, after: Standing) -> dict[DataClass, tuple[int | None, int | None]]:
    """The periods in force at this level that a change makes longer or shorter: class -> (before, after)."""
    old, new = before.in_force.days, after.in_force.days
    return {name: (old[name], new[name]) for name in DataClass if old[name] != new[name]}


def _doomed(counts: list[KeptCount], before: Standing, after: Standing, patch: Patch) -> list[KeptCount]:
    """What the change destroys (DECISIONS 6): logs that lost their reason always, application state when so chosen.

    Raises `Problem` 400 when application state exists, its feature is being turned off and nothing was chosen.
    """
    turned_off = before.in_force.on - after.in_force.on
    off_now = set(Feature) - after.in_force.on
    logs, states = [], []
    for count in counts:
        feature = row_of(count.data_class).feature
        if feature is Feature.INFERENCE_LOGGING:
            logs += [count] if feature in turned_off or (patch.purge and feature in off_now) else []
        elif feature in (turned_off if patch.purge is None else off_now):
            states.append(count)
    if patch.purge is None and states:
        extra = {"objects": sum(c.objects for c in states), "bytes": sum(c.bytes for c in states)}
        message = (
            "Files and models of the features you turn off exist. Say what becomes of them: "
            "purge true destroys them, purge false keeps them until their normal end."
        )
        raise Problem(400, Code.PURGE_CHOICE_REQUIRED, message, param="purge", extra=extra)
    return logs + (states if patch.purge else [])


def _object(name: str, project_id: Id | None) -> str:
    return f"organization.{name}" if project_id is None else f"project.{name}"


def _state(tx: Connection, standing: Standing) -> State:
    force, own, left = standing.in_force, standing.own, residual(tx, standing)
    source = {"zero_data_retention": force.zdr_source.value}
    source |= {feature.value: force.feature_source[feature].value for feature in Feature}
    source |= {f"retention_days.{name.value}": force.days_source[name].value for name in DataClass}
    return {
        "object": _object("data_controls", standing.project_id),
        "epoch": standing.epoch,
        "zero_data_retention": force.zero_data_retention,
        "features": words(set(Feature) - force.on),
        "retention_days": {name.value: force.days[name] for name in DataClass},
        "settings": {
            "zero_data_retention": own.zero_data_retention,
            **words(own.off),
            "retention_days": {name.value: days for name, days in own.retention_days.items()},
        },
        "schedule": [
            {
                "product": row.product,
                "endpoints": list(row.endpoints),
                "classes": [name.value for name in row.classes],
                "feature": row.feature.value,
                "on": row.feature in force.on,
                "why": row.why,
                "kept_for": row.kept_for,
                "max_days": row.max_days,
                "under_zdr": row.under_zdr,
            }
            for row in SCHEDULE
        ],
        "source": source,
        "residual": {
            "objects": left.objects,
            "bytes": left.bytes,
            "until": None if left.until_ms is None else -(-left.until_ms // 1000),
        },
    }
