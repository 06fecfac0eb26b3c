"""The programs behind `keepless`: the server, and every other command; only what is asked for is loaded.

One of the three files in which a module is imported by its name (ADR 0028): modules of its own layer or below.
"""

import importlib
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import click

__all__ = ["COMMANDS", "Program", "command_of", "main_of"]

# Each command -> the module of this room that holds it. One that asks a server needs a sixth of what all of them load.
COMMANDS: Final = {
    "init": "deployment",
    "serve": "serving",
    "worker": "deployment",
    "sweep": "deployment",
    "doctor": "doctor",
    "controls": "controls",
    "organizations": "accounts",
    "projects": "accounts",
    "keys": "accounts",
    "members": "accounts",
    "operators": "operators",
    "holds": "holds",
    "cases": "holds",
    "captures": "captures",
    "transfers": "transfers",
    "explain": "proofs",
    "receipts": "proofs",
    "audit": "audit",
    "verify": "proofs",
    "prove": "prove",
    "batches": "batches",
    "fine-tunings": "fine_tunings",
    "files": "files",
}


class Program(StrEnum):
    """Modules with a `main`."""

    SERVER = "keepless.cli.server"
    COMMANDS = "keepless.cli.main"


def main_of(program: Program) -> Callable[..., int]:
    """Load a program; its `main`."""
    found: Callable[..., int] = importlib.import_module(program).main
    return found


def command_of(name: str) -> click.Command:
    """Load one of the commands."""
    found: click.Command = getattr(importlib.import_module(f"keepless.cli.{COMMANDS[name]}"), name.replace("-", "_"))
    return found
