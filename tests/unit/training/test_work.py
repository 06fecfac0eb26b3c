"""A run on the toy model: what it tells, and that it tells the same each time, wherever it began."""

import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from keepless.content import Content
from keepless.inference.embedded.adapter import MODULES, base_of, unpack
from keepless.inference.embedded.gguf import open_gguf
from keepless.training import work
from keepless.training.loop import DivergedError
from keepless.training.order import Checkpoint, Event, Fault, Finished, Order, Prepared, Progress, TrainingError
from keepless.training.work import Told, train
from keepless.tuning.adapter import checked
from tests.support.learning import FACTS, bare, counted, example, facts, lines, never, nothing, of_kind, order
from tests.support.tiny_gguf import LAYERS, tiny


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny(tmp_path_factory.mktemp("weights"))


def run(asked: Order, examples: Content | None = None, **more: Content) -> list[Event]:
    told = Told(
        asked,
        examples if examples is not None else facts(),
        more.get("validation", nothing()),
        more.get("resume", nothing()),
    )
    return list(train(told, never, counted([])))


def fault(asked: Order, examples: Content | None = None, **more: Content) -> Fault:
    with pytest.raises(TrainingError) as caught:
        run(asked, examples, **more)
    return caught.value.fault


@pytest.fixture(scope="module")
def events(weights: str) -> list[Event]:
    return run(order(weights), validation=facts(FACTS[:2]))


def test_a_run_tells_each_step(events: list[Event]) -> None:
    assert isinstance(events[0], Prepared)
    assert (events[0].examples, events[0].sequences, events[0].cut, events[0].steps) == (5, 5, 0, 6)
    steps = of_kind(Progress, events)
    assert [one.step for one in steps] == [1, 2, 3, 4, 5, 6]
    assert {one.total for one in steps} == {6}
    assert all(math.isfinite(one.loss) and 0 <= one.token_accuracy <= 1 for one in steps)
    assert steps[2].tokens == events[0].tokens
    assert steps[5].tokens == 2 * events[0].tokens
    assert [one.step for one in steps if one.valid_loss is not None] == [3, 6]
    assert isinstance(events[-1], Finished)
    assert (events[-1].step, events[-1].tokens) == (6, 2 * events[0].tokens)


def test_the_end_of_it_is_an_adapter_that_the_import_would_take(events: list[Event], weights: str) -> None:
    archive = bare(of_kind(Finished, events)[0].content)
    base = base_of(open_gguf(weights))
    assert checked(archive, base, "tiny") == archive
    adapter = unpack(archive)
    assert (adapter.r, adapter.alpha) == (8, 16)
    assert len(adapter.tensors) == LAYERS * len(MODULES) * 2
    assert all(np.abs(tensor).max() > 0 for tensor in adapter.tensors.values())


def test_the_same_order_gives_the_same_bits_and_another_seed_others(weights: str, events: list[Event]) -> None:
    again = run(order(weights), validation=facts(FACTS[:2]))
    assert of_kind(Progress, again) == of_kind(Progress, events)
    first = bare(of_kind(Finished, events)[0].content)
    assert bare(of_kind(Finished, again)[0].content) == first
    assert bare(of_kind(Finished, run(order(weights, seed=6)))[0].content) != first


def test_validation_changes_nothing_of_what_is_learned(weights: str, events: list[Event]) -> None:
    without = run(order(weights))
    assert bare(of_kind(Finished, without)[0].content) == bare(of_kind(Finished, events)[0].content)
    assert all(one.valid_loss is None for one in of_kind(Progress, without))


def test_who_goes_on_from_a_checkpoint_ends_with_the_same_bits(weights: str, events: list[Event]) -> None:
    checkpoints = of_kind(Checkpoint, events)
    assert [one.step for one in checkpoints] == [1, 2, 3, 4, 5]  # after each, but the last
    for one in (checkpoints[0], checkpoints[3]):
        rest = run(order(weights), validation=facts(FACTS[:2]), resume=one.content)
        assert of_kind(Progress, rest) == of_kind(Progress, events)[one.step :]
        assert [bare(c.content) for c in of_kind(Checkpoint, rest)] == [
            bare(c.content) for c in checkpoints if c.step > one.step
        ]
        assert bare(of_kind(Finished, rest)[0].content) == bare(of_kind(Finished, events)[0].content)


def test_a_checkpoint_fits_only_its_own_run(weights: str, events: list[Event]) -> None:
    one = of_kind(Checkpoint, events)[0].content
    same = {"validation": facts(FACTS[:2])}
    assert fault(order(weights, seed=6), resume=one, **same) is Fault.CHECKPOINT_UNFIT
    assert fault(order(weights, n_epochs=3), resume=one, **same) is Fault.CHECKPOINT_UNFIT
    assert fault(order(weights), resume=one) is Fault.CHECKPOINT_UNFIT
    assert fault(order(weights), facts(FACTS[:4]), resume=one, **same) is Fault.CHECKPOINT_UNFIT
    for damaged in (bare(one)[:-1], bare(one)[:100], b"x" * 100, b"\x00" * 8):
        assert fault(order(weights), resume=Content(damaged), **same) is Fault.CHECKPOINT_UNFIT


def test_without_a_time_for_them_checkpoints_come_when_asked_for(weights: str) -> None:
    wanted = iter([False, True, False, False, False, True])
    told = Told(order(weights, checkpoint_seconds=3600), facts(), nothing(), nothing())
    found = list(train(told, lambda: next(wanted), counted([])))
    assert [one.step for one in of_kind(Checkpoint, found)] == [2, 6]


