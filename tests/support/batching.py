"""Batches for tests: a data folder with an organization, inputs in its vault, worker processes to kill.

Files are rows of a small table of the tests' own (`FewFiles`), so that jobs are tested without the room of files.
"""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.store import policy_in_force
from keepless.app.compose import Deployment, open_deployment
from keepless.app.initialise import initialise
from keepless.batches import store
from keepless.batches.values import Batch, BatchEndpoint, NewBatch
from keepless.clock import DAY_MS
from keepless.config import Settings, load
from keepless.content import Content, Purpose
from keepless.ids import Id, Prefix, mint
from keepless.jobs.files import KeptFiles, ResultFiles, ResultKind
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.vault.rows import Kept

if TYPE_CHECKING:
    from tests.support.batch_worker import Nursery

CHAT = BatchEndpoint.CHAT
_file = sa.Table(
    "few_files",
    sa.MetaData(),
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("object_id", sa.String(40), nullable=False),
    sa.Column("project_id", sa.String(40), nullable=False),
)


class FewFiles:
    """See `ResultFiles`."""

    def input_object(self, tx: Connection, file_id: Id, project_id: Id) -> Id | None:
        found = tx.scalar(sa.select(_file.c.object_id).where(_file.c.id == file_id, _file.c.project_id == project_id))
        return None if found is None else Id(found)

    def add(self, tx: Connection, file_id: Id, kept: Kept, size: int, kind: ResultKind) -> None:
        assert kept.data_class is kind.value
        tx.execute(_file.insert().values(id=file_id, object_id=kept.id, project_id=kept.project_id))

    def remove(self, tx: Connection, file_id: Id) -> Id | None:
        found = tx.scalar(sa.select(_file.c.object_id).where(_file.c.id == file_id))
        tx.execute(_file.delete().where(_file.c.id == file_id))
        return None if found is None else Id(found)


def line(custom_id: str, model: str = "ok", url: str = CHAT.value, **body: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": f"of {custom_id}"}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def lines(number: int, model: str = "ok", first: int = 0) -> bytes:
    return "\n".join(line(f"id-{at}", model) for at in range(first, first + number)).encode() + b"\n"


class Floor:
    """A data folder, opened beside the workers, to make batches in and to look into."""

    def __init__(
        self,
        folder: Path,
        models: Sequence[Mapping[str, Any]],
        url: str | None = None,
        *,
        nursery: "Nursery | None" = None,
        real_files: bool = False,
        **more: Any,
    ) -> None:
        self._nursery = nursery
        self.files: ResultFiles = KeptFiles() if real_files else FewFiles()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = {"data_dir": str(folder / "data"), "models": list(models), "location_region": "us", **more}
        if url is not None:
            self.config["database_url"] = url
        self.settings: Settings = load(None, {}, **self.config)
        self.told = initialise(self.settings)
        self.organization_id, self.project_id = Id(self.told["organization_id"]), Id(self.told["project_id"])
        self.deployment: Deployment = open_deployment(self.settings)
        self.deployment.location.check()
        _file.metadata.create_all(self.deployment.db.engine)

    def close(self) -> None:
        self.deployment.close()

    # -- making ------------------------------------------------------------------------------------------------------

    def permit(self, data_class: DataClass = DataClass.BATCH_INPUT) -> Retain:
        with self.deployment.db.read() as tx:
            policy = policy_in_force(tx, self.organization_id, self.project_id)
        assert policy is not None
        decision = decide(
            Query(
                organization_id=self.organization_id,
                project_id=self.project_id,
                data_class=data_class,
                trigger=Trigger.FEATURE,
                reason=Reason.CUSTOMER_UPLOAD,
                effective=policy.effective,
                epoch=policy.epoch,
                created_at_ms=self.deployment.clock.now_ms(),
            )
        )
        assert isinstance(decision, Retain)
        return decision

    def input(self, data: bytes) -> Id:
        file_id = mint(Prefix.FILE)
        with self.deployment.vault.writing(self.organization_id) as writer:
            writer.write(Content(data))
            writer.commit(
                self.permit(),
                within=lambda tx, kept: self.files.add(tx, file_id, kept, len(data), _Input),
            )
        return file_id

    def batch(self, data: bytes, **more: Any) -> Id:
        return self.batch_of(self.input(data), **more)

    def batch_of(self, file_id: Id, *, window_ms: int = DAY_MS, **more: Any) -> Id:
        new = NewBatch(
            organization_id=self.organization_id,
            project_id=self.project_id,
            key_id=mint(Prefix.API_KEY),
            endpoint=CHAT,
            input_file_id=file_id,
            window_ms=window_ms,
            **more,
        )
        with self.deployment.db.write() as tx:
            return store.create(tx, new, self.deployment.clock.now_ms())[0].id

    # -- looking -----------------------------------------------------------------------------------------------------

    def see(self, batch_id: Id) -> Batch:
        with self.deployment.db.read() as tx:
            found = store.get(tx, batch_id)
        assert found is not None
        return found

    def until(self, condition: Callable[[], object], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.02)

    def ended(self, batch_id: Id, seconds: float = 90) -> Batch:
        self.until(lambda: self.see(batch_id).ended_at is not None, seconds)
        return self.see(batch_id)

    def file(self, file_id: Id | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        with self.deployment.db.read() as tx:
            object_id = self.files.input_object(tx, file_id, self.project_id)
        assert object_id is not None
        data = self.deployment.vault.read(object_id, self.organization_id, Purpose.CUSTOMER).reveal(Purpose.CUSTOMER)
        assert data.endswith(b"\n")
        return [json.loads(one) for one in data.splitlines()]

    def results(self, batch_id: Id) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of the output and of the error file."""
        batch = self.see(batch_id)
        return self.file(batch.output_file_id), self.file(batch.error_file_id)

    def assert_each_once(self, batch_id: Id, number: int) -> None:
        """Every custom id stands once in the two files together, and the counts say so."""
        output, errors = self.results(batch_id)
        ids = Counter(one["custom_id"] for one in output + errors)
        assert ids == {f"id-{at}": 1 for at in range(number)}
        counts = self.see(batch_id).counts
        assert (counts.total, counts.completed, counts.failed) == (number, len(output), len(errors))

    def kept(self, data_class: DataClass) -> int:
        with self.deployment.db.read() as tx:
            query = sa.text("SELECT COUNT(*) FROM kept WHERE data_class = :name")
            return int(tx.scalar(query, {"name": data_class.value}) or 0)

    # -- workers -----------------------------------------------------------------------------------------------------

    @property
    def nursery(self) -> "Nursery":
        assert self._nursery is not None, "this floor has no workers"
        return self._nursery

    @contextlib.contextmanager
    def worker(self) -> Iterator["Worker"]:
        made = Worker(self)
        try:
            yield made
        finally:
            made.end()


class Worker:
    """A worker process over a floor's folder, to be killed; forked by the floor's nursery."""

    def __init__(self, floor: Floor) -> None:
        self.log_path = floor.folder / f"worker-{time.monotonic_ns()}.log"
        self._nursery = floor.nursery
        self.pid = self._nursery.fork(floor.config, self.log_path)
        self.returned: int | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.returned = self._nursery.wait(self.pid)

    def end(self) -> None:
        if self.returned is None:
            os.kill(self.pid, signal.SIGTERM)
            self.returned = self._nursery.wait(self.pid)
            assert self.returned == 0, self.log


class _InputKind:
    value = DataClass.BATCH_INPUT


_Input: Any = _InputKind
