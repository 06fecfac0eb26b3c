"""How a command ends: its exit code, and what is said of an error.

Exit codes: 0 done, 1 a finding or a refusal, 2 wrong usage or configuration. With `--json` an error is one JSON
object on standard output too; people read it on standard error. A fault of ours shows its class and our own frames,
never its text. Leaves out: the commands, and what they say when all is well (output).
"""

import json
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from keepless import log
from keepless.errors import ConfigError, KeeplessError, Problem

__all__ = ["FINDING", "OK", "USAGE", "FindingError", "ended", "say"]

OK: Final = 0
FINDING: Final = 1
USAGE: Final = 2


class FindingError(Exception):
    """The command did its work and the answer is no. `message` is for people, `answer` for scripts."""

    def __init__(self, message: str, answer: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message: Final = message
        self.answer: Final = answer or {"error": {"message": message}}


def ended(work: Callable[[], int], *, as_json: bool) -> int:
    """Do the work of a command; its exit code. Whatever goes wrong has been said then."""
    with _NoText() as fault:
        return _done(work, as_json)
    if fault.seen:
        say("an internal fault; the line above says where", None, as_json=as_json)
    return FINDING


def say(message: str, answer: Mapping[str, object] | None, *, as_json: bool, usage: str | None = None) -> None:
    """What went wrong: `answer` (or the message) for scripts, for people the message and how the command is used."""
    if as_json:
        sys.stdout.write(json.dumps(answer or {"error": {"message": message}}) + "\n")
    elif answer is not None and "error" not in answer:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    if usage is not None and not as_json:
        sys.stderr.write(usage + "\n")
    sys.stderr.write(f"keepless: {message}\n")


class _NoText:
    """A fault of ours is logged by its class and frames; its text may hold anything, so nobody is shown it."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        self.seen = isinstance(error, Exception)
        if error is not None and self.seen:
            log.failure(log.Event.COMMAND_FAILED, error)
        return self.seen


def _done(work: Callable[[], int], as_json: bool) -> int:
    try:
        return work()
    except FindingError as finding:
        say(finding.message, finding.answer, as_json=as_json)
        return FINDING
    except KeyboardInterrupt:
        return FINDING
    except Problem as problem:
        answer = {"error": {"message": problem.message, "code": problem.code}}
        say(problem.message, answer, as_json=as_json)
        return FINDING
    except ConfigError as wrong:
        say(str(wrong), None, as_json=as_json)
        return USAGE
    except KeeplessError as ours:
        say(type(ours).__doc__ or "refused", None, as_json=as_json)
        return FINDING
