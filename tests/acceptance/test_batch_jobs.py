"""Batches by real worker processes against a real upstream: run, refuse, retry, cancel, expire, be forbidden.

One worker serves the module; what kills workers stands in test_batch_durability.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.batches import store, transitions
from keepless.batches.tables import batch as batch_table
from keepless.batches.values import BatchState, CancelReason, Counts, LineCode, LineError, LineParam
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.organizations import FOREVER_MS
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.usage.tables import usage, usage_kind
from tests.support.batch_worker import Nursery
from tests.support.batching import FewFiles, Floor, Worker, line, lines
from tests.support.upstream import Behaviour, MockUpstream

WORK = DataClass.BATCH_WORK


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=0.2) as mock:
        yield mock


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[Floor]:
    models = [
        {"id": behaviour.value, "engine": "openai", "base_url": upstream.base_url, "retention": "zero",
         "batch_concurrency": 8}
        for behaviour in (Behaviour.OK, Behaviour.ERROR_400, Behaviour.NEVER, Behaviour.SLOW_HEAD)
    ]  # fmt: skip
    nursery = Nursery()
    made = Floor(tmp_path_factory.mktemp("batches"), models, nursery=nursery)
    yield made
    made.close()
    nursery.close()


@pytest.fixture(scope="module")
def worker(floor: Floor) -> Iterator[Worker]:
    with floor.worker() as made:
        yield made


pytestmark = pytest.mark.usefixtures("worker")


def test_a_batch_is_run_delivered_and_accounted_and_its_work_purged(floor: Floor) -> None:
    batch_id = floor.batch(lines(250))
    batch = floor.ended(batch_id)
    assert (batch.state, batch.counts) == (BatchState.COMPLETED, Counts(250, 250, 0))
    assert (batch.error_file_id, batch.finalizing_at is None) == (None, False)
    floor.assert_each_once(batch_id, 250)
    output, _ = floor.results(batch_id)
    assert output[0]["response"]["body"]["choices"][0]["message"]["content"] == "Hello from upstream ."
    told = [one["response"]["body"]["usage"] for one in output]
    assert batch.usage is not None
    assert batch.usage.input == sum(one["prompt_tokens"] for one in told) > 0
    assert batch.usage.output == sum(one["completion_tokens"] for one in told) > 0
    floor.until(lambda: floor.kept(WORK) == 0)
    floor.until(lambda: rows_of(floor, batch.key_id) == 250)


def rows_of(floor: Floor, key_id: Id) -> int:
    """Usage rows of a batch's lines."""
    query = (
        sa.select(sa.func.count())
        .select_from(usage.join(usage_kind, usage.c.kind_id == usage_kind.c.id))
        .where(usage_kind.c.key_id == key_id, usage_kind.c.batch.is_(True))
    )
    with floor.deployment.db.read() as tx:
        return int(tx.scalar(query) or 0)


def test_lines_that_fail_go_into_the_error_file_and_the_others_are_delivered(floor: Floor) -> None:
    data = [line(f"id-{at}", "error-400" if at % 3 == 0 else "ok") for at in range(30)]
    data.append(line("id-30", "ok", temperature="hot"))  # refused before any engine
    batch_id = floor.batch("\r\n".join(data).encode())
    assert floor.ended(batch_id).state is BatchState.COMPLETED
    floor.assert_each_once(batch_id, 31)
    output, errors = floor.results(batch_id)
    assert len(output) == 20
    assert Counter(one["response"]["status_code"] for one in errors) == {400: 11}


def test_an_input_that_is_no_batch_fails_with_its_lines_and_runs_nothing(floor: Floor, upstream: MockUpstream) -> None:
    before = len(upstream.received)
    batch_id = floor.batch("\n".join([line("a"), "{", line("a"), line("b", "no-such")]).encode())
    assert floor.ended(batch_id).state is BatchState.FAILED
    with floor.deployment.db.read() as tx:
        assert store.errors_of(tx, batch_id) == [
            LineError(2, LineCode.INVALID_JSON),
            LineError(3, LineCode.DUPLICATE_ID, LineParam.CUSTOM_ID),
            LineError(4, LineCode.MODEL_NOT_FOUND, LineParam.MODEL),
        ]
    assert len(upstream.received) == before


def test_an_input_that_is_gone_fails(floor: Floor) -> None:
    batch_id = floor.batch(b"")
    assert floor.ended(batch_id).state is BatchState.FAILED
    file_id = floor.input(lines(1))
    with floor.deployment.db.write() as tx:
        FewFiles().remove(tx, file_id)
    batch_id = floor.batch_of(file_id)
    assert floor.ended(batch_id).state is BatchState.FAILED
    with floor.deployment.db.read() as tx:
        assert store.errors_of(tx, batch_id) == [LineError(None, LineCode.INPUT_GONE)]


