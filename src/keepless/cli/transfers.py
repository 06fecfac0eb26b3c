"""`keepless transfers`: the register of who may see customer data, where, and on which ground."""

import click

from keepless.cli.client import Client
from keepless.cli.options import client_command
from keepless.cli.output import Screen

__all__ = ["transfers"]


@click.group()
def transfers() -> None:
    """The register of transfers: recipients, countries, grounds."""


@transfers.command("export")
@client_command
def export(screen: Screen, client: Client, /) -> None:
    """Show the register; with --json the whole record, as a record of processing wants it."""
    answer = client.get("/organization/transfers")
    rows = [(t["recipient"], t["country"], t["mechanism"], t["scc_module"]) for t in answer["transfers"]]
    rows += [(host, "not declared", "not declared", None) for host in answer["undeclared"]]
    screen.rows(answer, "Transfers", ("recipient", "country", "ground", "scc module"), rows)
