"""`keepless`: every command. What becomes of an error stands in `outcome`."""

import sys
from collections.abc import Sequence

import click

from keepless.app.harden import leave_no_core
from keepless.cli.called import run
from keepless.cli.programs import COMMANDS, command_of

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """Loads a command when it is asked for, or all of them for the list."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return command_of(cmd_name) if cmd_name in COMMANDS else None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="keepless")
def cli() -> None:
    """Inference that keeps nothing it does not have to, and can prove it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if arguments is None:  # a process of its own, which may hold keys (a sweep) and customers' texts (files, batches)
        leave_no_core()
    return run(cli, list(sys.argv[1:] if arguments is None else arguments), "keepless")
