"""`keepless holds` and `keepless cases`: legal holds and abuse cases. Placing and deciding is for operators."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from keepless.cli.client import Client, segment
from keepless.cli.options import client_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.incidents.states import CloseReason
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason

__all__ = ["cases", "holds"]

_HOLDS: Final = "/organization/legal_holds"
_CASES: Final = "/organization/abuse_cases"
_FORMATS: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")


class _Instant(click.ParamType[int]):
    """A date or time in UTC, or `+DAYS` from now; becomes Unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See the class."""
        text = str(value)
        if text.startswith("+") and text[1:].isdigit():
            return int((datetime.now(UTC) + timedelta(days=int(text[1:]))).timestamp())
        for pattern in _FORMATS:
            try:
                return int(datetime.strptime(text, pattern).replace(tzinfo=UTC).timestamp())
            except ValueError:
                continue
        return self.fail("a date such as 2027-01-31, a time such as 2027-01-31T12:00:00Z, or +DAYS", param, ctx)


INSTANT: Final = _Instant()
_WHOSE: Final = click.option("--organization-id", "--organization", help="Whose; found by itself when not given.")


@click.group()
def holds() -> None:
    """Legal holds: what may not be purged, although it is due."""


@holds.command("place")
@click.option("--organization-id", "--organization", required=True)
@click.option("--reason", type=click.Choice([r.value for r in HoldReason]), required=True)
@click.option("--authority", type=click.Choice([a.value for a in HoldAuthority]), required=True)
@click.option("--reference", required=True, help="At most 80 letters; the customer sees it.")
@click.option("--review-at", type=INSTANT, required=True, help="A date, or +DAYS.")
@click.option("--project-id", "--project")
@click.option("--class", "data_class", type=click.Choice([c.value for c in DataClass]))
@click.option("--object-id", "--object")
@click.option("--created-from", type=INSTANT)
@click.option("--created-to", type=INSTANT)
@client_command
def place(screen: Screen, client: Client, /, data_class: str | None, **asked: Any) -> None:
    """Place a hold. It stops purging what exists; it never starts collection."""
    answer = client.post(_HOLDS, {**asked, "class": data_class})
    screen.fields(answer, "Placed", _hold(answer))


@holds.command("list")
@click.option("--organization-id", "--organization", help="Whose (operators).")
@click.option("--released", is_flag=True, help="Released ones too.")
@client_command
def holds_list(screen: Screen, client: Client, /, organization_id: str | None, released: bool) -> None:
    """List holds."""
    found = list(client.each(_HOLDS, organization_id=organization_id, include_released=released))
    rows = [tuple(_hold(hold).values()) for hold in found]
    columns = ("id", "organization", "covers", "reason", "authority", "reference", "placed", "review", "released")
    screen.rows({"data": found}, "Legal holds", columns, rows)


@holds.command("release")
@click.argument("hold_id")
@_WHOSE
@client_command
def release(screen: Screen, client: Client, /, hold_id: str, organization_id: str | None) -> None:
    """Release a hold; what is overdue is purged at once."""
    whose = organization_id or _owner(client, _HOLDS, hold_id)
    answer = client.delete(f"{_HOLDS}/{segment(hold_id)}", organization_id=whose)
    screen.fields(answer, "Released", answer)


@click.group()
def cases() -> None:
    """Abuse cases: suspected by detection, confirmed by a person."""


@cases.command("list")
@click.option("--organization-id", "--organization", help="Whose (operators).")
@click.option("--closed", is_flag=True, help="Closed ones too.")
@client_command
def cases_list(screen: Screen, client: Client, /, organization_id: str | None, closed: bool) -> None:
    """List cases."""
    found = list(client.each(_CASES, organization_id=organization_id, include_closed=closed))
    rows = [(c["id"], c["state"], c["signal"], when(c["opened_at"]), when(c["capture_until"], "-")) for c in found]
    screen.rows({"data": found}, "Abuse cases", ("id", "state", "signal", "opened", "captures until"), rows)


@cases.command("confirm")
@click.argument("case_id")
@_WHOSE
@client_command
def confirm(screen: Screen, client: Client, /, case_id: str, organization_id: str | None) -> None:
    """Confirm a case: from now on the keys it names are captured, within its caps."""
    _decide(screen, client, case_id, "confirm", {"organization_id": organization_id})


@cases.command("extend")
@click.argument("case_id")
@_WHOSE
@click.option("--hours", type=click.IntRange(1, 72), required=True)
@click.option("--reference", required=True, help="Why; at most 80 letters.")
@client_command
def extend(screen: Screen, client: Client, /, case_id: str, **asked: Any) -> None:
    """Extend a confirmed case."""
    _decide(screen, client, case_id, "extend", asked)


@cases.command("close")
@click.argument("case_id")
@_WHOSE
@click.option("--reason", type=click.Choice([r.value for r in CloseReason]), default=CloseReason.RESOLVED.value)
@client_command
def close(screen: Screen, client: Client, /, case_id: str, **asked: Any) -> None:
    """Close a case: nothing more is captured for it."""
    _decide(screen, client, case_id, "close", asked)


def _owner(client: Client, path: str, wanted: str) -> str:
    """Whose a hold or case is."""
    for found in client.each(path):
        if found["id"] == wanted:
            return str(found["organization_id"])
    raise FindingError("there is nothing open with this id")


def _decide(screen: Screen, client: Client, case_id: str, verb: str, asked: dict[str, Any]) -> None:
    body = {**asked, "organization_id": asked["organization_id"] or _owner(client, _CASES, case_id)}
    answer = client.post(f"{_CASES}/{segment(case_id)}/{verb}", body)
    screen.fields(answer, "Case", answer)


def _hold(hold: dict[str, Any]) -> dict[str, Any]:
    narrowed = (hold["project_id"], hold["class"], hold["object_id"])
    return {
        "id": hold["id"],
        "organization": hold["organization_id"],
        "covers": [part for part in narrowed if part] or "everything",
        "reason": hold["reason"],
        "authority": hold["authority"],
        "reference": hold["reference"],
        "placed": when(hold["placed_at"]),
        "review": when(hold["review_at"]),
        "released": when(hold["released_at"], "-"),
    }
