"""What an engine's failure means to a client and to policy: one table (DECISIONS 3 and 9).

Holds: `Fault` (the problem told, the reason for a capture if there is one, and whether another upstream may be asked
instead), `of_failure`, `of_status`. Leaves out: whether anything is captured (policy), whom to ask instead (tries). No
text of an engine's ever gets into a problem.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from keepless.errors import Code, ErrorType, Problem
from keepless.inference.backend import Failure, FailureKind
from keepless.policy.decision import Reason

__all__ = ["Elsewhere", "Fault", "internal", "malformed", "of_failure", "of_status", "withdrawn"]

_RETRY_AFTER_S: Final = 1
_ELSEWHERE_STATUSES: Final = frozenset({502, 503, 504})


class Elsewhere(Enum):
    """Whether another upstream of the model may be asked, as long as no byte of an answer has come."""

    NO = "no"
    YES = "yes"
    IF_CONFIGURED = "if configured"  # the engine may still be at work on it: `retry_timeouts`


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed request. `reason` None: it does not degrade reliability, so nothing may be captured."""

    problem: Problem
    reason: Reason | None
    elsewhere: Elsewhere = Elsewhere.NO
    sick: bool = False  # it counts against the engine's health
    seen: bool = True  # the engine may have read something of the request
    rest_s: int | None = None  # for how long the engine wants to be left alone


_TOLD: Final = {
    FailureKind.UNREACHABLE: (502, "The engine of this model cannot be reached."),
    FailureKind.BUSY: (503, "The engine of this model is busy. Please try again shortly."),
    FailureKind.CRASHED: (503, "The engine of this model stopped while it answered."),
    FailureKind.TIMEOUT_FIRST_BYTE: (504, "The engine of this model did not answer in time."),
    FailureKind.TIMEOUT_IDLE: (504, "The engine of this model stopped answering."),
    FailureKind.CUT: (502, "The engine of this model ended its answer too early."),
    FailureKind.MALFORMED: (502, "The engine of this model gave an answer that cannot be understood."),
    FailureKind.MISSING: (503, "The engine of this model is not installed on this server."),
    FailureKind.WITHDRAWN: (503, "Data controls do not permit this request to be sent to its engine any more."),
}
_UNSENT: Final = frozenset({FailureKind.UNREACHABLE, FailureKind.BUSY, FailureKind.MISSING, FailureKind.WITHDRAWN})
_WELL: Final = frozenset({FailureKind.BUSY, FailureKind.WITHDRAWN})  # our own doing
# Nothing of it was taken and the engine may come back, or it is being started again.
_AGAIN: Final = _UNSENT - {FailureKind.MISSING} | {FailureKind.CRASHED}
_MENDABLE: Final = {
    **dict.fromkeys((*_UNSENT, FailureKind.CUT), Elsewhere.YES),
    FailureKind.TIMEOUT_FIRST_BYTE: Elsewhere.IF_CONFIGURED,
}


def of_failure(failure: Failure) -> Fault:
    """The fault of an engine that gave no complete answer."""
    kind = failure.kind
    status, message = _TOLD[kind]
    retry = kind is not FailureKind.MISSING
    seconds = failure.retry_after_s or _RETRY_AFTER_S if kind in _AGAIN else None
    return Fault(
        _problem(status, kind.code, message, seconds, retry=retry),
        kind.reason,
        _MENDABLE.get(kind, Elsewhere.NO),
        sick=kind not in _WELL,
        seen=kind not in _UNSENT,
    )


def of_status(status: int, retry_after_s: int | None, *, embedded: bool) -> Fault | None:
    """The fault of an engine that answered with `status`; None when the answer is for the client as it is (4xx)."""
    if status in (401, 403):
        problem = _problem(502, Code.UPSTREAM_AUTH, "The engine of this model refused our credential.")
        return Fault(problem, None, sick=True)
    if status == 429:
        seconds = retry_after_s or _RETRY_AFTER_S
        problem = _problem(503, Code.UPSTREAM_BUSY, "The engine of this model is at its limits.", seconds)
        return Fault(problem, None, Elsewhere.YES, rest_s=seconds)
    if status >= 500:
        problem = _problem(
            500 if embedded else 502,
            Code.ENGINE_FAILED if embedded else Code.UPSTREAM_ERROR,
            "The engine of this model failed to answer.",
            retry_after_s if status == 503 else None,
        )
        return Fault(
            problem,
            Reason.ENGINE_CRASH if embedded else Reason.UPSTREAM_5XX,
            Elsewhere.YES if status in _ELSEWHERE_STATUSES else Elsewhere.NO,
            sick=True,
            rest_s=retry_after_s if status == 503 else None,
        )
    return None if 400 <= status < 500 else malformed()


def malformed() -> Fault:
    """The fault of an answer that is none."""
    return of_failure(Failure(FailureKind.MALFORMED))


def withdrawn(refusal: Problem | None) -> Fault:
    """The fault of a request whose engine policy no longer permits: the refusal, or that policy cannot be read."""
    if refusal is not None:
        return Fault(refusal, None, Elsewhere.YES)
    message = "Data controls cannot be read at the moment, so only engines with zero retention are asked."
    return Fault(_problem(503, Code.POLICY_UNREADABLE, message, _RETRY_AFTER_S), None, Elsewhere.YES)


def internal() -> Fault:
    """A fault of ours."""
    message = "The server had an error while processing your request."
    return Fault(_problem(500, Code.INTERNAL, message), Reason.INTERNAL_ERROR)


def _problem(status: int, code: Code, message: str, retry_after_s: int | None = None, *, retry: bool = True) -> Problem:
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return Problem(status, code, message, type=ErrorType.SERVER, headers=headers, retry=retry)
