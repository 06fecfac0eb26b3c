"""A training in processes of its own, on a model of toy size: killed and gone on with, cancelled, imported.

The trainer is the real one. Nothing of an example may be found in a file of the data folder, or in a log.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.content import Purpose
from keepless.ids import Id
from keepless.inference.embedded.adapter import base_of
from keepless.inference.embedded.gguf import open_gguf
from keepless.tuning import checkpoints, store
from keepless.tuning.values import EventCode, FailCode, Hyperparameters, TuningKind, TuningState
from tests.support.adapters import adapter_zip, tensors
from tests.support.batch_worker import Nursery
from tests.support.batching import Floor, Worker
from tests.support.tiny_gguf import tiny
from tests.support.tuning import BASE, Desk, examples

MARKER = "quokka-7351"
STEPS = 60
KNOBS = Hyperparameters(n_epochs=5, batch_size=1, r=8, alpha=16)  # 12 examples


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    folder = tmp_path_factory.mktemp("tuning")
    models = [{"id": BASE, "engine": "llama", "path": tiny(folder)}]
    rules = {"checkpoint_seconds": 0, "threads": 1}
    nursery = Nursery()
    made = Floor(folder, models, nursery=nursery, real_files=True, fine_tuning=rules)
    yield made
    made.close()
    nursery.close()


@pytest.fixture
def desk(floor: Floor) -> Desk:
    return Desk(floor)


def step_of(desk: Desk, job_id: Id) -> int:
    job = desk.job(job_id)
    assert job.fail_code is None, job.fail_code
    return job.step


def saved(desk: Desk, job_id: Id) -> int:
    with desk.db.read() as tx:
        return max((one.step for one in checkpoints.of_job(tx, job_id)), default=0)


def weights(desk: Desk, job_id: Id) -> bytes:
    with desk.db.read() as tx:
        model = store.model_of(tx, job_id)
    assert model is not None
    return desk.deployment.vault.read(model.object_id, model.organization_id, Purpose.CUSTOMER).reveal(Purpose.CUSTOMER)


def trainers(worker: Worker) -> list[int]:
    """The processes that train for a worker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == worker.pid and b"keepless.training.process" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def ended(desk: Desk, job_id: Id) -> TuningState:
    desk.floor.until(lambda: desk.job(job_id).finished_at is not None)
    return desk.job(job_id).state


def test_a_training_whose_machine_dies_goes_on_from_its_last_checkpoint(desk: Desk) -> None:
    file_id = desk.dataset(examples(12, MARKER))
    job = desk.create(file_id, asked=KNOBS, seed=11).job
    with desk.floor.worker() as first:
        desk.floor.until(lambda: saved(desk, job.id) >= 5)
        (child,) = trainers(first)
        first.kill()
    desk.floor.until(lambda: not Path(f"/proc/{child}").exists())
    held = saved(desk, job.id)
    assert desk.job(job.id).state is TuningState.RUNNING
    other = desk.create(file_id, asked=KNOBS, seed=11).job
    with desk.floor.worker() as second:
        assert ended(desk, job.id) is TuningState.SUCCEEDED
        assert ended(desk, other.id) is TuningState.SUCCEEDED
        log = first.log + second.log
    done = desk.job(job.id)
    assert (done.total, done.step, done.attempt) == (STEPS, STEPS, 2)
    with desk.db.read() as tx:
        events = store.events_of(tx, job.id, limit=500)
    assert [one.step for one in events if one.code is EventCode.GOES_ON] == [held]
    assert weights(desk, job.id) == weights(desk, other.id)  # bit for bit, as if nothing had happened
    assert MARKER not in log
    # By another process: who closes a file of SQLite's here lets go of the locks of this one's own connections.
    found = subprocess.run(["grep", "-rlF", MARKER, str(desk.floor.folder)], check=False, capture_output=True)
    assert (found.returncode, found.stdout) == (1, b"")


def test_a_training_is_cancelled_at_once_and_paused_with_a_checkpoint(desk: Desk) -> None:
    own = (desk.organization_id, desk.project_id)
    long = Hyperparameters(n_epochs=50, batch_size=1, r=8, alpha=16)
    job = desk.create(asked=long).job
    with desk.floor.worker() as worker:
        desk.floor.until(lambda: step_of(desk, job.id) >= 3)
        (child,) = trainers(worker)
        desk.book.pause(job.id, *own)
        desk.floor.until(lambda: not Path(f"/proc/{child}").exists())
        held = saved(desk, job.id)
        assert held >= 3
        desk.book.resume(job.id, *own)
        desk.floor.until(lambda: step_of(desk, job.id) > held)
        (child,) = trainers(worker)
        desk.book.cancel(job.id, *own)
        desk.floor.until(lambda: not Path(f"/proc/{child}").exists(), seconds=10)
        desk.floor.until(lambda: saved(desk, job.id) == 0)
        assert trainers(worker) == []
    assert desk.job(job.id).state is TuningState.CANCELLED


def test_an_adapter_is_imported_or_told_what_is_wrong_with_it(desk: Desk) -> None:
    base = base_of(open_gguf(desk.deployment.settings.models[0].path or ""))
    good, bad = desk.dataset(adapter_zip(tensors(base))), desk.dataset(adapter_zip(tensors(base), r=9))
    job, other = desk.create(good, may_import=True).job, desk.create(bad, may_import=True).job
    assert job.kind is other.kind is TuningKind.IMPORT
    with desk.floor.worker():
        assert ended(desk, job.id) is TuningState.SUCCEEDED
        assert ended(desk, other.id) is TuningState.FAILED
    assert weights(desk, job.id).startswith(b"PK")
    with desk.db.read() as tx:
        (fault,) = store.faults_of(tx, other.id)
        model = store.model_of(tx, job.id)
    assert (desk.job(other.id).fail_code, fault.code.value) == (FailCode.ADAPTER, "adapter_rank")
    assert model is not None
    assert model.rank == 8
