"""`keepless fine-tunings`: train a model on examples or import an adapter, watch it, pause it, delete what came of it.

With an API key, as developers have them. A watched fine-tuning that did not succeed is a finding (exit code 1).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from keepless.cli.client import Client, segment
from keepless.cli.options import api_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.cli.watching import watched

__all__ = ["fine_tunings"]

_JOBS: Final = "/fine_tuning/jobs"
_TUNINGS: Final = "/fine_tunings"
_ENDED: Final = ("succeeded", "failed", "cancelled")
_HEIGHTS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 48


@click.group("fine-tunings")
def fine_tunings() -> None:
    """Fine-tunings: a model that has learned from your examples, kept until you delete it."""


@fine_tunings.command("create")
@click.argument("training_file", metavar="FILE")
@click.option("--model", required=True, help="The base model.")
@click.option("--validation", metavar="FILE", help="Examples that are measured, not learned.")
@click.option("--name", help="Part of the model's name: A-Z a-z 0-9 . _ -")
@click.option("--epochs", "n_epochs", type=click.IntRange(1, 50))
@click.option("--batch-size", type=click.IntRange(1, 256))
@click.option("--learning-rate-multiplier", type=click.FloatRange(0, 100, min_open=True))
@click.option("--rank", "r", type=click.Choice(["8", "16", "32", "64"]))
@click.option("--alpha", type=click.IntRange(1, 1024))
@click.option("--seed", type=click.IntRange(0, 2**32 - 1))
@api_command
def create(
    screen: Screen,
    client: Client,
    /,
    *,
    training_file: str,
    model: str,
    validation: str | None,
    name: str | None,
    seed: int | None,
    **knobs: Any,
) -> None:
    """Train on FILE: JSON Lines of chat examples to upload, or the id of a file that was."""
    asked = {key: int(value) if key == "r" else value for key, value in knobs.items() if value is not None}
    answer = client.post(
        _JOBS,
        {
            "model": model,
            "training_file": _file(client, training_file),
            "validation_file": None if validation is None else _file(client, validation),
            "suffix": name,
            "seed": seed,
            "method": {"type": "supervised", "supervised": {"hyperparameters": asked}} if asked else None,
        },
    )
    screen.fields(answer, "Created", _fields(answer))


@fine_tunings.command("import")
@click.argument("archive", metavar="FILE")
@click.option("--model", required=True, help="The base model.")
@click.option("--name", required=True, help="Part of the model's name: A-Z a-z 0-9 . _ -")
@api_command
def import_(screen: Screen, client: Client, /, archive: str, model: str, name: str) -> None:
    """Import an adapter: a ZIP of adapter_model.safetensors and adapter_config.json, or the id of such a file."""
    asked = {"base_model": model, "name": name, "type": "lora", "input_file_id": _file(client, archive)}
    made = client.post(_TUNINGS, asked)
    answer = client.get(f"{_JOBS}/{segment(made['data']['fine_tuning_job_id'])}")
    screen.fields(answer, "Created", _fields(answer))


def _file(client: Client, given: str) -> str:
    path = Path(given)
    return str(client.upload(path, "fine-tune")["id"]) if path.is_file() else given


@fine_tunings.command("list")
@api_command
def list_(screen: Screen, client: Client, /) -> None:
    """List the project's fine-tunings, newest first."""
    found = list(client.each(_JOBS))
    rows = [
        (one["id"], one["status"], one["progress"]["percent"], one["model"], when(one["created_at"]), _result(one))
        for one in found
    ]
    screen.rows({"data": found}, "Fine-tunings", ("id", "status", "%", "base", "created", "model"), rows)


@fine_tunings.command("show")
@click.argument("job_id")
@api_command
def show(screen: Screen, client: Client, /, job_id: str) -> None:
    """Show one fine-tuning: how far it is, its loss, what was wrong with its files."""
    answer = client.get(f"{_JOBS}/{segment(job_id)}")
    screen.fields(answer, "Fine-tuning", _fields(answer))


