"""`keepless serve`: its options; the server itself is loaded when they are right.

Holds: the command, `main`. Leaves out: what the server is (server). A server stays for months: nothing of the other
commands is in its memory (ADR 0028), so this imports none of them.
"""

from pathlib import Path
from typing import Any

import click

from keepless.app.harden import leave_no_core
from keepless.cli.called import run
from keepless.cli.programs import Program, main_of
from keepless.config import load

__all__ = ["main", "serve"]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
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
    context.exit(main_of(Program.SERVER)(settings, as_json=as_json, works=not no_worker))


def main(given: list[str]) -> int:
    """Run the command with what was typed behind `serve`."""
    leave_no_core()
    return run(serve, given, "keepless serve")
