"""`keepless`: every command. What becomes of an error stands in `outcome`."""

import sys
from collections.abc import Sequence

import click

from keepless.app.harden import leave_no_core
from keepless.cli.accounts import keys, members, organizations, projects
from keepless.cli.audit import audit
from keepless.cli.batches import batches
from keepless.cli.called import run
from keepless.cli.captures import captures
from keepless.cli.controls import controls
from keepless.cli.deployment import init, sweep, worker
from keepless.cli.doctor import doctor
from keepless.cli.files import files
from keepless.cli.fine_tunings import fine_tunings
from keepless.cli.holds import cases, holds
from keepless.cli.operators import operators
from keepless.cli.proofs import explain, receipts, verify
from keepless.cli.prove import prove
from keepless.cli.serving import serve
from keepless.cli.transfers import transfers

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="keepless")
def cli() -> None:
    """Inference that keeps nothing it does not have to, and can prove it."""


for command in (
    init,
    serve,
    worker,
    sweep,
    doctor,
    controls,
    organizations,
    projects,
    keys,
    members,
    operators,
    holds,
    cases,
    captures,
    transfers,
    explain,
    receipts,
    audit,
    verify,
    prove,
    batches,
    fine_tunings,
    files,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if arguments is None:  # a process of its own, which may hold keys (a sweep) and customers' texts (files, batches)
        leave_no_core()
    return run(cli, list(sys.argv[1:] if arguments is None else arguments), "keepless")
