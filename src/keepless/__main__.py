"""`python -m keepless` and the `keepless` command: `serve`, or any other command.

A server does not load the other commands, nor they the server (ADR 0028).
"""

import sys

from keepless.cli import serving
from keepless.cli.programs import Program, main_of

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    given = sys.argv[1:]
    sys.exit(serving.main(given[1:]) if given[:1] == ["serve"] else main_of(Program.COMMANDS)())


if __name__ == "__main__":
    main()