def in_progress(floor: Floor, batch_id: Id, done: int) -> None:
    floor.until(lambda: floor.see(batch_id).counts.completed >= done)


def test_cancelling_delivers_what_was_done_and_names_the_rest(floor: Floor) -> None:
    batch_id = floor.batch(lines(400, "slow-head"))
    in_progress(floor, batch_id, 8)
    with floor.deployment.db.write() as tx:
        assert transitions.request_cancel(tx, batch_id, CancelReason.CUSTOMER, floor.deployment.clock.now_ms())
    batch = floor.ended(batch_id)
    assert batch.state is BatchState.CANCELLED
    assert batch.cancelled_at is not None
    assert batch.cancelling_at is not None
    floor.assert_each_once(batch_id, 400)
    output, errors = floor.results(batch_id)
    assert 8 <= len(output) < 400
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
    floor.until(lambda: floor.kept(WORK) == 0)


def test_deleting_the_input_cancels_and_keeps_what_was_done(floor: Floor) -> None:
    batch_id = floor.batch(lines(400, "slow-head"))
    in_progress(floor, batch_id, 8)
    with floor.deployment.db.write() as tx:
        FewFiles().remove(tx, floor.see(batch_id).input_file_id)
        assert transitions.request_cancel(tx, batch_id, CancelReason.INPUT_DELETED, floor.deployment.clock.now_ms())
    batch = floor.ended(batch_id)
    assert (batch.state, batch.error_file_id) == (BatchState.CANCELLED, None)
    output, _ = floor.results(batch_id)
    assert 8 <= len(output) == batch.counts.completed < 400


def test_when_the_window_is_over_what_was_done_is_delivered_and_the_rest_expired(floor: Floor) -> None:
    """Every line that can be done is recorded before the window is put to its end, however slow the machine is."""
    batch_id = floor.batch(lines(10) + lines(6, "never", first=10))
    floor.until(lambda: floor.see(batch_id).counts.completed == 10)
    with floor.deployment.db.write() as tx:
        tx.execute(batch_table.update().where(batch_table.c.id == batch_id).values(expires_at=1))
    batch = floor.ended(batch_id)
    assert batch.state is BatchState.EXPIRED
    floor.assert_each_once(batch_id, 16)
    output, errors = floor.results(batch_id)
    assert len(output) == 10
    assert {one["error"]["code"] for one in errors} == {"batch_expired"}


def test_turning_the_feature_off_stops_within_a_second_and_keeps_nothing(floor: Floor, upstream: MockUpstream) -> None:
    deployment = floor.deployment
    controls = DataControls(
        Office(deployment.db, deployment.clock, Fence(deployment.db, deployment.clock), deployment.log)
    )
    owner = AdminPrincipal(Id("akey_owner"), floor.organization_id, Role.OWNER, FOREVER_MS)
    batch_id = floor.batch(lines(400, "slow-head"))
    waiting = floor.batch(lines(10, "never"))
    in_progress(floor, batch_id, 8)
    controls.change(floor.organization_id, Patch(zero_data_retention=True, purge=True), owner)
    time.sleep(0.1)  # what was on its way to a socket
    asked = len(upstream.received)
    for one in (batch_id, waiting):
        batch = floor.see(one)
        assert (batch.state, batch.cancel_reason) == (BatchState.CANCELLED, CancelReason.POLICY)
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
    floor.until(lambda: floor.kept(WORK) == 0)
    time.sleep(1)
    assert len(upstream.received) == asked
    controls.change(floor.organization_id, Patch(zero_data_retention=False), owner)
    again = floor.batch(lines(10))
    assert floor.ended(again).state is BatchState.COMPLETED
    assert floor.kept(DataClass.BATCH_OUTPUT) > 0


def test_nothing_of_a_customer_is_in_the_jobs_store_or_the_log(floor: Floor, worker: Worker) -> None:
    data = "\n".join(line(f"MARKER-id-{at}", "error-400" if at else "ok", user="MARKER-user") for at in range(5))
    batch_id = floor.batch(data.encode())
    floor.ended(batch_id)
    output, errors = floor.results(batch_id)
    assert len(output) + len(errors) == 5
    assert b"MARKER" not in b"".join(
        path.read_bytes() for path in floor.folder.rglob("*") if path.is_file() and "keyring" not in path.parts
    )
    assert "MARKER" not in worker.log
