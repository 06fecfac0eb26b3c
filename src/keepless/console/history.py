"""The history of policy, read from the transparency log: who changed what, when, from what to what.

Holds: `history`, `people`. Leaves out: the audit log with everything else. An entry says what was set after a change;
what was set before is said by the change before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from keepless.console.services import Services
from keepless.ids import Id
from keepless.receipts.log import Logged
from keepless.receipts.statement import EntryKind, Fact

__all__ = ["Changed", "facts_of", "history", "people"]

_KINDS: Final = (
    EntryKind.CONTROLS_CHANGED,
    EntryKind.PERIOD_CHANGED,
    EntryKind.OPT_OUT_ACKNOWLEDGED,
    EntryKind.PURGE_REQUESTED,
)
_SWITCHES: Final = (
    (Fact.ZERO_DATA_RETENTION, "Zero Data Retention", True),
    (Fact.INFERENCE_LOGGING_OFF, "Inference logging", False),
    (Fact.BATCH_OFF, "Batch", False),
    (Fact.FINE_TUNING_OFF, "Fine-tuning", False),
)
_LOOK_BACK: Final = 400  # entries in which the change before is looked for
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode

Said = tuple[str, str | None, str]  # what, was, now


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of one thing. `was` None: nobody has said (nothing was set before)."""

    index: int
    at_ms: int
    who: str
    what: str
    was: str | None
    now: str
    epoch: int | None
    project_id: str | None
    purge_id: str | None


def facts_of(entry: Logged) -> dict[str, Any]:
    """What an entry says; nothing, when its text was erased."""
    return {} if entry.body is None else _decode(entry.body)


def people(services: Services, organization_id: Id) -> Mapping[str, str]:
    """Names of who may have acted: keys and members that there still are; of others the id remains."""
    names: dict[str, str] = {one.id: one.name for one in services.access.admin_keys(organization_id)}
    names |= {one.id: one.email for one in services.access.members(organization_id)}
    return names


def history(
    services: Services, organization_id: Id, project_id: Id | None = None, *, before: int | None = None, limit: int = 50
) -> list[Changed]:
    """Changes, newest first; of one project, when it is given."""
    names = people(services, organization_id)
    with services.db.read() as tx:
        entries = services.log.entries(
            tx, organization_id=organization_id, kinds=_KINDS, before=before, limit=max(limit, _LOOK_BACK)
        )
    told = [(entry, facts_of(entry)) for entry in entries]
    if project_id is not None:
        told = [(entry, facts) for entry, facts in told if facts.get("project_id") == project_id]
    found: list[Changed] = []
    for at, (entry, facts) in enumerate(told):
        if len(found) >= limit:
            break
        earlier = (one for other, one in told[at + 1 :] if other.kind is EntryKind.CONTROLS_CHANGED)
        same = next((one for one in earlier if one.get("project_id") == facts.get("project_id")), {})
        found += [_changed(entry, facts, names, said) for said in _said(entry.kind, facts, same)]
    return found


def _changed(entry: Logged, facts: Mapping[str, Any], names: Mapping[str, str], said: Said) -> Changed:
    actor = str(facts.get(Fact.ACTOR, ""))
    purge_id = facts.get(Fact.PURGE_ID)
    return Changed(
        index=entry.index,
        at_ms=entry.at_ms,
        who=names.get(actor, actor),
        what=said[0],
        was=said[1],
        now=said[2],
        epoch=facts.get(Fact.EPOCH),
        project_id=facts.get("project_id"),
        purge_id=None if purge_id is None else str(purge_id),
    )


def _said(kind: EntryKind, facts: Mapping[str, Any], before: Mapping[str, Any]) -> list[Said]:
    if kind is EntryKind.CONTROLS_CHANGED:
        return [
            (title, _word(before.get(fact, False), positive=positive), _word(facts[fact], positive=positive))
            for fact, title, positive in _SWITCHES
            if fact in facts and facts[fact] != before.get(fact, False)
        ]
    if kind is EntryKind.PERIOD_CHANGED:
        what = f"Period of {str(facts.get(Fact.DATA_CLASS, '')).replace('_', ' ')}"
        return [(what, _days(facts.get(Fact.DAYS_BEFORE)), _days(facts.get(Fact.DAYS)))]
    if kind is EntryKind.OPT_OUT_ACKNOWLEDGED:
        return [("Responsibility acknowledged", None, f"terms, version {facts.get(Fact.TERMS_VERSION)}")]
    return [("Purge requested", None, f"{facts.get(Fact.OBJECTS, 0)} objects")]


def _word(value: object, *, positive: bool) -> str:
    return "on" if bool(value) is positive else "off"


def _days(days: object) -> str:
    return "until deleted" if days is None else f"{days} days"
