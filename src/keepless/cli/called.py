"""Running one command of click: what was typed wrongly is said as any other error is (outcome)."""

import sys
from collections.abc import Sequence

import click

from keepless.cli.outcome import FINDING, OK, USAGE, ended, say

__all__ = ["run"]


def run(command: click.Command, given: Sequence[str], name: str) -> int:
    """Run a command with what was typed behind its name; its exit code."""
    as_json = "--json" in given

    def work() -> int:
        try:
            code = command.main(list(given), prog_name=name, standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as nothing:
            say("a command is missing", None, as_json=as_json, usage=nothing.format_message())
            return USAGE
        except click.UsageError as usage:
            how = None if usage.ctx is None else usage.ctx.get_usage()
            say(usage.format_message(), None, as_json=as_json, usage=how)
            return USAGE
        except click.ClickException as refused:
            say(refused.format_message(), None, as_json=as_json)
            return FINDING
        except click.Abort:
            return FINDING
        return code if isinstance(code, int) else OK

    code = ended(work, as_json=as_json)
    sys.stdout.flush()
    return code
