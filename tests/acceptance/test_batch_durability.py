"""`kill -9` of workers, machines that never come back, two workers on one batch: each line once, hardly any paid twice.

Workers are forked from a program that has imported everything. What may be asked again after a kill is what was under
way or in the group that was being written: at most twice the concurrency here, for an answer takes longer than a group.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.batches.tables import batch_journal
from keepless.batches.values import BatchState
from keepless.ids import Id
from keepless.jobs.tables import job_worker
from keepless.policy.data_class import DataClass
from tests.support.batch_worker import Nursery
from tests.support.batching import Floor, lines
from tests.support.postgres import Cluster
from tests.support.upstream import MockUpstream

AT_ONCE = 16


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=0.1) as mock:
        yield mock


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def models(upstream: MockUpstream) -> list[dict[str, Any]]:
    upstream.received.clear()
    model = {"id": "slow-head", "engine": "openai", "base_url": upstream.base_url, "retention": "zero"}
    return [{**model, "batch_concurrency": AT_ONCE}]


@pytest.fixture
def floor(tmp_path: Path, models: list[dict[str, Any]], nursery: Nursery) -> Iterator[Floor]:
    """On SQLite and local files."""
    made = Floor(tmp_path, models, nursery=nursery)
    yield made
    made.close()


@pytest.fixture
def shared(tmp_path: Path, models: list[dict[str, Any]], nursery: Nursery, postgres: Cluster) -> Iterator[Floor]:
    """On PostgreSQL."""
    with postgres.database() as url:
        made = Floor(tmp_path, models, url, nursery=nursery)
        yield made
        made.close()


def asked(upstream: MockUpstream) -> int:
    return len(upstream.received)


def test_killed_at_any_time_every_line_is_delivered_once_and_hardly_any_paid_twice(
    floor: Floor, upstream: MockUpstream
) -> None:
    """Three times, and the last time the job store is lost with its worker: the tables of batches know all."""
    chance = random.Random(1)
    number, kills = 400, 0
    batch_id = floor.batch(lines(number, "slow-head"))
    while kills < 3:
        with floor.worker() as worker:
            until_it_runs(floor, upstream, batch_id)
            time.sleep(chance.uniform(0.0, 0.4))
            worker.kill()
            kills += 1
    for path in (floor.folder / "data").glob("jobs.sqlite*"):
        path.unlink()
    with floor.worker():
        floor.ended(batch_id)
        floor.until(lambda: named(floor) == 0)
    assert floor.kept(DataClass.BATCH_WORK) == 0
    assert floor.see(batch_id).state is BatchState.COMPLETED
    floor.assert_each_once(batch_id, number)
    assert number <= asked(upstream) <= number + kills * 2 * AT_ONCE


def named(floor: Floor) -> int:
    """Journals that are work of a batch."""
    with floor.deployment.db.read() as tx:
        return int(tx.scalar(sa.select(sa.func.count()).select_from(batch_journal)) or 0)


def until_it_runs(floor: Floor, upstream: MockUpstream, batch_id: Id) -> None:
    before = asked(upstream)
    floor.until(lambda: asked(upstream) > before or floor.see(batch_id).ended_at is not None)


def test_killed_while_it_begins_or_ends_it_goes_on(shared: Floor) -> None:
    """At every stage: before, during and after validation, and while the results are made."""
    chance = random.Random(2)
    batch_id = shared.batch(lines(40, "slow-head"))
    for _ in range(3):
        with shared.worker() as worker:
            shared.until(lambda worker=worker: "jobs:process:started" in worker.log)
            time.sleep(chance.uniform(0.0, 0.6))
            worker.kill()
    with shared.worker():
        assert shared.ended(batch_id).state is BatchState.COMPLETED
        shared.assert_each_once(batch_id, 40)
        shared.until(lambda: named(shared) == 0)
    assert shared.kept(DataClass.BATCH_WORK) == 0
    assert shared.kept(DataClass.BATCH_OUTPUT) == 1


def test_a_worker_that_is_told_to_end_records_what_is_under_way_and_asks_nothing_twice(
    floor: Floor, upstream: MockUpstream
) -> None:
    batch_id = floor.batch(lines(300, "slow-head"))
    with floor.worker() as worker:
        floor.until(lambda: asked(upstream) >= AT_ONCE)
        worker.end()
        assert worker.returned == 0
    with floor.worker():
        floor.ended(batch_id)
    floor.assert_each_once(batch_id, 300)
    assert asked(upstream) == 300


def test_two_workers_share_a_batch_and_one_goes_on_when_the_others_machine_dies(
    shared: Floor, upstream: MockUpstream
) -> None:
    """Both are there before the batch: a batch of seconds is over before a late one has begun."""
    number = 800
    with shared.worker() as first, shared.worker() as second:
        shared.until(lambda: all("jobs:process:started" in worker.log for worker in (first, second)))
        assert on_roll(shared) == 2
        batch_id = shared.batch(lines(number, "slow-head"))
        shared.until(lambda: len(attempted(shared)) == 2)
        with shared.deployment.db.write() as tx:
            dead = tx.execute(sa.select(job_worker.c.id).where(job_worker.c.pid == first.pid)).scalar_one()
            tx.execute(job_worker.update().where(job_worker.c.id == dead).values(host="a machine that is gone"))
        first.kill()
        killed = time.monotonic()
        shared.until(lambda: on_roll(shared) == 1)
        assert time.monotonic() - killed < 30
        shared.ended(batch_id)
    shared.assert_each_once(batch_id, number)
    assert asked(upstream) <= number + 2 * AT_ONCE


def attempted(floor: Floor) -> set[str]:
    """The workers that run shards now, as the job store says."""
    query = sa.text(
        "SELECT DISTINCT executor_id FROM keepless_jobs.workflow_status "
        "WHERE status = 'PENDING' AND workflow_uuid LIKE '%.s%'"
    )
    with floor.deployment.db.read() as tx:
        return set(tx.execute(query).scalars())


def on_roll(floor: Floor) -> int:
    with floor.deployment.db.read() as tx:
        return int(tx.scalar(sa.select(sa.func.count()).select_from(job_worker)) or 0)
