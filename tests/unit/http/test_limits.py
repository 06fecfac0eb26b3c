"""Rate limits: the tighter counts, over all processes; Groq's headers and words."""

import os
from dataclasses import replace

import pytest

from keepless.accounts.principal import Limits, OrganizationState, Principal, ProjectState
from keepless.clock import DAY_MS
from keepless.errors import Code, ErrorType, Problem
from keepless.http.limits import Grant, RateLimits, go_duration
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import Controls, effective
from tests.support.clock import FakeClock

NOBODY = Controls()
UNSET = Limits()


def caller(organization: Limits = UNSET, project: Limits = UNSET) -> Principal:
    return Principal(
        mint(Prefix.API_KEY),
        OrganizationState(mint(Prefix.ORGANIZATION), 1, NOBODY, organization, None),
        ProjectState(mint(Prefix.PROJECT), NOBODY, effective(NOBODY), project),
    )


def admitted(limits: RateLimits, who: Principal, tokens: int = 0) -> Grant:
    grant = limits.admit(who, "m", tokens)
    assert grant is not None
    return grant


def refused(limits: RateLimits, who: Principal, tokens: int = 0) -> Problem:
    with pytest.raises(Problem) as caught:
        limits.admit(who, "m", tokens)
    assert caught.value.code is Code.RATE_LIMIT
    return caught.value


def test_nothing_set_is_nothing_counted() -> None:
    limits = RateLimits(FakeClock())
    assert limits.admit(caller(), "m", 10**9) is None
    assert bytes(limits._memory) == bytes(len(limits._memory))


def test_requests_a_minute_come_back_evenly() -> None:
    clock = FakeClock()
    limits, who = RateLimits(clock), caller(Limits(requests_per_minute=3))
    for _ in range(3):
        admitted(limits, who)
    problem = refused(limits, who)
    assert (problem.status, problem.type) == (429, ErrorType.REQUESTS)
    assert problem.headers["retry-after"] == "20"
    assert problem.message == (
        f"Rate limit reached for model `m` in organization `{who.organization.id}` service tier `on_demand` on "
        "requests per minute (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."
    )
    clock.advance_ms(19_900)
    refused(limits, who)
    clock.advance_ms(100)
    admitted(limits, who)
    refused(limits, who)
    clock.advance_ms(3_600_000)
    for _ in range(3):
        admitted(limits, who)
    refused(limits, who)


@pytest.mark.parametrize("alone", [True, False])
def test_limits_that_are_lowered_let_nobody_wait_longer_than_their_minute(alone: bool) -> None:
    clock = FakeClock()
    limits, who = RateLimits(clock, alone=alone), caller(Limits(requests_per_minute=1000, tokens_per_minute=100_000))
    for _ in range(800):
        admitted(limits, who, 100)
    lowered = replace(who.organization, limits=Limits(requests_per_minute=2, tokens_per_minute=200))
    who = Principal(who.key_id, lowered, who.project)
    problem = refused(limits, who, 100)
    assert problem.headers["retry-after"] == "30"
    clock.advance_ms(30_000)
    admitted(limits, who, 100)
    refused(limits, who, 100)
    limits.settle(Grant(0, [], b""), 0)
    assert "Used 2," in refused(limits, who, 1).message


def test_requests_a_day_end_with_the_day() -> None:
    clock = FakeClock(DAY_MS * 20_000 + DAY_MS - 90_500)
    limits, who = RateLimits(clock), caller(Limits(requests_per_day=2))
    headers = admitted(limits, who).headers
    assert b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 1\r\n" in headers
    assert b"x-ratelimit-reset-requests: 1m30.5s\r\n" in headers
    admitted(limits, who)
    problem = refused(limits, who)
    assert problem.headers["retry-after"] == "91"
    assert "requests per day (RPD): Limit 2, Used 2, Requested 1. Please try again in 1m30.5s." in problem.message
    clock.advance_ms(90_500)
    admitted(limits, who)


def test_tokens_are_charged_by_estimate_and_then_by_usage() -> None:
    clock = FakeClock()
    limits, who = RateLimits(clock), caller(Limits(tokens_per_minute=600))
    grant = admitted(limits, who, 500)
    assert b"x-ratelimit-remaining-tokens: 100\r\nx-ratelimit-reset-tokens: 50s\r\n" in grant.headers
    problem = refused(limits, who, 120)
    assert (problem.status, problem.type) == (429, ErrorType.TOKENS)
    assert "tokens per minute (TPM): Limit 600, Used 500, Requested 120. Please try again in 2s." in problem.message
    limits.settle(grant, 30)
    again = admitted(limits, who, 120)
    assert b"remaining-tokens: 450\r\n" in again.headers
    limits.settle(again, 570)
    assert refused(limits, who, 1).headers["retry-after"] == "1"


def test_settling_never_gives_more_than_was_taken() -> None:
    limits, who = RateLimits(FakeClock()), caller(Limits(tokens_per_minute=10))
    grant = admitted(limits, who, 10)
    limits.settle(grant, 0)
    limits.settle(grant, 0)
    admitted(limits, who, 10)
    refused(limits, who, 1)


