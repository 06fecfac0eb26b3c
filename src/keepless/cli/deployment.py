"""`keepless init`, `serve`, `worker` and `sweep`: the commands that open the data folder themselves."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from keepless.app.compose import open_deployment
from keepless.app.initialise import initialise
from keepless.app.jobs_start import QUEUES, run_jobs
from keepless.app.serve import serve as run_server
from keepless.cli.first_request import first_request
from keepless.cli.options import store_command
from keepless.cli.output import FindingError, Screen
from keepless.config import Settings, load

__all__ = ["init", "serve", "sweep", "worker"]

_TOLD: Final = (
    ("api_key", "API key"),
    ("admin_key", "admin key"),
    ("operator_key", "operator key"),
    ("owner_email", "owner"),
    ("owner_password", "password"),
    ("sign_in", "sign in once"),
)


@click.command()
@store_command
def init(screen: Screen, settings: Settings, /) -> None:
    """Make a data folder with the first organization; prints its keys, this once."""
    answer = initialise(settings)
    screen.fields(answer, "Created; keys and password are shown this once", answer)


@click.command()
@click.option("--host", help="Where to listen. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: 8000]")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that serve. [default: 1]")
@click.option("--no-worker", is_flag=True, help="Serve only: jobs and sweeps run elsewhere.")
@click.option("--behind-proxy", is_flag=True, default=None, help="A proxy in front does TLS.")
@click.option("--data-dir", help="The data folder. [env: KEEPLESS_DATA_DIR]")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="keepless.toml; it wins over defaults.")
@click.option("--json", "as_json", is_flag=True, help="Say where it serves (and new keys) as one JSON object.")
@click.pass_context
def serve(context: click.Context, /, config: Path | None, no_worker: bool, as_json: bool, **overrides: Any) -> None:
    """Serve in the foreground. On an empty data folder: make the first organization and print its keys, this once."""
    settings = load(config, **overrides)

    def announce(told: Mapping[str, str]) -> None:
        click.echo(json.dumps(told) if as_json else _announcement(told))
        if "api_key" in told and not as_json:
            click.echo(first_request(told["url"], told["api_key"], settings.models[0].id))

    context.exit(run_server(settings, announce=announce, works=not no_worker))


def _announcement(told: Mapping[str, str]) -> str:
    url = told["url"]
    lines = [
        "Keepless is serving. It keeps nothing it does not have to.",
        f"  base URL      {url}/v1  (openai, groq: {url}/openai/v1, {url})",
        f"  console       {url}/",
        *(f"  {label:<13} {told[name]}" for name, label in _TOLD if name in told),
    ]
    if "api_key" in told:
        lines.append(
            "The keys, the password and the link (15 minutes) are shown this once. Later: keepless keys create"
        )
    return "\n".join(lines)


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
