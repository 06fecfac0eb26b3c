"""A run as who orders it sees it, with a process that only does as if."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.content import Content, Purpose
from keepless.training import port
from keepless.training.order import Checkpoint, Event, Fault, Finished, Order, Prepared, Progress, TrainingError
from keepless.training.port import training
from tests.support.children import children

ORDER = Order(weights="w", sha256=None, base="b", context=64, n_epochs=1, batch_size=1, seed=7)
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _as_if(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(port, "_MODULE", "tests.support.trainer_process")
    monkeypatch.setattr(port, "_FOLDERS", (ROOT / "src", ROOT))
    monkeypatch.setattr(port, "is_missing", lambda: False)
    before = children()
    yield
    assert children() <= before


def fault(what: str) -> Fault:
    with pytest.raises(TrainingError) as caught, training(ORDER, Content(what.encode())) as said:
        list(said)
    assert what not in str(caught.value)
    return caught.value.fault


def test_a_run_tells_its_events_and_ends_with_the_adapter() -> None:
    with training(ORDER, Content(b"data"), Content(b"val"), Content(b"re")) as said:
        events: list[Event] = list(said)
        assert said.wait(0) is None
        assert list(said) == []
    prepared, progress, checkpoint, finished = events
    assert prepared == Prepared(examples=4, sequences=3, tokens=2, cut=0, steps=2)
    assert progress == Progress(step=1, total=2, loss=7.0, token_accuracy=0.5, tokens=3)
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.step, checkpoint.content.reveal(Purpose.TRAIN)) == (1, b"state")
    assert isinstance(finished, Finished)
    assert (finished.step, finished.tokens, finished.content.reveal(Purpose.TRAIN)) == (2, 6, b"adapter")


def test_without_validation_and_checkpoint_both_are_empty() -> None:
    with training(ORDER, Content(b"data")) as said:
        assert said.wait(60) == Prepared(examples=4, sequences=0, tokens=0, cut=0, steps=2)


def test_what_ends_a_run_is_a_code() -> None:
    assert fault("fault") is Fault.OUT_OF_MEMORY
    assert fault("exit") is Fault.TRAINER_DIED
    assert fault("nonsense") is Fault.TRAINER_DIED
    assert fault("order") is Fault.TRAINER_DIED
    assert fault("alarm") is Fault.TRAINER_STUCK


def test_stop_ends_it_while_somebody_waits() -> None:
    with training(ORDER, Content(b"hang")) as said:
        timer = threading.Timer(0.2, said.stop)
        timer.start()
        with pytest.raises(TrainingError) as caught:
            list(said)
        timer.join()
        said.stop()
    assert caught.value.fault is Fault.STOPPED
    said.stop()


def test_stop_ends_it_before_it_has_been_told_everything() -> None:
    with training(ORDER, Content(bytes(50_000_000))) as said:
        said.stop()
        with pytest.raises(TrainingError) as caught:
            said.wait(60)
    assert caught.value.fault is Fault.STOPPED


def test_who_leaves_ends_it() -> None:
    with training(ORDER, Content(b"hang")) as said:
        assert said.wait(0) is None
        pid = said.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_checkpoint_can_be_asked_for() -> None:
    with training(ORDER, Content(b"save")) as said:
        assert isinstance(said.wait(60), Prepared)
        assert said.wait(0.05) is None
        said.save()
        assert isinstance(said.wait(60), Progress)
        assert isinstance(said.wait(60), Checkpoint)


def test_the_process_has_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "walrus")
    held = os.open(ROOT, os.O_RDONLY)
    try:
        with training(ORDER, Content(b"seen")) as said:
            seen = next(event for event in said if isinstance(event, Checkpoint)).content.reveal(Purpose.TRAIN)
    finally:
        os.close(held)
    names, out, err, descriptors = seen.decode().split("|")
    assert "A_SECRET" not in names.split(",")
    assert {"HOME", "HF_HUB_OFFLINE", "TMPDIR"} <= set(names.split(","))
    assert (out, err) == (os.devnull, os.devnull)
    assert os.devnull in descriptors.split(",")
    assert str(ROOT) not in descriptors.split(",")


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(port, "_PACKAGES", ("no_such_package",))
    with pytest.raises(TrainingError) as caught, training(ORDER, Content(b"")):
        time.sleep(0)
    assert caught.value.fault is Fault.TRAINER_MISSING