def test_a_request_that_can_never_fit_is_413() -> None:
    limits, who = RateLimits(FakeClock()), caller(Limits(tokens_per_minute=100))
    problem = refused(limits, who, 101)
    assert (problem.status, problem.type) == (413, ErrorType.TOKENS)
    assert "Limit 100, Requested 101, please reduce your message size" in problem.message
    assert "retry-after" not in problem.headers
    admitted(limits, who, 100)


@pytest.mark.parametrize(("organization", "project"), [(2, 5), (5, 2), (None, 2), (2, None)])
def test_the_tighter_counts(organization: int | None, project: int | None) -> None:
    limits = RateLimits(FakeClock())
    who = caller(Limits(requests_per_minute=organization), Limits(requests_per_minute=project))
    assert b"x-ratelimit-limit-requests: 2\r\n" in admitted(limits, who).headers
    admitted(limits, who)
    assert "Limit 2, Used 2" in refused(limits, who).message


def test_one_model_has_limits_of_its_own_beside_the_projects() -> None:
    limits = RateLimits(FakeClock())
    who = caller(project=Limits(requests_per_minute=4))
    who = replace(who, project=replace(who.project, model_limits={"m": Limits(requests_per_minute=2)}))
    for _ in range(2):
        admitted(limits, who)
    assert "model `m`" in refused(limits, who).message
    for _ in range(2):
        assert limits.admit(who, "other", 0) is not None  # what was refused is charged to nobody
    with pytest.raises(Problem):
        limits.admit(who, "other", 0)
    alone = replace(caller(), project=replace(caller().project, model_limits={"m": Limits(tokens_per_minute=10)}))
    assert limits.admit(alone, "other", 10**6) is None
    grant = admitted(limits, alone, 10)
    limits.settle(grant, 4)
    admitted(limits, alone, 6)
    refused(limits, alone, 1)


def test_what_a_model_was_asked_today_is_counted_from_the_start() -> None:
    limits, who = RateLimits(FakeClock()), caller()
    who = replace(who, project=replace(who.project, model_limits={"m": Limits(requests_per_day=3)}))
    limits.seed({Id(f"{who.project.id}/m"): 2})
    admitted(limits, who)
    refused(limits, who)


def test_a_refused_request_is_charged_to_nobody() -> None:
    limits = RateLimits(FakeClock())
    owner = Limits(requests_per_minute=3)
    small = caller(owner, Limits(requests_per_minute=1))
    sibling = replace(caller(), organization=small.organization)
    admitted(limits, small)
    for _ in range(10):
        refused(limits, small)
    admitted(limits, sibling)
    admitted(limits, sibling)
    refused(limits, sibling)


def test_organizations_do_not_count_for_each_other() -> None:
    limits = RateLimits(FakeClock())
    callers = [caller(Limits(requests_per_minute=1)) for _ in range(500)]
    for who in callers:
        admitted(limits, who)
    for who in callers:
        refused(limits, who)


def test_the_day_is_seeded_from_the_ledger() -> None:
    limits = RateLimits(FakeClock())
    who = caller(Limits(requests_per_day=10), Limits(requests_per_day=100))
    limits.seed({who.organization.id: 9, who.project.id: 9})
    admitted(limits, who)
    assert "Limit 10, Used 10" in refused(limits, who).message


def test_the_sum_of_all_processes_counts() -> None:
    clock = FakeClock()
    limits, who = RateLimits(clock), caller(Limits(requests_per_minute=40), Limits(requests_per_day=1000))
    report, tell = os.pipe()
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            count = 0
            try:
                own = RateLimits(clock, limits.fd)
                for _ in range(30):
                    try:
                        own.admit(who, "m", 0)
                        count += 1
                    except Problem:
                        pass
            finally:
                os.write(tell, bytes([count]))
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    counts = os.read(report, 100)
    os.close(report)
    os.close(tell)
    assert len(counts) == 4
    assert sum(counts) == 40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.31, "310ms"), (1, "1s"), (7.66, "7.66s"), (86.4, "1m26.4s"), (179.56, "2m59.56s"), (3723, "1h2m3s")],
)
def test_go_durations(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_a_process_that_serves_alone_counts_what_several_would_count() -> None:
    clock = FakeClock()
    seeded = RateLimits(clock)
    who = caller(
        Limits(requests_per_minute=7, tokens_per_minute=900), Limits(requests_per_day=40, tokens_per_minute=500)
    )
    seeded.seed({who.project.id: 3})
    shared, alone = RateLimits(clock), RateLimits(clock, seeded.fd, alone=True)
    shared.seed({who.project.id: 3})
    refusals = 0
    for step in range(60):
        clock.advance_ms(step * 137)
        said: list[bytes | str] = []
        for limits in (shared, alone):
            try:
                grant = admitted(limits, who, 30 + step)
            except Problem as problem:
                said.append(problem.message)
                refusals += 1
            else:
                limits.settle(grant, 2 * step)
                said.append(grant.headers)
        assert said[0] == said[1], step
    assert 0 < refusals < 120
