"""What a call that may refuse came to."""

from collections.abc import Callable

from keepless.errors import Problem


def outcome(ask: Callable[[], object]) -> Problem | None:
    """The problem it raised, or None."""
    try:
        ask()
    except Problem as problem:
        return problem
    return None
