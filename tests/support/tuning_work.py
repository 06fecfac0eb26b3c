"""A worker's fine-tunings without an engine of jobs: what was submitted runs when the test says so."""

from collections.abc import Mapping
from typing import Any

from keepless.accounts.store import policy_in_force
from keepless.app.tunings import ending_of
from keepless.config import FineTuning, ModelConfig
from keepless.ids import Id
from keepless.jobs.port import JobKind
from keepless.jobs.tuning import Tunings
from tests.support.trainer import FakeTrainer
from tests.support.tuning import BASE, Desk


class ByHand(Tunings):
    """It looks when the test says so."""

    def start(self, jobs: Any) -> None:
        self._jobs = jobs

    def stop(self) -> None:
        self._ends.set()
        for run in self._runs.values():
            run.stop()


class Slate:
    """What was submitted; every worker sees it. A job that was begun and not ended runs again."""

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[JobKind, tuple[Any, ...]]] = {}

    def submit(self, kind: JobKind, job_id: str, *arguments: Any, priority: int = 1) -> None:
        self.waiting.setdefault(job_id, (kind, arguments))

    def active(self) -> set[str]:
        return set(self.waiting)

    def cancel(self, job_ids: set[str]) -> None:
        raise NotImplementedError

    def rescue(self) -> int:
        return 0

    def forget(self) -> int:
        return 0

    def close(self) -> None:
        pass


class LooseClock:
    """A clock under which every pause is over as soon as somebody looks."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.ahead = 0.0

    def now_ms(self) -> int:
        return int(self._inner.now_ms())

    def monotonic(self) -> float:
        return float(self._inner.monotonic()) + self.ahead


class Shop:
    """One worker."""

    def __init__(
        self,
        desk: Desk,
        slate: Slate | None = None,
        trainer: FakeTrainer | None = None,
        models: Mapping[str, ModelConfig] | None = None,
        **rules: Any,
    ) -> None:
        self.desk, self.slate, self.trainer = desk, slate or Slate(), trainer or FakeTrainer()
        self.clock = LooseClock(desk.clock)
        db = desk.db

        def policy_now(organization_id: Id, project_id: Id) -> Any:
            with db.read() as tx:
                return policy_in_force(tx, organization_id, project_id)

        self.tunings = ByHand(
            db,
            desk.deployment.vault,
            self.clock,
            policy_now=policy_now,
            ending=ending_of(desk.deployment),
            trainer=self.trainer,
            models={BASE: ModelConfig(id=BASE)} if models is None else models,
            rules=FineTuning(**rules),
            json_depth=50,
        )
        self.tunings.start(self.slate)

    def look(self) -> None:
        self.clock.ahead += 10_000.0
        self.tunings.look()

    def work(self, rounds: int = 1) -> None:
        """Look, and do what is there."""
        for _ in range(rounds):
            self.look()
            for job_id in sorted(self.slate.waiting):
                self.one(job_id)

    def one(self, job_id: str) -> None:
        """Do one job of the slate."""
        kind, arguments = self.slate.waiting[job_id]
        try:
            self.tunings.handlers[kind](*arguments)
        finally:
            self.slate.waiting.pop(job_id, None)