def test_it_learns_what_it_is_shown(weights: str) -> None:
    steps = of_kind(Progress, run(order(weights, n_epochs=12, r=16, checkpoint_seconds=3600)))
    assert steps[-1].loss < 0.6 * steps[0].loss
    assert steps[-1].token_accuracy > steps[0].token_accuracy


def test_only_answers_with_a_weight_are_learned(weights: str) -> None:
    """A question or an answer of weight 0 that changes moves no loss of the first step by being learned."""
    turns = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Ada.", "weight": 0},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "At sea."},
    ]
    both = [{**turn, "weight": 1} if turn["role"] == "assistant" else turn for turn in turns]
    losses = [
        of_kind(Progress, run(order(weights, n_epochs=1), lines([{"messages": one}])))[0] for one in (turns, both)
    ]
    assert losses[0].tokens == losses[1].tokens
    assert losses[0].loss != losses[1].loss


def test_parts_of_a_batch_do_not_show(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = order(weights, n_epochs=1, batch_size=5)
    whole = of_kind(Progress, run(asked))[0]
    monkeypatch.setattr("keepless.training.batches.PART_TOKENS", 40)
    monkeypatch.setattr("keepless.training.loop._LOGITS", 3)
    parts = of_kind(Progress, run(asked))[0]
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.token_accuracy == whole.token_accuracy


def test_long_texts_are_computed_twice_instead_of_kept_and_come_out_the_same(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = order(weights, n_epochs=1)
    plain = of_kind(Progress, run(asked))
    monkeypatch.setattr("keepless.training.loop._LONG", 1)
    again = of_kind(Progress, run(asked))
    assert [one.loss for one in again] == pytest.approx([one.loss for one in plain], rel=1e-5)


def test_what_is_longer_than_the_context_is_cut_and_counted(weights: str) -> None:
    found = run(order(weights, context=40, n_epochs=1), lines([example("Who?", "Ada " * 100), example("?" * 99, "A")]))
    prepared = of_kind(Prepared, found)[0]
    # Of the second nothing is left to learn.
    assert (prepared.examples, prepared.cut, prepared.sequences, prepared.tokens) == (2, 2, 1, 40)


@pytest.mark.parametrize(
    "examples",
    [b"", b"\n \n", b"{}", b'{"messages": [{"role": "user", "content": "alone"}]}', b"\xff"],
    ids=["nothing", "empty lines", "no messages", "no answer", "no text"],
)
def test_examples_that_teach_nothing(weights: str, examples: bytes) -> None:
    assert fault(order(weights), Content(examples)) is Fault.EXAMPLES_UNUSABLE


def test_the_base_model_must_be_there_and_the_pinned_one(weights: str, tmp_path: Path) -> None:
    found = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    assert run(order(weights, sha256=found, n_epochs=1))
    assert fault(order(weights, sha256="0" * 64)) is Fault.WEIGHTS_CHANGED
    assert fault(order(str(tmp_path / "none"))) is Fault.WEIGHTS_MISSING
    (tmp_path / "empty").write_bytes(b"")
    assert fault(order(str(tmp_path / "empty"))) is Fault.BASE_NOT_TUNABLE


@pytest.mark.parametrize(
    "changes",
    [
        {"general.architecture": "qwen2"},
        {"tokenizer.ggml.pre": "llama-bpe"},
        {"tokenizer.ggml.model": "llama"},
        {"llama.block_count": 3},
        {"llama.attention.head_count": 3},
    ],
    ids=str,
)
def test_other_base_models_are_not_tuned(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert fault(order(tiny(tmp_path, **changes))) is Fault.BASE_NOT_TUNABLE


@pytest.mark.parametrize(
    ("error", "roomy", "full"),
    [
        (TrainingError(Fault.BASE_NOT_TUNABLE), Fault.BASE_NOT_TUNABLE, Fault.OUT_OF_MEMORY),
        (TrainingError(Fault.EXAMPLES_UNUSABLE), Fault.EXAMPLES_UNUSABLE, Fault.EXAMPLES_UNUSABLE),
        (DivergedError(), Fault.DIVERGED, Fault.DIVERGED),
        (MemoryError(), Fault.OUT_OF_MEMORY, Fault.OUT_OF_MEMORY),
        (RuntimeError(), Fault.TRAINER_DIED, Fault.OUT_OF_MEMORY),
        (KeyError(), Fault.TRAINER_DIED, Fault.TRAINER_DIED),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else str(value),
)
def test_what_ended_a_run_depends_on_the_memory_it_had(
    error: Exception, roomy: Fault, full: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, expected in ((1 << 50, roomy), (1 << 20, full)):
        monkeypatch.setattr(work.resource, "getrlimit", lambda _, most=most: (most, most))
        assert work._fault(error) is expected


def test_it_shows_that_it_lives(weights: str) -> None:
    calls: list[None] = []
    list(train(Told(order(weights), facts(), facts(), nothing()), never, counted(calls)))
    assert len(calls) > 12  # each step, each part of one


def test_a_loss_that_is_no_number_ends_it(weights: str) -> None:
    asked = msgspec.structs.replace(order(weights, n_epochs=50), learning_rate_multiplier=1e30)
    with pytest.raises(ArithmeticError):
        run(asked)
