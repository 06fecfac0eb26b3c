"""The fence under load: after a toggle has answered, nothing older is committed, routed or accepted (DECISIONS 1).

Several leases stand for several processes; one of them loses the database again and again, so that its lease ends by
time and not by acknowledgement. Threads use keys, route and capture as fast as they can while others toggle ZDR and
create and revoke keys. The oracle is in tests/support/fence.py.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from keepless.accounts.fence import Fence
from keepless.accounts.lease import Lease
from keepless.accounts.principal import Limits, OrganizationState, Principal, ProjectState
from keepless.accounts.store import policy_in_force
from keepless.clock import SystemClock
from keepless.config import Endpoint, Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.content import Content
from keepless.db import Database
from keepless.errors import Problem
from keepless.governance.access import Access
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint
from keepless.inference import faults
from keepless.inference.asking import Ask
from keepless.inference.backend import Failure, FailureKind
from keepless.inference.permission import refusal
from keepless.inference.router import Route
from keepless.inference.target import Target
from keepless.inference.tries import Tries
from keepless.policy.controls import NO_REQUEST, Controls, effective
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.vault.blobs import MemoryBlobs
from keepless.vault.errors import StaleEpochError
from keepless.vault.tables import kept
from tests.support.fence import Act, Closed, judge
from tests.support.governed import Deployment, FlakyDatabase, deploy, digest
from tests.support.vault import Rig, make_rig
from tests.support.way import FakeBackend

SECONDS = 4.0  # at least; a busy machine takes longer to have seen enough
PATIENCE = 90.0
PAUSE = 0.0005  # so that those who toggle get their turn
POLICY = "policy"
UNREACHABLE = faults.of_failure(Failure(FailureKind.UNREACHABLE))
PAIR = ModelConfig(
    id="pair",
    engine=Engine.OPENAI,
    upstreams=[
        UpstreamConfig(base_url="http://x", retention=retention)
        for retention in (UpstreamRetention.LOGS_30D, UpstreamRetention.ZERO)
    ],
)


def to_one_that_keeps(lease: Lease, asked: Ask, target: Target) -> bool:
    """Whether a request is sent to an upstream that keeps logs."""
    return refusal(lease, asked, target) is None and target.retention is not UpstreamRetention.ZERO


class World:
    """The threads, what they saw, and when things were closed."""

    def __init__(self, here: Deployment, rig: Rig, leases: list[Lease], flaky: FlakyDatabase) -> None:
        self.here, self.rig, self.leases, self.flaky = here, rig, leases, flaky
        self.closed = Closed()
        self.acts: list[Act] = []
        self.keys: dict[str, bytes] = {}
        self.failures: list[BaseException] = []
        self.commits_while_closed = self.toggles = self.revocations = self.stale = self.commits = 0
        self.stop = threading.Event()
        fence = Fence(here.database, here.clock, lambda: [lease.refresh_soon() for lease in leases])
        office = Office(here.database, here.clock, fence, here.log)
        self.controls, self.access = DataControls(office), Access(office)

    def run(self, *workers: Callable[[random.Random], None]) -> None:
        def forever(worker: Callable[[random.Random], None], dice: random.Random) -> None:
            try:
                while not self.stop.is_set():
                    worker(dice)
            except BaseException as error:
                self.failures.append(error)
                self.stop.set()

        threads = [
            threading.Thread(target=forever, args=(worker, random.Random(number)))
            for number, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while not self.stop.wait(SECONDS) and not self.has_seen_enough() and time.monotonic() - began < PATIENCE:
            pass
        self.stop.set()
        for thread in threads:
            thread.join()

    def has_seen_enough(self) -> bool:
        """It was a test: both answers of each act, many of them, and writes that came too late."""
        judged = judge(list(self.acts), self.closed).judged
        kinds = [(kind, side) for kind in ("accept", "route") for side in ("open", "judged")] + [("commit", "judged")]
        turns = self.toggles >= 3 and self.revocations >= 3 and self.commits > 0
        return turns and len(self.acts) > 3000 and all(judged[kind] > 0 for kind in kinds)

    def act(self, kind: str, subject: str, look: Callable[[], bool]) -> None:
        began = time.monotonic()
        found_open = look()
        self.acts.append(Act(began, time.monotonic(), kind, subject, found_open))

    # --- what serving processes do -----------------------------------------------------------------------------------

    def use_key(self, dice: random.Random) -> None:
        lease, subject = dice.choice(self.leases), dice.choice(list(self.keys) or ["none"])
        key = self.keys.get(subject, b"?" * 32)

        def accepted() -> bool:
            with contextlib.suppress(Problem):
                return lease.principal(key) is not None
            return False

        self.act("accept", subject, accepted)
        time.sleep(PAUSE)

    def route(self, dice: random.Random) -> None:
        """A request to a model of two upstreams, of which one keeps logs and all fail: each try is a route.

        Between the choice and the sending it may wait for a connection, so who sends asks again (`Call.permitted`).
        """
        lease, asked = dice.choice(self.leases), self.ask()
        tries = Tries(asked.route, partial(refusal, lease, asked), asked.began)
        found = tries.first()
        while isinstance(found, Target):
            target = found
            if dice.random() < 0.1:
                time.sleep(dice.random() * 1.5)

            self.act("route", POLICY, partial(to_one_that_keeps, lease, asked, target))
            found = tries.after(target, UNREACHABLE, begun=False)
        time.sleep(PAUSE)

    def ask(self) -> Ask:
        """An ordinary request, as it stands when it has been checked."""
        effective_now = effective(Controls())
        principal = Principal(
            mint(Prefix.API_KEY),
            OrganizationState(self.here.organization_id, 0, Controls(), Limits(), None),
            ProjectState(self.here.project_id, Controls(), effective_now, Limits()),
        )
        return Ask(
            request_id=mint(Prefix.REQUEST),
            endpoint=Endpoint.CHAT,
            principal=principal,
            route=Route(PAIR, FakeBackend(), FakeBackend()),
            path="/chat/completions",
            body=Content(b"{}"),
            received=Content(b"{}"),
            stream=False,
            controls=NO_REQUEST,
            bytes_in=2,
            began=time.perf_counter_ns(),
        )

    def capture(self, dice: random.Random) -> None:
        """Decide under what the process knows (or, now and then, under what it knew long ago), then put."""
        lease = dice.choice(self.leases)
        policy = lease.snapshot_effective(self.here.organization_id, self.here.project_id)
        if dice.random() < 0.5:
            time.sleep(dice.random() * 1.5)  # a request that takes its time between the decision and the write
        decision = decide(
            Query(
                organization_id=self.here.organization_id,
                project_id=self.here.project_id,
                data_class=DataClass.RELIABILITY_LOG,
                trigger=Trigger.RELIABILITY_ERROR,
                reason=Reason.ENGINE_CRASH,
                effective=policy.effective if policy else None,
                epoch=policy.epoch if policy else 0,
                created_at_ms=self.here.clock.now_ms(),
            )
        )
        began = time.monotonic()
        committed = False
        if isinstance(decision, Retain):
            try:
                self.rig.vault.put(Content(b"content"), decision)
                committed = True
                self.commits += 1
            except StaleEpochError:
                self.stale += 1
        self.acts.append(Act(began, time.monotonic(), "commit", POLICY, committed))

    # --- what owners do ----------------------------------------------------------------------------------------------

    def toggle(self, dice: random.Random) -> None:
        own, owner = self.here.organization_id, self.here.owner
        state = self.controls.change(own, Patch(zero_data_retention=True, purge=False), owner)
        self.closed.close(POLICY, time.monotonic())
        before = self.committed(state["epoch"])
        time.sleep(dice.random() * 0.3)
        self.commits_while_closed += len(self.committed(state["epoch"]) - before)
        self.closed.open(POLICY, time.monotonic())
        self.controls.change(own, Patch(zero_data_retention=False), owner)
        self.toggles += 1
        time.sleep(dice.random() * 0.1)

    def committed(self, epoch: int) -> set[Id]:
        with self.here.database.read() as tx:
            policy = policy_in_force(tx, self.here.organization_id, self.here.project_id)
            assert policy is not None and policy.epoch == epoch and policy.effective.zero_data_retention
            return set(tx.execute(sa.select(kept.c.id)).scalars())

    def turn_over_a_key(self, dice: random.Random) -> None:
        own, owner = self.here.organization_id, self.here.owner
        created = self.access.create_api_key(owner, own, self.here.project_id, name="Short")
        subject, key = created.record.id, digest(created.secret)
        for lease in self.leases:  # usable at once; who cannot know says so, and nobody says "no such key"
            with contextlib.suppress(Problem):
                assert lease.principal(key) is not None
        self.keys[subject] = key
        time.sleep(dice.random() * 0.05)
        self.access.revoke_api_key(owner, own, subject)
        self.closed.close(subject, time.monotonic())
        self.revocations += 1
        if len(self.keys) > 8:
            del self.keys[next(iter(self.keys))]

    def lose_the_database(self, dice: random.Random) -> None:
        time.sleep(dice.random() * 2)
        self.flaky.down = True
        time.sleep(dice.random() * 1.6)
        self.flaky.down = False


def test_nothing_older_after_a_toggle_has_answered(database: Database, tmp_path: Path) -> None:
    here = deploy(database)
    flaky = FlakyDatabase(database.engine.url.render_as_string(hide_password=False))
    leases = [Lease(database, SystemClock()) for _ in range(3)] + [Lease(flaky, SystemClock())]
    for lease in leases:
        lease.start()
    rig = make_rig(database, tmp_path, store=MemoryBlobs())
    world = World(here, rig, leases, flaky)
    world.run(
        *(world.use_key, world.use_key, world.route, *[world.capture] * 8),
        *(world.toggle, world.turn_over_a_key, world.lose_the_database),
    )
    flaky.down = False
    for lease in leases:
        lease.stop()
    flaky.close()
    verdict = judge(world.acts, world.closed)
    assert world.failures == []
    assert verdict.violations == []
    assert world.commits_while_closed == 0
    assert world.has_seen_enough(), verdict.judged


def test_the_oracle_sees_what_it_should() -> None:
    closed = Closed()
    closed.close("a", 10.0)
    closed.open("a", 20.0)
    closed.close("a", 30.0)
    cases = [
        (Act(1.0, 9.0, "accept", "a", True), False),  # before
        (Act(9.0, 11.0, "accept", "a", True), False),  # overlaps the answer: either is right
        (Act(11.0, 12.0, "accept", "a", True), True),
        (Act(11.0, 12.0, "accept", "a", False), False),
        (Act(19.0, 21.0, "accept", "a", True), False),
        (Act(21.0, 29.0, "accept", "a", True), False),
        (Act(31.0, 99.0, "accept", "a", True), True),
        (Act(31.0, 99.0, "accept", "b", True), False),
    ]
    for act, wrong in cases:
        assert (judge([act], closed).violations == [act]) is wrong, act
