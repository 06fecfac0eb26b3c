"""Whose turn it is, how many at once, and what an engine at its limits does to both."""

import asyncio
import contextlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from keepless.ids import Id, Prefix, mint
from keepless.jobs.gate import Gate, Lane

ORGANIZATIONS = [mint(Prefix.ORGANIZATION) for _ in range(4)]


class FakeLoop(asyncio.SelectorEventLoop):
    """Time by hand; what is due later runs when time comes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.later: list[tuple[float, object]] = []
        self.early = 0.0

    def time(self) -> float:
        return self.now

    def call_at(self, when, callback, *args, context=None):
        self.later.append((when - self.early, lambda: callback(*args)))

    def go(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for when, callback in self.later if when <= self.now]
        self.later = [one for one in self.later if one[0] > self.now]
        for callback in due:
            callback()


class One:
    def __init__(
        self, organization_id: Id, started: list["One"], lane: Lane | None = None, *, batch: int = 0, shard: int = 0
    ) -> None:
        self.organization_id = organization_id
        self.batch_id = Id(f"batch_{batch}")
        self.shard = shard
        self.dropped = False
        self._started = started
        self._lane = lane

    def start(self) -> None:
        self._started.append(self)
        if self._lane is not None:  # refused at once
            self._lane.leave(busy=False)


def lane(most: int) -> tuple[Lane, FakeLoop]:
    loop = FakeLoop()
    with contextlib.closing(loop):
        return Lane(loop, most), loop


def test_organizations_take_turns_whatever_they_have() -> None:
    gate, _ = lane(1)
    started: list[One] = []
    first, second, third, _ = ORGANIZATIONS
    gate.offer([One(first, started) for _ in range(100)])
    gate.offer([One(second, started) for _ in range(10)] + [One(third, started) for _ in range(5)])
    for _ in range(29):
        gate.leave(busy=False)
    turns = Counter(one.organization_id for one in started)
    assert turns == {first: 15, second: 10, third: 5}
    assert Counter(one.organization_id for one in started[1:16]) == {first: 5, second: 5, third: 5}


def test_no_more_than_its_number_is_under_way() -> None:
    gate, _ = lane(3)
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started) for _ in range(10)])
    assert len(started) == gate.running == 3
    gate.leave(busy=False)
    assert len(started) == 4


def test_what_was_dropped_takes_no_turn() -> None:
    gate, _ = lane(1)
    started: list[One] = []
    lines = [One(ORGANIZATIONS[at % 2], started) for at in range(6)]
    gate.offer([lines[0]])
    for line in lines[1:5]:
        line.dropped = True
    gate.offer(lines[1:])
    gate.leave(busy=False)
    assert started == [lines[0], lines[5]]
    gate.leave(busy=False)
    assert gate.running == 0


def test_lines_that_end_at_once_do_not_nest() -> None:
    gate, _ = lane(2)
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started, gate) for _ in range(5000)])
    assert (len(started), gate.running) == (5000, 0)


def test_a_busy_engine_halves_once_a_moment_and_answers_win_it_back() -> None:
    gate, loop = lane(64)
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started) for _ in range(1000)])
    for _ in range(10):  # many meet the same moment
        gate.leave(busy=True)
    assert gate.limit == 32
    assert len(started) == 64  # held back
    loop.go(1.1)
    assert gate.running == 54  # more than it may now: none is begun
    for _ in range(30):
        gate.leave(busy=False)
    assert gate.running == int(gate.limit) == 32
    for _ in range(4000):
        gate.leave(busy=False)
        gate.offer([One(ORGANIZATIONS[0], started)])
    assert gate.limit == 64


def test_an_engine_that_stays_busy_is_asked_more_and_more_seldom() -> None:
    gate, loop = lane(8)
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started) for _ in range(1000)])
    while gate.running:
        gate.leave(busy=True)
    pauses = []
    for _ in range(8):
        began, waited = len(started), 0.0
        while len(started) == began:
            loop.go(0.1)
            waited += 0.1
        pauses.append(waited)
        while gate.running:
            gate.leave(busy=True)
    assert gate.limit == 1
    assert pauses[0] < 3
    assert 14 < pauses[-1] < 31


def test_what_the_engine_asks_for_is_waited_for() -> None:
    gate, loop = lane(1)
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started) for _ in range(3)])
    gate.leave(busy=True, retry_after_s=10)
    loop.go(4.9)
    assert len(started) == 1
    loop.go(5.2)
    assert len(started) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), min_size=1, max_size=8), st.integers(1, 5))
def test_every_line_is_begun_once_and_nobody_waits_while_another_goes_twice(
    offers: list[tuple[int, int]], most: int
) -> None:
    gate, _ = lane(most)
    started: list[One] = []
    lines = [[One(ORGANIZATIONS[who], started) for _ in range(number)] for who, number in offers]
    gate.running = most  # all is offered before one goes
    for some in lines:
        gate.offer(some)
    total = sum(number for _, number in offers)
    for _ in range(total):
        gate.leave(busy=False)
    assert len(started) == len(set(started)) == total
    left = Counter(dict.fromkeys(ORGANIZATIONS, 0))
    for who, number in offers:
        left[ORGANIZATIONS[who]] += number
    waited = Counter[Id]()
    for one in started:
        for who in ORGANIZATIONS:
            waited[who] = 0 if who == one.organization_id or not left[who] else waited[who] + 1
            assert waited[who] <= len(ORGANIZATIONS)
        left[one.organization_id] -= 1


def test_each_model_has_its_lane() -> None:
    loop = FakeLoop()
    with contextlib.closing(loop):
        gate = Gate(loop, {"a": 2, "b": 3})
        lanes = [gate.lane(name) for name in ("a", "b", "c")]
    assert [one and one.most for one in lanes] == [2, 3, None]


def test_what_is_answered_but_not_durable_counts_against_new_lines_once_it_is_late() -> None:
    gate, loop = lane(2)
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started) for _ in range(40)])
    for _ in range(2):
        gate.leave(busy=False, answered=True)
    assert (len(started), gate.running, gate.unrecorded) == (4, 2, 2)
    loop.go(0.2)
    for _ in range(2):
        gate.leave(busy=False, answered=True)
    assert (len(started), gate.running, gate.unrecorded) == (4, 0, 4)  # two have waited for too long
    for _ in range(2):
        gate.recorded()
    assert (len(started), gate.running) == (6, 2)  # the others have not
    for _ in range(100):
        if gate.running:
            gate.leave(busy=False, answered=True)
    assert gate.unrecorded == 17  # however fast the engine is: eight times its number, and what was under way


def test_an_organizations_batches_take_turns_and_a_batchs_first_shard_goes_first() -> None:
    gate, _ = lane(1)
    started: list[One] = []
    who = ORGANIZATIONS[0]
    gate.running = 1
    for shard in (2, 0, 1):
        gate.offer([One(who, started, batch=1, shard=shard) for _ in range(2)])
    gate.offer([One(who, started, batch=2, shard=7) for _ in range(3)])
    for _ in range(9):
        gate.leave(busy=False)
    turns = [(one.batch_id[-1], one.shard) for one in started]
    assert [shard for batch, shard in turns if batch == "1"] == [0, 0, 1, 1, 2, 2]
    assert [batch for batch, _ in turns][:6] == ["1", "2"] * 3


def test_a_hundred_batches_of_ten_organizations_are_served_alike_within_a_fifth() -> None:
    """Offered in the worst order, one organization after another; looked at after every hundred lines."""
    gate, _ = lane(64)
    started: list[One] = []
    owners = [mint(Prefix.ORGANIZATION) for _ in range(10)]
    gate.running = 64
    for owner in owners:
        for batch in range(10):
            gate.offer([One(owner, started, batch=batch, shard=at // 50) for at in range(100)])
    for _ in range(10_000):
        gate.leave(busy=False)
    for done in range(100, 10_001, 100):
        share = Counter(one.organization_id for one in started[:done])
        assert all(abs(share[owner] - done / 10) <= 0.2 * done / 10 for owner in owners)


def test_a_loop_that_calls_a_little_early_leaves_no_line_behind() -> None:
    gate, loop = lane(1)
    loop.early = 0.001
    started: list[One] = []
    gate.offer([One(ORGANIZATIONS[0], started)])
    gate.offer([One(ORGANIZATIONS[0], started)])
    gate.leave(busy=True)
    assert len(started) == 1
    (due,) = [when for when, _ in loop.later]
    loop.go(due - loop.now)
    assert len(started) == 2
