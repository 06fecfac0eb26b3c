"""`keepless batches`: begin a batch, look at it, watch it come to its end. With an API key, as developers have them.

A watched batch that did not complete is a finding (exit code 1).
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from keepless.batches.values import BatchEndpoint
from keepless.cli.client import Client, segment
from keepless.cli.options import api_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.cli.watching import watched

__all__ = ["batches"]

_BATCHES: Final = "/batches"
_ENDED: Final = ("completed", "failed", "expired", "cancelled")


@click.group()
def batches() -> None:
    """Batches: many requests in a file, answered within a day to a week."""


@batches.command("create")
@click.argument("input_file", metavar="FILE")
@click.option(
    "--endpoint",
    type=click.Choice([e.value for e in BatchEndpoint]),
    default=BatchEndpoint.CHAT.value,
    show_default=True,
)
@click.option("--window", default="24h", show_default=True, help="When it must be done: 24h to 7d.")
@click.option("--metadata", "pairs", multiple=True, metavar="NAME=TEXT", help="At most 16; they are sealed.")
@click.option("--idempotency-key", help="The same key within a day finds the same batch.")
@api_command
def create(
    screen: Screen, client: Client, /, input_file: str, window: str, pairs: tuple[str, ...], **asked: str | None
) -> None:
    """Begin a batch over FILE: a file of JSON Lines to upload, or the id of one that was."""
    if not all("=" in pair for pair in pairs):
        raise click.UsageError("--metadata is NAME=TEXT")
    path = Path(input_file)
    file_id = client.upload(path, "batch")["id"] if path.is_file() else input_file
    answer = client.post(
        _BATCHES,
        {
            "input_file_id": file_id,
            "endpoint": asked["endpoint"],
            "completion_window": window,
            "metadata": dict(pair.split("=", 1) for pair in pairs) or None,
        },
        idempotency_key=asked["idempotency_key"],
    )
    screen.fields(answer, "Created", _fields(answer))


@batches.command("list")
@api_command
def list_(screen: Screen, client: Client, /) -> None:
    """List the project's batches, newest first."""
    found = list(client.each(_BATCHES))
    columns = ("id", "status", "%", "lines", "done", "failed", "created", "until")
    rows = [
        (
            one["id"],
            one["status"],
            one["progress"]["percent"],
            *(one["request_counts"][name] for name in ("total", "completed", "failed")),
            when(one["created_at"]),
            when(one["expires_at"]),
        )
        for one in found
    ]
    screen.rows({"data": found}, "Batches", columns, rows)


@batches.command("show")
@click.argument("batch_id")
@api_command
def show(screen: Screen, client: Client, /, batch_id: str) -> None:
    """Show one batch, and what was wrong with its input."""
    answer = client.get(f"{_BATCHES}/{segment(batch_id)}")
    screen.fields(answer, "Batch", _fields(answer))


@batches.command("cancel")
@click.argument("batch_id")
@api_command
def cancel(screen: Screen, client: Client, /, batch_id: str) -> None:
    """Let a batch end with what is done."""
    answer = client.post(f"{_BATCHES}/{segment(batch_id)}/cancel")
    screen.fields(answer, "Cancelling", _fields(answer))


@batches.command("watch")
@click.argument("batch_id")
@click.option(
    "--every", type=click.FloatRange(0.05, 3600), default=2.0, show_default=True, help="Seconds between looks."
)
@api_command
def watch(screen: Screen, client: Client, /, batch_id: str, every: float) -> None:
    """Watch a batch until it has ended."""
    path = f"{_BATCHES}/{segment(batch_id)}"
    answer = watched(screen, client, path, ended=_ENDED, every=every, done="done", says=_says)
    if answer["status"] != "completed":
        raise FindingError(f"the batch is {answer['status']}", answer)
    screen.fields(answer, "Completed", _fields(answer))


def _says(batch: Mapping[str, Any]) -> str:
    counts, left = batch["request_counts"], batch["progress"]["eta_seconds"]
    eta = f", {timedelta(seconds=left)} left" if left else ""
    return f"{counts['completed']} done, {counts['failed']} failed of {counts['total']}{eta}"


def _fields(batch: Mapping[str, Any]) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": batch["id"],
        "status": batch["status"],
        "endpoint": batch["endpoint"],
        "progress": f"{batch['progress']['percent']} %: {_says(batch)}",
        "input": batch["input_file_id"],
        "output": batch["output_file_id"],
        "errors": batch["error_file_id"],
        "created": when(batch["created_at"]),
        "until": when(batch["expires_at"]),
        "metadata": batch["metadata"],
    }
    for error in (batch["errors"] or {}).get("data", []):
        place = "file" if error["line"] is None else f"line {error['line']}"
        shown[place] = f"{error['message']} ({error['code']})"
    return shown
