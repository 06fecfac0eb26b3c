"""A batch on a vault, as its jobs see it: an input, shards, journals, and what the end makes of them."""

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keepless.accounts.store import policy_in_force
from keepless.batches import shards, store, transitions
from keepless.batches.shards import ShardPlan
from keepless.batches.values import Batch, BatchEndpoint, NewBatch
from keepless.clock import DAY_MS
from keepless.content import Purpose
from keepless.db import Database
from keepless.files.tables import file
from keepless.ids import Id, Prefix, mint
from keepless.jobs.files import KeptFiles
from keepless.jobs.finish import Finisher
from keepless.jobs.journal import ShardJournal
from keepless.jobs.results import Record
from keepless.policy.data_class import DataClass
from keepless.vault.reading import ObjectReader
from keepless.vault.tables import kept
from tests.support.accounts import make_organization
from tests.support.files import make_shelf
from tests.support.vault import make_rig

LINES = 4


class BatchWork:
    """One batch of four lines in two shards, running."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.rig = make_rig(database, folder)
        self.shelf = make_shelf(database, self.rig)
        self.owner = make_organization(database)
        lines = [json.dumps({"custom_id": f"id-{at}", "url": "/v1/x", "body": {}}) for at in range(1, LINES + 1)]
        self.input = self.shelf.keep(self.owner, "\n".join(lines).encode())
        what = NewBatch(*self.owner, mint(Prefix.API_KEY), BatchEndpoint.CHAT, self.input.id, DAY_MS)
        with database.write() as tx:
            self.id = store.create(tx, what, self.rig.clock.now_ms())[0].id
            plan = [ShardPlan(1, 2, 0, 10), ShardPlan(3, 2, 10, 20)]
            assert transitions.start(tx, self.id, plan, self.rig.clock.now_ms())
        self.finisher = Finisher(
            database,
            self.rig.vault,
            self.rig.clock,
            destroy=self.shelf.sweeper.end_job,
            files=KeptFiles(),
            policy_now=self.policy_now,
            inputs=self._input,
            line_bytes=1000,
        )

    def policy_now(self, organization_id: Id, project_id: Id) -> Any:
        with self.database.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    def _input(self, batch: Batch) -> ObjectReader:
        return self.shelf.files.open(batch.input_file_id, *self.owner, Purpose.INFERENCE)

    @property
    def batch(self) -> Batch:
        """As its row says now."""
        with self.database.read() as tx:
            found = store.get(tx, self.id)
        assert found is not None
        return found

    def attempt(self, number: int) -> ShardJournal:
        """Take a shard."""
        with self.database.write() as tx:
            shard = shards.take(tx, self.id, number)
        assert shard is not None
        return ShardJournal(
            self.database, self.rig.vault, self.rig.clock, policy_now=self.policy_now, batch=self.batch, shard=shard
        )

    def result(self, file_id: Id | None) -> list[dict[str, Any]]:
        """The lines of a result file."""
        if file_id is None:
            return []
        reader = self.shelf.files.open(file_id, *self.owner, Purpose.CUSTOMER)
        whole = b"".join(piece.reveal(Purpose.CUSTOMER) for piece in reader.stream())
        return [json.loads(line) for line in whole.splitlines()]

    def work(self) -> int:
        """How many journals are kept."""
        with self.database.read() as tx:
            query = sa.select(sa.func.count()).where(kept.c.data_class == DataClass.BATCH_WORK)
            return int(tx.scalar(query) or 0)

    def files(self) -> int:
        """How many files there are."""
        with self.database.read() as tx:
            return int(tx.scalar(sa.select(sa.func.count()).select_from(file)) or 0)


def record(number: int, *, well: bool = True, words: str = "ok") -> Record:
    """What is recorded of a line."""
    body = {"answer": words, "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
    return Record(number, well, json.dumps({"custom_id": f"id-{number}", "response": {"body": body}}).encode())
