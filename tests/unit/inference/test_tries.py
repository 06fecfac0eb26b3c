"""Whom a request is sent to among several upstreams, and what is told when nobody is left."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from keepless.config import Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.errors import Code
from keepless.inference import faults
from keepless.inference.backend import Failure, FailureKind
from keepless.inference.faults import Fault
from keepless.inference.router import Route
from keepless.inference.target import Target, eligible
from keepless.inference.tries import Tries
from keepless.policy.decision import Reason
from tests.support.way import FakeBackend

ZERO, LOGS, UNKNOWN = UpstreamRetention.ZERO, UpstreamRetention.LOGS_30D, UpstreamRetention.UNKNOWN
UNREACHABLE = faults.of_failure(Failure(FailureKind.UNREACHABLE))
CUT = faults.of_failure(Failure(FailureKind.CUT))
LATE = faults.of_failure(Failure(FailureKind.TIMEOUT_FIRST_BYTE))


def status(number: int) -> Fault:
    fault = faults.of_status(number, None, embedded=False)
    assert fault is not None
    return fault


def route(*upstreams: tuple[UpstreamRetention, str | None] | int, **more: object) -> Route:
    """Upstreams by promise and region, or by weight."""
    made = [
        UpstreamConfig(base_url="http://x", weight=one, retention=ZERO)
        if isinstance(one, int)
        else UpstreamConfig(base_url="http://x", retention=one[0], region=one[1])
        for one in upstreams
    ]
    model = ModelConfig(id="m", engine=Engine.OPENAI, upstreams=made, breaker_failures=1, **more)
    return Route(model, *(FakeBackend() for _ in made))


def anyone(_: Target) -> Fault | None:
    return None


def bound(*, zero_only: bool = False, region: str | None = None) -> Callable[[Target], Fault | None]:
    def refusal(target: Target) -> Fault | None:
        problem = eligible(target, zero_only=zero_only, region=region)
        return None if problem is None else faults.withdrawn(problem)

    return refusal


def begin(among: Route, refusal: Callable[[Target], Fault | None] = anyone) -> Tries:
    return Tries(among, refusal, time.perf_counter_ns())


def sent(found: Target | Fault) -> Target:
    """The target, with the request at it."""
    assert isinstance(found, Target)
    found.take()
    return found


def refused(found: Target | Fault) -> Fault:
    assert isinstance(found, Fault)
    return found


def shares(among: Route, requests: int, *, holding: tuple[int, ...] = ()) -> Counter[int]:
    """Who got how many; those of `holding` never finish one."""
    found = Counter[int]()
    for _ in range(requests):
        target = sent(begin(among).first())
        found[target.index] += 1
        if target.index not in holding:
            target.leave(None, answered=True)
    return found


# -- weights -----------------------------------------------------------------------------------------------------------


def test_shares_are_exactly_the_weights_one_request_after_another() -> None:
    assert shares(route(3, 1, 6), 100) == {0: 30, 1: 10, 2: 60}


def test_turns_are_smooth() -> None:
    among = route(2, 1)
    turns = [sent(begin(among).first()).index for _ in range(9)]
    assert all(sorted(turns[at : at + 3]) == [0, 0, 1] for at in (0, 3, 6))


def test_who_finishes_nothing_gets_no_more_than_about_twice_its_share() -> None:
    among = route(1, 1)
    assert shares(among, 200, holding=(0,))[0] <= 5
    slow = route(1, 1, 1)
    for _ in range(30):
        sent(begin(slow).first())  # thirty in flight: ten each
    assert shares(slow, 300, holding=(0,))[0] <= 14


def test_who_has_no_free_connection_is_passed_over() -> None:
    among = route((ZERO, None), (ZERO, None), max_connections=2)
    first, second = among.targets
    for _ in range(2):
        first.take()
        second.take()
    second.leave(None, answered=True)
    assert shares(among, 10) == {1: 10}


def test_who_was_away_does_not_catch_up() -> None:
    among = route(1, 1)
    among.targets[0].health.rest(time.monotonic(), 60)
    assert shares(among, 100) == {1: 100}
    among.targets[0].health.until = 0.0
    assert 49 <= shares(among, 100)[0] <= 51


# -- health ------------------------------------------------------------------------------------------------------------


def test_who_is_avoided_is_asked_only_when_nobody_else_is_left() -> None:
    among = route(1, 1)
    sent(begin(among).first()).leave(status(500))
    assert shares(among, 20) == {1: 20}
    among.targets[1].health.rest(time.monotonic(), 60)
    found = sent(begin(among).first())
    assert found.index == 0, "both are avoided: the one whose pause ends first, never a refusal"


def test_who_is_down_by_its_own_check_is_not_asked() -> None:
    among = route(1, 1)
    for target in among.targets:
        target.health.checked(0.0, up=False)
        target.health.checked(0.0, up=False)
    problem = refused(begin(among).first()).problem
    assert (problem.status, problem.code) == (503, Code.ENGINE_UNAVAILABLE)
    assert problem.headers == {"retry-after": "1"}
    assert "upstream 0" in problem.message
    assert "upstream 1" in problem.message
    among.targets[1].health.checked(0.0, up=True)
    assert sent(begin(among).first()).index == 1


# -- another try -------------------------------------------------------------------------------------------------------

MENDABLE = {"unreachable": UNREACHABLE, "cut": CUT, **{str(n): status(n) for n in (429, 502, 503, 504)}}
NOT_MENDABLE = {
    "late": LATE,
    "crashed": faults.of_failure(Failure(FailureKind.CRASHED)),
    "garbage": faults.malformed(),
    "ours": faults.internal(),
    **{str(n): status(n) for n in (401, 403, 500, 501)},
}


@pytest.mark.parametrize("name", MENDABLE)
def test_another_one_is_asked(name: str) -> None:
    tries = begin(route(1, 1))
    first = sent(tries.first())
    second = sent(tries.after(first, MENDABLE[name], begun=False))
    assert {first.index, second.index} == {0, 1}
    assert first.left == 1


@pytest.mark.parametrize("name", MENDABLE)
def test_never_after_the_first_byte(name: str) -> None:
    tries = begin(route(1, 1))
    assert refused(tries.after(sent(tries.first()), MENDABLE[name], begun=True)) is MENDABLE[name]


@pytest.mark.parametrize("name", NOT_MENDABLE)
def test_not_for_every_failure(name: str) -> None:
    tries = begin(route(1, 1))
    assert refused(tries.after(sent(tries.first()), NOT_MENDABLE[name], begun=False)) is NOT_MENDABLE[name]


def test_after_a_time_out_only_when_configured() -> None:
    tries = begin(route(1, 1, retry_timeouts=True))
    assert isinstance(tries.after(sent(tries.first()), LATE, begun=False), Target)


def test_each_at_most_once_and_not_more_than_tries() -> None:
    for most, among in ((2, route(1, 1, 1, tries=2)), (3, route(1, 1, 1, tries=9))):
        tries = begin(among)
        asked = [sent(tries.first())]
        while isinstance(found := tries.after(asked[-1], UNREACHABLE, begun=False), Target):
            asked.append(sent(found))
        assert len(asked) == len({target.index for target in asked}) == most
        assert found is UNREACHABLE


def test_not_after_the_deadline() -> None:
    late = Tries(route(1, 1, retry_seconds=5.0), anyone, time.perf_counter_ns() - 6 * 10**9)
    assert refused(late.after(sent(late.first()), UNREACHABLE, begun=False)) is UNREACHABLE


def test_an_earlier_failure_that_degrades_reliability_is_not_forgotten() -> None:
    tries = begin(route(1, 1))
    second = sent(tries.after(sent(tries.first()), status(503), begun=False))
    last = refused(tries.after(second, UNREACHABLE, begun=False))
    assert (last.problem, last.reason) == (UNREACHABLE.problem, Reason.UPSTREAM_5XX)


def test_who_saw_the_request_without_answering_is_said() -> None:
    tries = begin(route((UNKNOWN, None), (LOGS, None), (ZERO, None)))
    first = sent(tries.first())
    assert (first.retention, tries.said) == (UNKNOWN, b"")
    second = sent(tries.after(first, UNREACHABLE, begun=False))
    assert (second.retention, tries.said) == (LOGS, b""), "nothing was sent to the first"
    sent(tries.after(second, status(503), begun=False))
    assert tries.said == b"; tried=logs_30d"


# -- promises ----------------------------------------------------------------------------------------------------------

THREE = ((LOGS, "eu"), (ZERO, "us"), (ZERO, "eu"))


@pytest.mark.parametrize(
    ("zero_only", "region", "permitted"),
    [(False, None, {0, 1, 2}), (True, None, {1, 2}), (False, "eu", {0, 2}), (True, "eu", {2}), (True, "mars", set())],
)
def test_only_the_permitted_are_ever_asked(zero_only: bool, region: str | None, permitted: set[int]) -> None:
    among = route(*THREE)
    asked = set()
    for _ in range(9):
        tries = begin(among, bound(zero_only=zero_only, region=region))
        found = tries.first()
        while isinstance(found, Target):
            asked.add(sent(found).index)
            found.leave(UNREACHABLE)
            found = tries.after(found, UNREACHABLE, begun=False)
    assert asked == permitted


@pytest.mark.parametrize(
    ("zero_only", "region", "code", "words"),
    [
        (True, None, Code.UPSTREAM_RETENTION, ("upstream 0 declares logs", "upstream 1 declares nothing")),
        (False, "eu", Code.UPSTREAM_REGION, ("upstream 0 declares region `us`", "upstream 1 declares no region")),
        (True, "us", Code.UPSTREAM_RETENTION, ("upstream 0 declares logs",)),
    ],
)
def test_nobody_is_permitted(zero_only: bool, region: str | None, code: Code, words: tuple[str, ...]) -> None:
    among = route((LOGS, "us"), (UNKNOWN, None))
    fault = refused(begin(among, bound(zero_only=zero_only, region=region)).first())
    assert (fault.problem.status, fault.problem.code, fault.problem.retry) == (403, code, False)
    assert all(word in fault.problem.message for word in words)
    assert fault.reason is None


def test_only_others_are_healthy() -> None:
    among = route((ZERO, "eu"), (LOGS, "us"))
    tries = begin(among, bound(zero_only=True))
    last = refused(tries.after(sent(tries.first()), UNREACHABLE, begun=False))
    assert (last.problem.status, last.problem.code) == (503, Code.UPSTREAM_UNREACHABLE)
    assert last.problem.headers == {"retry-after": "1"}
    first, second = last.problem.message.split("Available, but not permitted")
    assert "upstream 0 (zero retention, region `eu`)" in first
    assert "upstream 1 (logs for up to 30 days (logs_30d), region `us`)" in second
    assert last.reason is None
    among.targets[1].health.failed(time.monotonic())
    tries = begin(among, bound(zero_only=True))
    assert refused(tries.after(sent(tries.first()), UNREACHABLE, begun=False)) is UNREACHABLE, "they are not either"


def test_a_refusal_that_is_not_about_an_upstream_is_told_as_it_is() -> None:
    unreadable = faults.withdrawn(None)
    assert refused(begin(route(1, 1), lambda _: unreadable).first()).problem is unreadable.problem
