"""`keepless captures`: captured requests, and who may see what was in them (break-glass).

Content goes to standard output and into no file: what becomes of it there is the affair of who was allowed to see it.
"""

import base64
from typing import Any, Final

import click

from keepless.cli.client import Client, segment
from keepless.cli.options import client_command
from keepless.cli.output import Screen, when
from keepless.incidents.states import OpeningReason

__all__ = ["captures"]

_CAPTURES: Final = "/organization/captures"
_REQUESTS: Final = "/organization/open_requests"
_whose = click.option("--organization-id", "--organization", help="Whose (operators).")


@click.group()
def captures() -> None:
    """Captured requests, and requests to see their content."""


@captures.command("list")
@_whose
@client_command
def list_captures(screen: Screen, client: Client, /, organization_id: str | None) -> None:
    """List what was captured: why, and until when."""
    found = list(client.each(_CAPTURES, organization_id=organization_id))
    rows = [(c["id"], c["class"], c["reason"], when(c["created_at"]), when(c["expires_at"], "-")) for c in found]
    screen.rows({"data": found}, "Captures", ("id", "class", "why", "captured", "ends"), rows)


@captures.command("delete")
@click.argument("capture_id", metavar="obj_...")
@client_command
def delete(screen: Screen, client: Client, /, capture_id: str) -> None:
    """Destroy one captured request now (owners)."""
    answer = client.delete(f"{_CAPTURES}/{segment(capture_id)}")
    screen.fields(answer, "Deleted", answer)


@captures.command("requests")
@_whose
@client_command
def requests(screen: Screen, client: Client, /, organization_id: str | None) -> None:
    """List requests to see content."""
    found = list(client.each(_REQUESTS, organization_id=organization_id))
    rows = [
        (r["id"], r["object_id"], r["state"], r["reason"], r["reference"], r["requested_by"], when(r["ends_at"]))
        for r in found
    ]
    columns = ("id", "object", "state", "reason", "reference", "asked by", "ends")
    screen.rows({"data": found}, "Requests to see content", columns, rows)


@captures.command("request")
@click.argument("capture_id", metavar="obj_...")
@_whose
@click.option("--reason", type=click.Choice([reason.value for reason in OpeningReason]), required=True)
@click.option("--reference", required=True, help="A ticket, at most 80 letters; no content.")
@click.option("--minutes", type=click.IntRange(1, 60), default=60, show_default=True, help="From the approval on.")
@client_command
def request(screen: Screen, client: Client, /, capture_id: str, **asked: Any) -> None:
    """Ask to see the content of one captured request (operators and owners)."""
    _said(screen, client.post(f"{_CAPTURES}/{segment(capture_id)}/open_requests", asked))


@captures.command("approve")
@click.argument("request_id", metavar="open_...")
@_whose
@client_command
def approve(screen: Screen, client: Client, /, request_id: str, organization_id: str | None) -> None:
    """Allow a request of somebody else's, from now on for its minutes."""
    _decide(screen, client, request_id, "approve", organization_id)


@captures.command("refuse")
@click.argument("request_id", metavar="open_...")
@_whose
@client_command
def refuse(screen: Screen, client: Client, /, request_id: str, organization_id: str | None) -> None:
    """Refuse a request of somebody else's."""
    _decide(screen, client, request_id, "refuse", organization_id)


@captures.command("end")
@click.argument("request_id", metavar="open_...")
@_whose
@client_command
def end(screen: Screen, client: Client, /, request_id: str, organization_id: str | None) -> None:
    """End a request or an approval now."""
    _decide(screen, client, request_id, "end", organization_id)


@captures.command("content")
@click.argument("capture_id", metavar="obj_...")
@_whose
@click.option("--open-request", required=True, metavar="open_...", help="The approved request of yours.")
@click.option("--part", type=click.Choice(["request", "answer", "content"]), default="request", show_default=True)
@client_command
def content(screen: Screen, client: Client, /, *, capture_id: str, part: str, **asked: Any) -> None:
    """Say the content of a captured request, while your approval lasts. Every call is an entry of the audit log."""
    answer = client.get(f"{_CAPTURES}/{segment(capture_id)}/content", **asked)
    if screen.json:
        screen.show(answer, lambda _: None)
    else:
        click.echo(base64.b64decode(answer[part] or ""), nl=False)


def _decide(screen: Screen, client: Client, request_id: str, verb: str, organization_id: str | None) -> None:
    _said(screen, client.post(f"{_REQUESTS}/{segment(request_id)}/{verb}", {"organization_id": organization_id}))


def _said(screen: Screen, answer: dict[str, Any]) -> None:
    shown = {
        "id": answer["id"],
        "object": answer["object_id"],
        "state": answer["state"],
        "reason": answer["reason"],
        "reference": answer["reference"],
        "ends": when(answer["ends_at"]),
    }
    screen.fields(answer, "Request to see content", shown)
