"""Watching a job until it has ended: a bar for a person's terminal, a line a change for a pipe, nothing for a script.

Holds: `watched`. Leaves out: what a job is (batches, fine_tunings). A server that is away for a minute, because it is
started again, does not end the watching.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from keepless.cli.client import Client, Json, UnreachableError
from keepless.cli.output import Screen

__all__ = ["watched"]

_AWAY_S: Final = 60.0
Told = Callable[[Mapping[str, Any]], None]
Says = Callable[[Mapping[str, Any]], str]


def watched(
    screen: Screen, client: Client, path: str, *, ended: Container[str], every: float, done: str, says: Says
) -> Json:
    """The job as it is at its end. `done`: the member of its progress that counts up to `total`; `says`: a few words.

    Raises `FindingError` for a refusal, or a server that stays away.
    """
    with _watcher(screen, done, says) as told:
        answer = _look(client, path)
        told(answer)
        while answer["status"] not in ended:
            time.sleep(every)
            answer = _look(client, path)
            told(answer)
    return answer


def _look(client: Client, path: str) -> Json:
    until = time.monotonic() + _AWAY_S
    while True:
        try:
            return client.get(path)
        except UnreachableError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


@contextlib.contextmanager
def _watcher(screen: Screen, done: str, says: Says) -> Iterator[Told]:
    if screen.json:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(done, says) as told:
            yield told
    else:
        yield _lines(says)


@contextlib.contextmanager
def _bar(done: str, says: Says) -> Iterator[Told]:
    columns = (
        TextColumn("{task.fields[status]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[says]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, status="", says="")

        def told(job: Mapping[str, Any]) -> None:
            progress = job["progress"]
            bar.update(
                task,
                completed=progress[done],
                total=progress["total"] or None,
                status=job["status"],
                says=says(job),
            )

        yield told


def _lines(says: Says) -> Told:
    last = ""

    def told(job: Mapping[str, Any]) -> None:
        nonlocal last
        line = f"{job['status']} {job['progress']['percent']} % {says(job)}"
        if line != last:
            click.echo(line, err=True)
        last = line

    return told
