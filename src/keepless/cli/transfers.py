"""`keepless transfers`: the register of who may see customer data, where, and on which ground."""

import time
from pathlib import Path

import click
import msgspec

from keepless.cli.client import Client
from keepless.cli.export import Folder
from keepless.cli.options import client_command
from keepless.cli.output import Screen
from keepless.governance.record import NAME, record_page
from keepless.governance.transfers import Register

__all__ = ["transfers"]


@click.group()
def transfers() -> None:
    """The register of transfers: recipients, countries, grounds."""


@transfers.command("export")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="A folder for the record as a document to print."
)
@client_command
def export(screen: Screen, client: Client, /, *, out: Path | None) -> None:
    """Show the register; with --json the whole record, with --out as a document for A4 (HTML: print it, or to PDF)."""
    answer = client.get("/organization/transfers")
    if out is not None:
        page = record_page(msgspec.convert(answer, Register), round(time.time() * 1000))
        answer["document"] = str(Folder(out).write(NAME, page))
    rows = [(t["recipient"], t["country"], t["mechanism"], t["scc_module"]) for t in answer["transfers"]]
    rows += [(host, "not declared", "not declared", None) for host in answer["undeclared"]]
    title = "Transfers" if out is None else f"Transfers, written to {answer['document']}"
    screen.rows(answer, title, ("recipient", "country", "ground", "scc module"), rows)
