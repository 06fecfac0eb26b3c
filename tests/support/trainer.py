"""A trainer without a machine to train on: it counts steps, and its adapters say which steps made them.

`FakeTrainer` stands for `keepless.training.port.training`. A checkpoint of step N resumed goes on with step N + 1, so a
run that was cut and one that was not end with the same bytes.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keepless.content import Content, Purpose
from keepless.training.order import (
    Checkpoint,
    Event,
    Fault,
    Finished,
    Order,
    Prepared,
    Progress,
    TrainingError,
)

TOKENS = 10  # of a step


class FakeRun:
    """See `keepless.training.port.Run`."""

    def __init__(self, trainer: "FakeTrainer", order: Order, steps: int, digest: int, done: int) -> None:
        self._trainer, self._order, self._steps, self._digest = trainer, order, steps, digest
        self.step = done
        self._begun = self._saved = False
        self.asked = threading.Event()
        self.stopped = threading.Event()

    def wait(self, timeout_s: float | None) -> Event | None:
        if self.stopped.is_set():
            raise TrainingError(Fault.STOPPED)
        if not self._begun:
            self._begun = True
            return Prepared(examples=1, sequences=1, tokens=1, cut=0, steps=self._steps)
        every = self._trainer.checkpoint_every
        due = self.asked.is_set() or (every and self.step and self.step % every == 0 and not self._saved)
        if due:
            self.asked.clear()
            self._saved = True
            return Checkpoint(step=self.step, content=Content(b"%d %d" % (self._digest, self.step)))
        if self.step == self._steps:
            return Finished(step=self.step, tokens=self.step * TOKENS, content=Content(self._made()))
        self._trainer.before(self.step + 1)
        if self._trainer.pause_s:
            time.sleep(self._trainer.pause_s)
        self.step += 1
        self._saved = False
        return Progress(
            step=self.step,
            total=self._steps,
            loss=1.0 / self.step,
            token_accuracy=self.step / self._steps,
            tokens=self.step * TOKENS,
        )

    def _made(self) -> bytes:
        return f"adapter {self._digest} {self._order.seed} {self._steps}".encode()

    def save(self) -> None:
        self.asked.set()

    def stop(self) -> None:
        self.stopped.set()


class FakeTrainer:
    """Starts fake runs.

    `before(step)` may raise what a process that trains may meet, or do what others do meanwhile; `unfit`: steps whose
    checkpoints are not taken.
    """

    def __init__(self, *, checkpoint_every: int = 2, pause_s: float = 0.0) -> None:
        self.checkpoint_every, self.pause_s = checkpoint_every, pause_s
        self.before: Callable[[int], None] = lambda _: None
        self.runs: list[FakeRun] = []
        self.resumed: list[int] = []
        self.unfit: set[int] = set()

    @contextmanager
    def __call__(
        self, order: Order, dataset: Content, validation: Content | None = None, resume: Content | None = None
    ) -> Iterator[FakeRun]:
        data = dataset.reveal(Purpose.TRAIN)
        digest = sum(data) + (0 if validation is None else validation.size)
        done = 0
        if resume is not None:
            theirs, done = map(int, resume.reveal(Purpose.TRAIN).split())
            if theirs != digest or done in self.unfit:
                raise TrainingError(Fault.CHECKPOINT_UNFIT)
        self.resumed.append(done)
        lines = len(data.splitlines())
        run = FakeRun(self, order, -(-lines // order.batch_size) * order.n_epochs, digest, done)
        self.runs.append(run)
        try:
            yield run
        finally:
            run.stop()
