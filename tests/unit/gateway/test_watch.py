"""What the detector of abuse is told of rate limits."""

import asyncio
from dataclasses import replace

import pytest

from keepless.accounts.principal import Limits
from keepless.gateway import watch as module
from keepless.gateway.parser import Request
from keepless.gateway.watch import Watch
from keepless.ids import Prefix, mint
from keepless.incidents.abuse import KEYS, REFUSALS, Detector, Suspicion
from keepless.incidents.origin import Origins
from keepless.incidents.states import Signal
from tests.support.clock import FakeClock
from tests.support.way import API_KEY, ORGANIZATION, FakeLease, Harness, answer

CLIENT = [(b"x-forwarded-for", b"8.8.8.8")]


def test_refusals_from_one_origin_with_many_keys_are_a_suspicion() -> None:
    found: list[Suspicion] = []
    clock = FakeClock()
    watch = Watch(Detector(clock, found.append), Origins(["127.0.0.1"], clock))
    keys = [mint(Prefix.API_KEY) for _ in range(KEYS)]
    principal = FakeLease().known
    assert principal is not None
    for number in range(REFUSALS):
        one = replace(principal, key_id=keys[number % KEYS])
        request = Request(b"POST", b"/", b"", CLIENT, 1)
        request.peer = "127.0.0.1"
        watch.refused(one, request)
    assert [(s.signal, s.organization_id, len(s.key_ids)) for s in found] == [(Signal.MANY_KEYS, ORGANIZATION, KEYS)]


def test_the_address_that_the_proxy_added_counts_not_the_one_that_the_client_made_up() -> None:
    told: list[bytes | None] = []

    class Recording(Detector):
        def refused(self, organization_id: str, key_id: str, origin: bytes | None) -> None:
            told.append(origin)

    clock = FakeClock()
    watch = Watch(Recording(clock, lambda _: None), Origins(["127.0.0.1"], clock))
    principal = FakeLease().known
    assert principal is not None
    made_up, real = (b"x-forwarded-for", b"9.9.9.9"), (b"x-forwarded-for", b"8.8.8.8")
    for headers in ([real], [made_up, real], [(b"x-forwarded-for", b"9.9.9.9, 8.8.8.8")], [made_up]):
        request = Request(b"POST", b"/", b"", headers, 1)
        request.fields = dict(reversed(headers))
        request.peer = "127.0.0.1"
        watch.refused(principal, request)
    assert told[0] == told[1] == told[2] != told[3]
    assert None not in told


def test_the_request_path_tells_of_refusals_and_admissions() -> None:
    class Recording(Detector):
        def refused(self, *what: object) -> None:
            told.append(("refused", *what))

        def admitted(self, *what: object) -> None:
            told.append(("admitted", *what))

    told: list[tuple[object, ...]] = []

    async def main() -> None:
        harness = Harness(*answer())
        harness.handler.watch = Watch(Recording(harness.clock, lambda _: None), Origins([], harness.clock))
        harness.lease.set(limits=Limits(requests_per_minute=1))
        await harness.ask()
        await harness.ask()
        harness.lease.set(limits=Limits(tokens_per_minute=1))
        await harness.ask()  # 413 is no refusal that waiting would mend
        harness.close()

    asyncio.run(main())
    assert told == [("admitted", ORGANIZATION, API_KEY), ("refused", ORGANIZATION, API_KEY, None)]


def test_what_is_old_is_forgotten_by_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET_S", 0.001)

    async def main() -> None:
        twice = asyncio.Event()

        class Counting(Detector):
            times = 0

            def forget(self) -> None:
                self.times += 1
                if self.times == 2:
                    twice.set()

        watch = Watch(Counting(FakeClock(), lambda _: None), Origins([], FakeClock()))
        watch.start(asyncio.get_running_loop())
        await asyncio.wait_for(twice.wait(), 10)
        watch.stop()

    asyncio.run(main())
