"""`keepless receipts`, `verify` and `explain`: evidence out of the platform, and its check without the platform."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from keepless.app.compose import open_deployment
from keepless.cli.client import Client, segment
from keepless.cli.export import Folder
from keepless.cli.options import client_command, output_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.config import load
from keepless.ids import Prefix, parse
from keepless.receipts.bundle import issue_all
from keepless.receipts.checkpoint import NoteError, VerifierKey
from keepless.receipts.stated import Stated
from keepless.receipts.verify import KEY_FILE, SUFFIX, FileResult, Report, verify_paths
from keepless.receipts.verify_audit import AuditVerified

__all__ = ["explain", "receipts", "verify"]


@click.group()
def receipts() -> None:
    """Receipts: proofs of deletion."""


@receipts.command("list")
@client_command
def receipts_list(screen: Screen, client: Client, /) -> None:
    """List receipts, newest first."""
    found = list(client.each("/organization/receipts"))
    rows = [(r["id"], r["object_id"], r["class"], r["cause"], when(r["deleted_at"], "-")) for r in found]
    screen.rows({"data": found}, "Receipts", ("id", "object", "class", "cause", "deleted"), rows)


@receipts.command("export")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A folder.")
@click.option("--data-dir", help="Read this data folder instead of asking a server (operators).")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="keepless.toml, with --data-dir.")
@click.option("--organization-id", "--organization", help="Of one organization only, with --data-dir.")
@client_command
def export(
    screen: Screen,
    client: Client,
    /,
    *,
    out: Path,
    data_dir: str | None,
    config: Path | None,
    organization_id: str | None,
) -> None:
    """Write one file a receipt, and the log's key: all that `keepless verify` needs."""
    written = 0
    folder = Folder(out)
    source = _served(client) if data_dir is None else _stored(data_dir, config, organization_id)
    with screen.progress("exporting receipts") as advance:
        for name, text in source:
            folder.write(name, text)
            if name != KEY_FILE:
                written += 1
            advance(written)
    answer = {"object": "receipts.export", "receipts": written, "folder": str(out), "key": str(out / KEY_FILE)}
    screen.fields(answer, "Exported", {"receipts": written, "folder": str(out), "key": str(out / KEY_FILE)})


def _served(client: Client) -> Iterator[tuple[str, str]]:
    yield KEY_FILE, client.text("/log/key")
    for receipt in client.each("/organization/receipts"):
        yield f"{receipt['id']}{SUFFIX}", client.text(f"/v1/organization/receipts/{segment(receipt['id'])}")


def _stored(data_dir: str, config: Path | None, organization_id: str | None) -> Iterator[tuple[str, str]]:
    chosen = None
    if organization_id is not None:
        chosen = parse(organization_id, Prefix.ORGANIZATION)
        if chosen is None:
            raise click.UsageError("--organization-id is not an organization's id")
    deployment = open_deployment(load(config, data_dir=data_dir))
    try:
        yield KEY_FILE, f"{deployment.log.key}\n"
        for receipt_id, data in issue_all(deployment.db, deployment.log, chosen):
            yield f"{receipt_id}{SUFFIX}", data.decode("ascii")
    finally:
        deployment.close()


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--log-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The log's key, from a source you trust.",
)
@output_command
def verify(screen: Screen, /, paths: tuple[Path, ...], log_key: Path | None) -> None:
    """Verify receipts and audit logs offline. Without --log-key the key beside the files is used, which proves less."""
    report = verify_paths(paths, None if log_key is None else _key(log_key))
    answer = {
        "object": "verification",
        "ok": report.ok,
        "key_trusted": report.key_trusted,
        "files": [_file(file) for file in report.files],
    }
    if screen.json and not report.ok:
        raise FindingError(_verdict(report), answer)
    rows = [
        (file.path.name, file.finding.value if file.finding else "valid", *_instants(file)) for file in report.files
    ]
    screen.rows(answer, "Receipts", ("file", "result", "object", "deleted", "key destroyed"), rows)
    if not report.key_trusted:
        click.echo("key not authenticated: it was found beside the files; compare it with the log's operator", err=True)
    if not report.ok:
        raise FindingError(_verdict(report))


def _verdict(report: Report) -> str:
    return "not every receipt is valid" if report.files else "there is no receipt here: nothing has been verified"


def _key(path: Path) -> VerifierKey:
    try:
        return VerifierKey.parse(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError, NoteError):
        raise FindingError("--log-key is not a log's key") from None


def _file(file: FileResult) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "file": file.path.name,
        "ok": file.ok,
        "finding": file.finding.value if file.finding else None,
        "key_trusted": file.key_trusted,
    }
    found = file.verified
    if isinstance(found, AuditVerified):
        shown |= {
            "organization_id": found.organization_id,
            "events": found.events,
            "erased": found.erased,
            "first_index": found.first_index,
            "last_index": found.last_index,
        }
    elif isinstance(found, Stated):
        shown |= {"statement": found.statement, "log_index": found.index}
    elif found is not None:
        shown |= {
            "receipt_id": found.receipt_id,
            "object_id": found.object_id,
            "organization_id": found.organization_id,
            "class": found.data_class,
            "cause": found.cause,
            "created_at": found.created_at_ms // 1000,
            "deleted_at": found.deleted_at_ms // 1000,
            "shredded_at": None if found.shredded_at_ms is None else found.shredded_at_ms // 1000,
            "shredded_by": found.shredded_by_ms // 1000,
            "late": found.late,
            "log_index": found.index,
        }
    return shown


def _instants(file: FileResult) -> tuple[str, str, str]:
    found = file.verified
    if isinstance(found, AuditVerified):
        return f"audit log, {found.events} events", "-", "-"
    if isinstance(found, Stated):
        return f"entry {found.index}: {found.statement.get('kind')}", "-", "-"
    if found is None:
        return "-", "-", "-"
    shredded = None if found.shredded_at_ms is None else found.shredded_at_ms // 1000
    promised = f"by {when(found.shredded_by_ms // 1000)}"
    return found.object_id, when(found.deleted_at_ms // 1000), when(shredded, promised)


@click.command()
@click.argument("request_id", metavar="req_...")
@client_command
def explain(screen: Screen, client: Client, /, request_id: str) -> None:
    """Why a request was or was not kept: who decided, under which epoch, what triggered it, where it was routed."""
    answer = client.get(f"/organization/explain/{segment(request_id)}")
    screen.fields(answer, "Request", answer | {"created_at": when(answer["created_at"])})
