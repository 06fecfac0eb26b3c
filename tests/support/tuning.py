"""Fine-tunings for tests: a data folder with an organization, datasets in it, the book of its project."""

import json
from typing import Any

from keepless.accounts.principal import Limits, OrganizationState, Principal, ProjectState
from keepless.app.tunings import book_of, ending_of
from keepless.content import Content
from keepless.files.service import Intended
from keepless.files.values import FilePurpose
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import Controls, effective
from keepless.policy.data_class import DataClass
from keepless.tuning import store
from keepless.tuning.book import Order
from keepless.tuning.shown import Seen
from keepless.tuning.values import Job
from tests.support.batching import Floor

BASE = "tiny"
MODELS = [{"id": BASE, "engine": "llama"}]


def example(question: str = "What?", answer: str = "That.", **more: Any) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages, **more})


def examples(number: int = 12, answer: str = "That.") -> bytes:
    return "\n".join(example(f"Question {at}?", answer) for at in range(number)).encode() + b"\n"


class Desk:
    """A floor's project as its own calls see it."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.deployment = floor.deployment
        self.db, self.clock = floor.deployment.db, floor.deployment.clock
        self.organization_id, self.project_id = floor.organization_id, floor.project_id
        self.book, self.ending = book_of(floor.deployment), ending_of(floor.deployment)
        none = Controls()
        self.principal = Principal(
            mint(Prefix.API_KEY),
            OrganizationState(self.organization_id, 1, none, Limits(), None),
            ProjectState(self.project_id, none, effective(none, none), Limits()),
        )

    def dataset(self, data: bytes | None = None, purpose: FilePurpose = FilePurpose.FINE_TUNE) -> Id:
        files = self.deployment.files
        data_class = DataClass.FINE_TUNING_DATASET if purpose is FilePurpose.FINE_TUNE else DataClass.BATCH_INPUT
        with files.writing(self.organization_id, self.project_id) as writer:
            writer.write(Content(examples() if data is None else data))
            return writer.commit(Intended(purpose, data_class, Content(b"some.jsonl")))[0].id

    def order(self, file_id: Id | None = None, name: bytes = b"mine", **more: Any) -> Order:
        return Order(BASE, self.dataset() if file_id is None else file_id, Content(name), **more)

    def create(self, file_id: Id | None = None, **more: Any) -> Seen:
        return self.book.create(self.principal, self.order(file_id, **more), mint(Prefix.REQUEST))[0]

    def job(self, job_id: Id) -> Job:
        with self.db.read() as tx:
            found = store.any_job(tx, job_id, self.organization_id, self.project_id)
        assert found is not None
        return found
