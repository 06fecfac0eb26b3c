"""The state machine as a value, the texts, and what is reckoned from a job's numbers."""

from dataclasses import replace

import pytest

from keepless.tuning.faults import FAULT_TEXT, FaultCode
from keepless.tuning.values import ACTIVE, FAIL_TEXT, NEXT, TERMINAL, FailCode, Hyperparameters, Job, TuningState
from tests.unit.tuning.test_store import a_job


def test_every_state_has_its_place_and_every_active_one_an_end() -> None:
    assert set(NEXT) == set(TuningState)
    assert {state.value for state in TERMINAL} == {"failed", "succeeded", "cancelled"}
    for state in ACTIVE:
        assert TuningState.CANCELLED in NEXT[state]


def test_every_code_has_a_text() -> None:
    assert set(FAIL_TEXT) == set(FailCode)
    assert set(FAULT_TEXT) == set(FaultCode)


@pytest.mark.parametrize(("number", "epochs", "size"), [(10, 10, 1), (64, 5, 4), (100_000, 3, 8)])
def test_what_is_left_to_us_is_decided_by_the_number_of_examples(number: int, epochs: int, size: int) -> None:
    chosen = Hyperparameters().chosen(number)
    assert (chosen.n_epochs, chosen.batch_size, chosen.learning_rate_multiplier) == (epochs, size, 1.0)
    own = Hyperparameters(2, 3, 0.5, 8, 16)
    assert own.chosen(number) == own


def test_how_long_it_takes_is_reckoned_from_the_present_attempt() -> None:
    job: Job = replace(a_job(), state=TuningState.RUNNING, total=100, step=60, begun_at=1_000, begun_step=50)
    assert job.seconds_left(1_000 + 20_000) == 80  # ten steps took 20 s, forty are left
    assert job.percent == 60.0
    assert replace(job, begun_step=60).seconds_left(9_000) is None
    assert replace(job, state=TuningState.PAUSED).seconds_left(9_000) is None
    assert replace(job, state=TuningState.FAILED).seconds_left(9_000) == 0
    assert replace(job, state=TuningState.SUCCEEDED).percent == 100.0
