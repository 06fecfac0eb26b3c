"""The two programs behind `keepless`: the server, and all other commands; only the one that is asked for is loaded.

One of the two files in which a module is imported by its name (ADR 0028): modules of its own layer or below.
"""

import importlib
from collections.abc import Callable
from enum import StrEnum

__all__ = ["Program", "main_of"]


class Program(StrEnum):
    """Modules with a `main`."""

    SERVER = "keepless.cli.server"
    COMMANDS = "keepless.cli.main"


def main_of(program: Program) -> Callable[..., int]:
    """Load a program; its `main`."""
    found: Callable[..., int] = importlib.import_module(program).main
    return found
