"""`keepless controls`: show, preview and set the data controls of an organization or project.

A change that purges can be waited for: the bar on standard error follows the purge's own numbers.
"""

import time
from typing import Any, Final

import click

from keepless.cli.client import Client, segment
from keepless.cli.options import client_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when

__all__ = ["controls"]

_ON: Final = {"on": True, "true": True, "off": False, "false": False}
_POLL_S: Final = 0.5


@click.group()
def controls() -> None:
    """Data controls: what may be kept, and for how long."""


def _project(function: Any) -> Any:
    return click.option("--project", help="A project's controls instead of the organization's (tighter only).")(
        function
    )


def _patch(function: Any) -> Any:
    for option in (
        click.option("--purge/--no-purge", default=None, help="What to do with what exists of a feature turned off."),
        click.option("--expected-epoch", type=int, help="Refuse if the policy has changed since this epoch."),
        click.option(
            "--retention-days", multiple=True, metavar="CLASS=DAYS", help="DAYS = default removes the setting."
        ),
        click.option("--fine-tuning", type=click.Choice(["enabled", "disabled"])),
        click.option("--batch", type=click.Choice(["enabled", "disabled"])),
        click.option("--inference-logging", type=click.Choice(["allowed", "off"])),
        click.option("--zero-data-retention", "--zdr", type=click.Choice(list(_ON)), help="Zero Data Retention."),
    ):
        function = option(function)
    return _project(function)


@controls.command("show")
@_project
@client_command
def show(screen: Screen, client: Client, /, project: str | None) -> None:
    """What is in force, and who decided each value."""
    _present(screen, client.get(_path(project)), "Data controls")


@controls.command("preview")
@_patch
@client_command
def preview(screen: Screen, client: Client, /, project: str | None, **asked: Any) -> None:
    """What a change would destroy, without changing anything."""
    answer = client.post(_path(project) + "/preview", _body(**asked))
    shown = {name: value for name, value in answer.items() if name not in ("object", "oldest")}
    screen.fields(answer, "This would destroy", {**shown, "oldest": when(answer.get("oldest"), "-")})


@controls.command("set")
@_patch
@click.option("--wait", is_flag=True, help="Wait until what is to be purged is destroyed.")
@client_command
def change(screen: Screen, client: Client, /, project: str | None, wait: bool, **asked: Any) -> None:
    """Change the controls. When this returns, nothing can be kept any more that the change forbids."""
    body = _body(**asked)
    if not set(body) - {"expected_epoch", "purge"}:
        raise click.UsageError("say what to set, for example --zdr on")
    answer = client.post(_path(project), body)
    if wait and answer.get("purge_id"):
        answer = {**answer, "purge": _follow(screen, client, str(answer["purge_id"]))}
    _present(screen, answer, "Changed")


def _path(project: str | None) -> str:
    return f"/organization/projects/{segment(project)}/data_controls" if project else "/organization/data_controls"


def _body(zero_data_retention: str | None, retention_days: tuple[str, ...], **rest: Any) -> dict[str, Any]:
    body = {name: value for name, value in rest.items() if value is not None}
    if zero_data_retention is not None:
        body["zero_data_retention"] = _ON[zero_data_retention]
    days: dict[str, int | None] = {}
    for pair in retention_days:
        name, _, number = pair.partition("=")
        if not name or not (number.isdigit() or number == "default"):
            raise click.UsageError("--retention-days is CLASS=DAYS, for example reliability_log=7")
        days[name] = None if number == "default" else int(number)
    return body | ({"retention_days": days} if days else {})


def _follow(screen: Screen, client: Client, purge_id: str) -> dict[str, Any]:
    with screen.progress("purging") as advance:
        while True:
            purge = client.get(f"/organization/purges/{segment(purge_id)}")
            advance(int(purge["destroyed"]), int(purge["objects"]))
            if purge["state"] == "done":
                return purge
            if purge["state"] == "partial":
                raise FindingError(
                    "Objects under a legal hold remain; the purge finishes by itself when it is released.",
                    {"purge": purge},
                )
            time.sleep(_POLL_S)


def _present(screen: Screen, answer: dict[str, Any], title: str) -> None:
    residual = answer["residual"]
    rest = f"{residual['objects']} objects, {residual['bytes']} bytes" if residual["objects"] else "none"
    screen.fields(
        answer,
        title,
        {
            "epoch": answer["epoch"],
            "zero data retention": answer["zero_data_retention"],
            **{name.replace("_", " "): value for name, value in answer["features"].items()},
            **{
                f"days: {name}": "until deleted" if days is None else days
                for name, days in answer["retention_days"].items()
            },
            "still kept of what is off": rest,
            **({"purge": answer["purge_id"]} if answer.get("purge_id") else {}),
        },
    )
