"""What an engine's failure means: every kind and every status has its row."""

import pytest

from keepless.errors import Code
from keepless.inference import faults
from keepless.inference.backend import Failure, FailureKind
from keepless.policy.decision import Reason


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_is_told_with_its_own_code_and_reason(kind: FailureKind) -> None:
    fault = faults.of_failure(Failure(kind))
    assert (fault.problem.code, fault.reason) == (kind.code, kind.reason)
    assert fault.problem.status >= 500
    taken_nothing = not fault.seen and fault.problem.retry
    again = taken_nothing or kind is FailureKind.CRASHED  # batches wait for who says so, but not after a crash (line)
    assert ("retry-after" in fault.problem.headers) == again
    assert fault.problem.retry == (kind is not FailureKind.MISSING)  # what is not installed will not come soon


@pytest.mark.parametrize(
    ("status", "embedded", "told", "code", "reason"),
    [
        (401, False, 502, Code.UPSTREAM_AUTH, None),
        (403, True, 502, Code.UPSTREAM_AUTH, None),
        (429, False, 503, Code.UPSTREAM_BUSY, None),
        (500, False, 502, Code.UPSTREAM_ERROR, Reason.UPSTREAM_5XX),
        (599, False, 502, Code.UPSTREAM_ERROR, Reason.UPSTREAM_5XX),
        (500, True, 500, Code.ENGINE_FAILED, Reason.ENGINE_CRASH),
        (201, False, 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
        (304, False, 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    ],
)
def test_statuses(status: int, embedded: bool, told: int, code: Code, reason: Reason | None) -> None:
    fault = faults.of_status(status, None, embedded=embedded)
    assert fault is not None
    assert (fault.problem.status, fault.problem.code, fault.reason) == (told, code, reason)


@pytest.mark.parametrize("status", [400, 402, 404, 408, 409, 413, 422, 498, 499])
def test_other_refusals_are_the_clients(status: int) -> None:
    assert faults.of_status(status, None, embedded=False) is None


def test_retry_after_is_the_upstreams_when_it_said_one() -> None:
    fault = faults.of_status(429, 7, embedded=False)
    assert fault is not None
    assert fault.problem.headers == {"retry-after": "7"}
    for status, told in ((503, {"retry-after": "7"}), (500, {}), (502, {})):
        fault = faults.of_status(status, 7, embedded=False)
        assert fault is not None
        assert fault.problem.headers == told


def test_our_own_failures() -> None:
    assert (faults.internal().problem.status, faults.internal().reason) == (500, Reason.INTERNAL_ERROR)
    assert faults.withdrawn(None).problem.code is Code.POLICY_UNREADABLE
    refusal = faults.internal().problem
    assert faults.withdrawn(refusal).problem is refusal
    assert faults.withdrawn(refusal).reason is None
