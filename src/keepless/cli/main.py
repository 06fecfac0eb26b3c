"""`keepless`: every command, and what becomes of an error.

Exit codes: 0 done, 1 a finding or a refusal, 2 wrong usage or configuration. With `--json` an error is one JSON
object on standard output too; people read it on standard error. A fault of ours shows its class and our own frames,
never its text.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import click

from keepless import log
from keepless.app.harden import leave_no_core
from keepless.cli.accounts import keys, members, organizations, projects
from keepless.cli.audit import audit
from keepless.cli.batches import batches
from keepless.cli.captures import captures
from keepless.cli.controls import controls
from keepless.cli.deployment import init, serve, sweep, worker
from keepless.cli.doctor import doctor
from keepless.cli.files import files
from keepless.cli.fine_tunings import fine_tunings
from keepless.cli.holds import cases, holds
from keepless.cli.operators import operators
from keepless.cli.output import FINDING, OK, USAGE, FindingError
from keepless.cli.proofs import explain, receipts, verify
from keepless.cli.prove import prove
from keepless.cli.transfers import transfers
from keepless.errors import ConfigError, KeeplessError, Problem

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
    given = list(sys.argv[1:] if arguments is None else arguments)
    with _NoText() as fault:
        return _run(given)
    if fault.seen:
        _say(given, "an internal fault; the line above says where", None, FINDING)
    return FINDING


class _NoText:
    """A fault of ours is logged by its class and frames; its text may hold anything, so nobody is shown it."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        self.seen = isinstance(error, Exception)
        if error is not None and self.seen:
            log.failure(log.Event.COMMAND_FAILED, error)
        return self.seen


def _run(given: list[str]) -> int:
    try:
        code = cli.main(given, prog_name="keepless", standalone_mode=False)
    except FindingError as finding:
        return _say(given, finding.message, finding.answer, FINDING)
    except click.UsageError as usage:
        return _say(given, usage.format_message(), None, USAGE, usage.ctx)
    except click.ClickException as refused:
        return _say(given, refused.format_message(), None, FINDING)
    except (click.Abort, KeyboardInterrupt):
        return FINDING
    except Problem as problem:
        return _say(given, problem.message, {"error": {"message": problem.message, "code": problem.code}}, FINDING)
    except ConfigError as wrong:
        return _say(given, str(wrong), None, USAGE)
    except KeeplessError as ours:
        return _say(given, type(ours).__doc__ or "refused", None, FINDING)
    return code if isinstance(code, int) else OK


def _say(
    given: Sequence[str],
    message: str,
    answer: Mapping[str, object] | None,
    code: int,
    context: click.Context | None = None,
) -> int:
    if "--json" in given:
        sys.stdout.write(json.dumps(answer or {"error": {"message": message}}) + "\n")
    elif answer is not None and "error" not in answer:
        click.echo(json.dumps(answer, indent=2))
    if context is not None and "--json" not in given:
        click.echo(context.get_usage(), err=True)
    click.echo(f"keepless: {message}", err=True)
    return code
