"""What the command line says.

Holds: `Screen` (a person's table or a script's one JSON object on standard output; progress on standard error).
Leaves out: what is said, and what becomes of an error (outcome).
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

__all__ = ["Advance", "Screen", "when"]

_PIPE_WIDTH: Final = 400


def when(seconds: object, none: str = "") -> str:
    """An instant in Unix seconds as UTC, for people."""
    if not isinstance(seconds, int):
        return none
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


@dataclass(frozen=True)
class Screen:
    """Where a command speaks. With `json` nothing but one object goes to standard output."""

    json: bool

    def show(self, answer: Mapping[str, object], human: Callable[[Console], None]) -> None:
        """The answer: as JSON for scripts, or through `human` for people."""
        if self.json:
            sys.stdout.write(json.dumps(answer) + "\n")
        else:
            # A pipe has no width: what a script or a file gets is never cut.
            human(Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH))

    def fields(self, answer: Mapping[str, object], title: str, shown: Mapping[str, object]) -> None:
        """One thing with its fields."""

        def human(console: Console) -> None:
            table = Table(title=escape(title), title_justify="left", show_header=False)
            for name, value in shown.items():
                table.add_row(escape(name), escape(_text(value)))
            console.print(table)

        self.show(answer, human)

    def rows(
        self, answer: Mapping[str, object], title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Many things, one a row."""

        def human(console: Console) -> None:
            headers = [Column(name, overflow="fold") for name in columns]
            table = Table(*headers, title=escape(title), title_justify="left")
            for row in rows:
                table.add_row(*(escape(_text(value)) for value in row))
            console.print(table if table.row_count else f"{escape(title)}: none")

        self.show(answer, human)

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator["Advance"]:
        """A bar on standard error while a command works; gone when it is done."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)

            def advance(done: int, total: int | None = None) -> None:
                bar.update(task, completed=done, total=total)

            yield advance


class Advance(Protocol):
    """Tells a bar how far the work is."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """`done` of `total` (None = nobody knows)."""


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items()) or "-"
    if isinstance(value, Iterable):
        return ", ".join(_text(item) for item in value) or "-"
    return str(value)