@fine_tunings.command("events")
@click.argument("job_id")
@api_command
def events(screen: Screen, client: Client, /, job_id: str) -> None:
    """List what was told of a fine-tuning, newest first."""
    found = list(client.each(f"{_JOBS}/{segment(job_id)}/events"))
    rows = [(when(one["created_at"]), one["level"], one["message"]) for one in found]
    screen.rows({"data": found}, "Events", ("at", "level", "message"), rows)


@fine_tunings.command("watch")
@click.argument("job_id")
@click.option(
    "--every", type=click.FloatRange(0.05, 3600), default=2.0, show_default=True, help="Seconds between looks."
)
@api_command
def watch(screen: Screen, client: Client, /, job_id: str, every: float) -> None:
    """Watch a fine-tuning until it has ended."""
    path = f"{_JOBS}/{segment(job_id)}"
    answer = watched(screen, client, path, ended=_ENDED, every=every, done="step", says=_says)
    if answer["status"] != "succeeded":
        raise FindingError(f"the fine-tuning is {answer['status']}", answer)
    screen.fields(answer, "Succeeded", _fields(answer))


def _change(verb: str, title: str) -> None:
    @fine_tunings.command(verb, help=f"{title}.")
    @click.argument("job_id")
    @api_command
    def act(screen: Screen, client: Client, /, job_id: str) -> None:
        answer = client.post(f"{_JOBS}/{segment(job_id)}/{verb}")
        screen.fields(answer, title, _fields(answer))


_change("cancel", "End a fine-tuning without a model")
_change("pause", "Let a fine-tuning wait, from its last checkpoint on")
_change("resume", "Let a paused fine-tuning go on")


@fine_tunings.command("delete")
@click.argument("job_id")
@api_command
def delete(screen: Screen, client: Client, /, job_id: str) -> None:
    """Destroy a fine-tuning for good: its model, checkpoints and history."""
    answer = client.delete(f"{_TUNINGS}/{segment(job_id)}")
    screen.fields(answer, "Deleted", {"id": job_id, "deleted": answer["deleted"]})


def _result(job: Mapping[str, Any]) -> str:
    return str(job["fine_tuned_model"] or (job["error"] or {}).get("code", ""))


def _says(job: Mapping[str, Any]) -> str:
    progress = job["progress"]
    left = progress["eta_seconds"]
    eta = f", {timedelta(seconds=left)} left" if left else ""
    losses = _losses(job)
    loss = f", loss {losses[-1]:.3f}" if losses else ""
    return f"step {progress['step']} of {progress['total']}{loss}{eta}" if progress["total"] else "not begun"


def _losses(job: Mapping[str, Any]) -> list[float]:
    return [point["train_loss"] for point in job.get("loss_curve") or () if point["train_loss"] is not None]


def _sketch(values: Sequence[float]) -> str:
    """A curve in one line of a terminal."""
    step = max(1, -(-len(values) // _WIDTH))
    means = [sum(part) / len(part) for part in (values[at : at + step] for at in range(0, len(values), step))]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_HEIGHTS[round((value - low) / span * (len(_HEIGHTS) - 1))] for value in means)


def _fields(job: Mapping[str, Any]) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": job["id"],
        "status": job["status"],
        "base": job["model"],
        "model": job["fine_tuned_model"],
        "progress": f"{job['progress']['percent']} %: {_says(job)}",
        "training": job["training_file"],
        "validation": job["validation_file"],
        "created": when(job["created_at"]),
        "finished": when(job["finished_at"]),
        "settings": ", ".join(f"{name}={value}" for name, value in job["hyperparameters"].items()),
        "seed": job["seed"],
    }
    losses = _losses(job)
    if losses:
        shown["loss"] = f"{_sketch(losses)} {losses[0]:.3f} to {losses[-1]:.3f}"
    error = job["error"]
    if error is not None:
        shown["error"] = f"{error['message']} ({error['code']})"
        for fault in error["faults"]:
            place = fault["file"] if fault["line"] is None else f"{fault['file']} line {fault['line']}"
            shown[place] = f"{fault['message']} ({fault['code']})"
    return shown
