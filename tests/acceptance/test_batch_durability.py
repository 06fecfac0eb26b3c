"""`kill -9` of workers, machines that never come back, two workers on one batch: each line once, hardly any paid twice.

What may be asked again after a kill is what was under way or in the group that was being written: at most twice the
concurrency here, because an answer takes longer than a group.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.batches.values import BatchState
from keepless.ids import Id
from keepless.jobs.tables import job_worker
from keepless.policy.data_class import DataClass
from tests.support.batching import Floor, lines
from tests.support.postgres import Cluster
from tests.support.upstream import MockUpstream

AT_ONCE = 16


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=0.1) as mock:
        yield mock


BOTH, SQLITE, POSTGRES = (pytest.mark.parametrize("floor", kinds, indirect=True)
                          for kinds in (["sqlite", "postgres"], ["sqlite"], ["postgres"]))  # fmt: skip


@pytest.fixture
def floor(request: pytest.FixtureRequest, tmp_path: Path, upstream: MockUpstream) -> Iterator[Floor]:
    model = {"id": "slow-head", "engine": "openai", "base_url": upstream.base_url, "retention": "zero"}
    models = [{**model, "batch_concurrency": AT_ONCE}]
    upstream.received.clear()
    if request.param == "sqlite":
        made = Floor(tmp_path, models)
        yield made
        made.close()
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url:
        made = Floor(tmp_path, models, url)
        yield made
        made.close()


def asked(upstream: MockUpstream) -> int:
    return len(upstream.received)


@BOTH
def test_killed_at_any_time_every_line_is_delivered_once_and_hardly_any_paid_twice(
    floor: Floor, upstream: MockUpstream
) -> None:
    chance = random.Random(1)
    number, kills = 300, 0
    batch_id = floor.batch(lines(number, "slow-head"))
    while True:
        with floor.worker() as worker:
            until_it_runs(floor, upstream, batch_id)
            if kills == 3 or floor.see(batch_id).ended_at is not None:
                floor.ended(batch_id)
                floor.until(lambda: floor.kept(DataClass.BATCH_WORK) == 0)
                break
            time.sleep(chance.uniform(0.0, 0.8))
            worker.kill()
            kills += 1
    assert kills == 3
    assert floor.see(batch_id).state is BatchState.COMPLETED
    floor.assert_each_once(batch_id, number)
    assert number <= asked(upstream) <= number + kills * 2 * AT_ONCE


def until_it_runs(floor: Floor, upstream: MockUpstream, batch_id: Id) -> None:
    before = asked(upstream)
    floor.until(lambda: asked(upstream) > before or floor.see(batch_id).ended_at is not None)


@POSTGRES
def test_killed_while_it_begins_or_ends_it_goes_on(floor: Floor) -> None:
    """At every stage: before, during and after validation, and while the results are made."""
    chance = random.Random(2)
    batch_id = floor.batch(lines(40, "slow-head"))
    for _ in range(3):
        with floor.worker() as worker:
            floor.until(lambda worker=worker: "jobs:process:started" in worker.log)
            time.sleep(chance.uniform(0.0, 0.6))
            worker.kill()
    with floor.worker():
        assert floor.ended(batch_id).state is BatchState.COMPLETED
        floor.assert_each_once(batch_id, 40)
        floor.until(lambda: floor.kept(DataClass.BATCH_WORK) == 0)
    assert floor.kept(DataClass.BATCH_OUTPUT) == 1


@SQLITE
def test_a_worker_that_is_told_to_end_records_what_is_under_way_and_asks_nothing_twice(
    floor: Floor, upstream: MockUpstream
) -> None:
    batch_id = floor.batch(lines(200, "slow-head"))
    with floor.worker() as worker:
        floor.until(lambda: asked(upstream) >= AT_ONCE)
        began = time.monotonic()
        worker.end()
        assert time.monotonic() - began < 20
        assert worker.process.returncode == 0
    with floor.worker():
        floor.ended(batch_id)
    floor.assert_each_once(batch_id, 200)
    assert asked(upstream) == 200


@BOTH
def test_two_workers_share_a_batch_and_one_goes_on_when_the_others_machine_dies(
    floor: Floor, upstream: MockUpstream
) -> None:
    number = 800
    batch_id = floor.batch(lines(number, "slow-head"))
    with floor.worker() as first, floor.worker():
        floor.until(lambda: connections(upstream) > AT_ONCE)  # more than one worker may have
        floor.until(lambda: floor.see(batch_id).counts.completed > 100)
        with floor.deployment.db.write() as tx:
            dead = tx.execute(sa.select(job_worker.c.id).where(job_worker.c.pid == first.process.pid)).scalar_one()
            tx.execute(job_worker.update().where(job_worker.c.id == dead).values(host="a machine that is gone"))
        first.kill()
        killed = time.monotonic()
        floor.until(lambda: on_roll(floor) == 1)
        assert time.monotonic() - killed < 30
        floor.ended(batch_id)
    floor.assert_each_once(batch_id, number)
    assert asked(upstream) <= number + 2 * AT_ONCE


def connections(upstream: MockUpstream) -> int:
    """How many requests are under way."""
    return sum(not got.done for got in list(upstream.received))


def on_roll(floor: Floor) -> int:
    with floor.deployment.db.read() as tx:
        return int(tx.scalar(sa.select(sa.func.count()).select_from(job_worker)) or 0)


@SQLITE
def test_what_a_worker_had_in_memory_and_in_its_store_is_not_needed(floor: Floor, upstream: MockUpstream) -> None:
    """The job store is lost with the worker: the tables of batches know all."""
    batch_id = floor.batch(lines(150, "slow-head"))
    with floor.worker() as worker:
        floor.until(lambda: floor.see(batch_id).counts.completed > 10)
        worker.kill()
    for path in (floor.folder / "data").glob("jobs.sqlite*"):
        path.unlink()
    with floor.worker():
        floor.ended(batch_id)
    floor.assert_each_once(batch_id, 150)
    assert asked(upstream) <= 150 + 2 * AT_ONCE
