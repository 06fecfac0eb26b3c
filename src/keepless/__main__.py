"""`python -m keepless` and the `keepless` command."""

import sys

from keepless.cli.main import main as run

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
