"""`keepless files`: upload, list, show, download and delete the files of a project. With an API key.

A download is written beside its place and moved there when it is whole, for its owner alone: what a customer asked to
have on his own disk leaves Keepless here (a lint rule names this file).
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from keepless.cli.client import Client, segment
from keepless.cli.options import api_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.files.values import UPLOADED

__all__ = ["files"]

_FILES: Final = "/files"


@click.group()
def files() -> None:
    """Files: inputs of batches and data sets, results of batches."""


@files.command("upload")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--purpose",
    type=click.Choice([purpose.value for purpose in UPLOADED]),
    default=next(iter(UPLOADED)).value,
    show_default=True,
)
@api_command
def upload(screen: Screen, client: Client, /, path: Path, purpose: str) -> None:
    """Upload the file at PATH."""
    with screen.progress("uploading") as advance:
        answer = client.upload(path, purpose, advance)
    screen.fields(answer, "Uploaded", _fields(answer))


@files.command("list")
@click.option("--purpose", help="Only files for this.")
@api_command
def list_(screen: Screen, client: Client, /, purpose: str | None) -> None:
    """List the project's files, newest first."""
    found = list(client.each(_FILES, purpose=purpose))
    columns = ("id", "purpose", "bytes", "name", "created", "until")
    rows = [
        (
            one["id"],
            one["purpose"],
            one["bytes"],
            one["filename"],
            when(one["created_at"]),
            when(one["expires_at"], "deleted"),
        )
        for one in found
    ]
    screen.rows({"data": found}, "Files", columns, rows)


@files.command("show")
@click.argument("file_id")
@api_command
def show(screen: Screen, client: Client, /, file_id: str) -> None:
    """Show one file."""
    answer = client.get(f"{_FILES}/{segment(file_id)}")
    screen.fields(answer, "File", _fields(answer))


@files.command("download")
@click.argument("file_id")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where it is written.")
@api_command
def download(screen: Screen, client: Client, /, file_id: str, out: Path) -> None:
    """Download what a file holds."""
    with screen.progress("downloading") as advance:
        size = _written(out, lambda write: client.download(f"{_FILES}/{segment(file_id)}/content", write, advance))
    screen.fields(
        {"id": file_id, "bytes": size, "path": str(out)}, "Downloaded", {"id": file_id, "bytes": size, "to": out}
    )


@files.command("delete")
@click.argument("file_id")
@api_command
def delete(screen: Screen, client: Client, /, file_id: str) -> None:
    """Destroy a file; says so when nobody can read it any more."""
    answer = client.delete(f"{_FILES}/{segment(file_id)}")
    screen.fields(answer, "Deleted", {"id": answer["id"]})


def _written(out: Path, act: Callable[[Callable[[bytes], object]], int]) -> int:
    part = out.with_name(f".{out.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        raise FindingError("the place of --out cannot be written") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = act(file.write)
        part.replace(out)
    except OSError:
        raise FindingError("the disk did not take the file") from None
    finally:
        part.unlink(missing_ok=True)
    return size


def _fields(one: Mapping[str, Any]) -> dict[str, object]:
    return {
        "id": one["id"],
        "name": one["filename"],
        "purpose": one["purpose"],
        "bytes": one["bytes"],
        "created": when(one["created_at"]),
        "until": when(one["expires_at"], "deleted"),
    }
