"""Signals of circumvention: each at its threshold, none below it, nothing remembered for longer than an hour."""

import pytest

from keepless.ids import Id, Prefix, mint
from keepless.incidents import abuse
from keepless.incidents.abuse import Detector, Suspicion
from keepless.incidents.states import Signal
from tests.support.log import FixedClock

ORG, OTHER = mint(Prefix.ORGANIZATION), mint(Prefix.ORGANIZATION)
KEYS = [mint(Prefix.API_KEY) for _ in range(6)]
ORIGIN, ELSEWHERE = b"a" * 16, b"b" * 16


class World:
    """A detector with its clock and what it reported."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.found: list[Suspicion] = []
        self.detector = Detector(self.clock, self.found.append)

    def refuse(self, *keys: Id, organization: Id = ORG, origin: bytes | None = ORIGIN) -> None:
        for key in keys:
            self.detector.refused(organization, key, origin)

    def admit(self, *keys: Id, organization: Id = ORG) -> None:
        for key in keys:
            self.detector.admitted(organization, key)

    def wait(self, seconds: float) -> None:
        self.clock.ms += int(seconds * 1000)

    @property
    def signals(self) -> list[Signal]:
        return [each.signal for each in self.found]


@pytest.fixture
def world() -> World:
    return World()


def test_many_keys_of_one_organization_from_one_origin(world: World) -> None:
    world.refuse(*KEYS[:3] * 3)
    assert world.found == []
    world.refuse(KEYS[0])
    assert world.found == [Suspicion(ORG, Signal.MANY_KEYS, frozenset(KEYS[:3]), abuse.REFUSALS)]


def test_the_same_is_not_said_twice_but_a_new_key_is(world: World) -> None:
    world.refuse(*KEYS[:3] * 6)
    assert len(world.found) == 1
    world.refuse(KEYS[3])
    assert [len(each.key_ids) for each in world.found] == [3, 4]


def test_many_organizations_from_one_origin_one_suspicion_each_with_its_own_keys(world: World) -> None:
    world.refuse(*KEYS[:1] * 5)
    world.refuse(*KEYS[1:2] * 5, organization=OTHER)
    assert {(each.organization_id, each.signal, each.key_ids) for each in world.found} == {
        (ORG, Signal.MANY_ORGANIZATIONS, frozenset(KEYS[:1])),
        (OTHER, Signal.MANY_ORGANIZATIONS, frozenset(KEYS[1:2])),
    }


NOTHING = {
    "one busy key": lambda w: w.refuse(*KEYS[:1] * 50),
    "two keys": lambda w: w.refuse(*KEYS[:2] * 50),
    "few refusals": lambda w: w.refuse(*KEYS[:3] * 3),
    "no origin": lambda w: w.refuse(*KEYS[:3] * 50, origin=None),
    "different origins": lambda w: (w.refuse(*KEYS[:2] * 20), w.refuse(*KEYS[2:4] * 20, origin=ELSEWHERE)),
    "too slow": lambda w: [(w.refuse(KEYS[i % 3]), w.wait(abuse.WINDOW_S / 8)) for i in range(40)],
    "uses without refusals": lambda w: w.admit(*KEYS * 50),
}


@pytest.mark.parametrize("case", NOTHING)
def test_what_honest_clients_do_is_not_suspect(world: World, case: str) -> None:
    NOTHING[case](world)
    assert world.found == []


def test_keys_that_follow_each_other_through_refusals(world: World) -> None:
    for at in range(4):
        world.admit(KEYS[at])
        world.refuse(KEYS[at], origin=None)
        world.wait(5)
    assert world.found == [Suspicion(ORG, Signal.KEY_ROTATION, frozenset(KEYS[:4]), 3)]


NO_ROTATION = {
    "keys that were in use before": lambda w: (
        w.refuse(KEYS[0], origin=None),
        w.refuse(*KEYS, origin=None),
        [(w.refuse(KEYS[0], origin=None), w.admit(KEYS[i])) for i in range(6)],
    ),
    "long after the refusal": lambda w: [
        (w.refuse(KEYS[0], origin=None), w.wait(abuse.ROTATION_S + 1), w.admit(KEYS[i])) for i in range(6)
    ],
    "one key that goes on": lambda w: [(w.refuse(KEYS[0], origin=None), w.admit(KEYS[0])) for _ in range(20)],
    "another organization's keys": lambda w: [
        (w.refuse(KEYS[0], origin=None), w.admit(KEYS[i], organization=OTHER)) for i in range(6)
    ],
    "over more than an hour": lambda w: [
        (w.refuse(KEYS[i], origin=None), w.admit(KEYS[i + 1]), w.wait(abuse.REST_S / 2 + 1)) for i in range(5)
    ],
}


@pytest.mark.parametrize("case", NO_ROTATION)
def test_what_is_no_rotation(world: World, case: str) -> None:
    NO_ROTATION[case](world)
    assert Signal.KEY_ROTATION not in world.signals


def sizes(detector: Detector) -> list[int]:
    return [len(detector._origins), len(detector._chains), len(detector._used), len(detector._reported)]


def test_nothing_is_remembered_for_longer_than_an_hour(world: World) -> None:
    world.refuse(*KEYS[:3] * 6)
    world.detector.forget()
    assert all(sizes(world.detector))
    world.wait(abuse.REST_S + 1)
    world.detector.forget()
    assert sizes(world.detector) == [0, 0, 0, 0]


def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abuse, "_MOST", 100)
    for at in range(1000):
        key, organization = Id(f"key_{at}"), Id(f"org_{at}")
        for other in range(3):
            world.refuse(*[Id(f"{key}{other}")] * 4, organization=organization, origin=b"%d" % at)
            world.admit(key, organization=organization)
    assert max(sizes(world.detector)) <= 4 * 100
