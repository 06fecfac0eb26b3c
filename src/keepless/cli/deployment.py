"""`keepless init`, `worker` and `sweep`: commands that open the data folder themselves, as `serve` does (serving)."""

import sys

import click

from keepless.app.compose import open_deployment
from keepless.app.initialise import initialise
from keepless.app.jobs_start import QUEUES, run_jobs
from keepless.cli.options import store_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen
from keepless.config import Settings

__all__ = ["init", "sweep", "worker"]


@click.command()
@store_command
def init(screen: Screen, settings: Settings, /) -> None:
    """Make a data folder with the first organization; prints its keys, this once."""
    answer = initialise(settings)
    screen.fields(answer, "Created; keys and password are shown this once", answer)


@click.command()
@click.option(
    "--queues", default="batch", show_default=True, help="What to run, separated by commas: batch, fine_tuning."
)
@store_command
@click.pass_context
def worker(context: click.Context, screen: Screen, settings: Settings, /, queues: str) -> None:
    """Run jobs in the foreground, beside the servers of a deployment or on another machine with the same database."""
    named = {name.strip() for name in queues.split(",")}
    wanted = [queue for queue in sorted(QUEUES) if queue in named]
    if len(wanted) < len(named):
        raise click.UsageError(f"--queues: one or more of {', '.join(sorted(QUEUES))}")
    told = {"queues": [str(queue) for queue in wanted]}
    screen.fields(told, "Running jobs until a signal comes", told)
    sys.stdout.flush()
    context.exit(run_jobs(settings, wanted))


@click.command()
@click.option("--once", is_flag=True, help="One sweep now; you confirm that this machine's clock is right.")
@store_command
def sweep(screen: Screen, settings: Settings, /, once: bool) -> None:
    """Destroy what is due, finish what a crash left, destroy the keys of days that are over."""
    if not once:
        raise click.UsageError("sweeps are scheduled by `keepless serve`; for one sweep now give --once")
    deployment = open_deployment(settings)
    try:
        with screen.progress("sweeping") as advance:
            report = deployment.sweeper.sweep_once(confirm=True, progress=advance)
    finally:
        deployment.close()
    answer = report.numbers()
    if not report.clean:
        raise FindingError("The sweep could not finish everything, or found something wrong; see the numbers.", answer)
    screen.fields(answer, "Swept", {name.replace("_", " "): value for name, value in answer.items()})
