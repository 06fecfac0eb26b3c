"""`keepless audit`: an organization's audit log out of the platform with a proof for each event; check; erasing."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click

from keepless.cli.client import Client, segment
from keepless.cli.export import Folder
from keepless.cli.options import client_command
from keepless.cli.output import Screen
from keepless.cli.proofs import verify
from keepless.ids import Prefix
from keepless.receipts.verify import AUDIT_SUFFIX, KEY_FILE

__all__ = ["audit"]

_PATH: Final = "/organization/audit_logs/export"
_ERASED: Final = {
    Prefix.HOLD.value: "/organization/legal_holds/{}/reference",
    Prefix.OPENING.value: "/organization/open_requests/{}/reference",
    Prefix.CASE.value: "/organization/abuse_cases/{}/reference",
    "audit_log-": "/organization/audit_logs/{}",
}
_NAME: Final = f"audit{AUDIT_SUFFIX}"


@click.group()
def audit() -> None:
    """The audit log: who did what, with proofs."""


@audit.command("export")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A folder.")
@click.option("--organization-id", "--organization", help="Whose (operators).")
@click.option("--type", "types", multiple=True, help="Only events of this type; may be given more than once.")
@click.option("--project-id", "projects", multiple=True, help="Only of this project; may be given more than once.")
@client_command
def export(
    screen: Screen,
    client: Client,
    /,
    *,
    out: Path,
    organization_id: str | None,
    types: tuple[str, ...],
    projects: tuple[str, ...],
) -> None:
    """Write the events as JSON Lines, and the log's key: all that `keepless verify` needs."""
    folder = Folder(out)
    asked: dict[str, Any] = {"event_types": ",".join(types), "project_ids": ",".join(projects)}
    query = urlencode({name: value for name, value in (asked | {"organization_id": organization_id}).items() if value})
    events = -1  # the last line only counts the others

    def counted(piece: bytes) -> None:
        nonlocal events
        events += piece.count(b"\n")
        write(piece)

    with folder.writing(_NAME) as write, screen.progress("exporting the audit log") as advance:
        client.download(f"{_PATH}?{query}" if query else _PATH, counted, advance)
    folder.write(KEY_FILE, client.text("/log/key"))
    answer = {"object": "audit.export", "events": events, "file": str(out / _NAME), "key": str(out / KEY_FILE)}
    screen.fields(answer, "Exported", {name: answer[name] for name in ("events", "file", "key")})


@audit.command("erase")
@click.argument("id_", metavar="hold_...|open_...|case_...|audit_log-N")
@click.option("--organization-id", "--organization", required=True)
@client_command
def erase(screen: Screen, client: Client, /, *, id_: str, organization_id: str) -> None:
    """Erase the reference of a hold, request or case, or what an event says of a person (operators)."""
    path = next((path for prefix, path in _ERASED.items() if id_.startswith(prefix)), None)
    if path is None:
        raise click.UsageError("the id of a hold, a request to see content, a case or an event is needed")
    answer = client.delete(path.format(segment(id_)), organization_id=organization_id)
    screen.fields(answer, "Erased", answer)


audit.add_command(verify)
