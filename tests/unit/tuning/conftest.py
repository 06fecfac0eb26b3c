"""One data folder a module and kind of database, emptied of fine-tunings after each test."""

from collections.abc import Iterator

import pytest

from keepless.accounts.tables import organization
from keepless.tuning.tables import tuned_model, tuning_checkpoint, tuning_event, tuning_fault, tuning_job
from keepless.vault.tables import kept, legal_hold
from tests.support.batching import Floor
from tests.support.postgres import Cluster
from tests.support.tuning import MODELS, Desk

_TABLES = (tuned_model, tuning_checkpoint, tuning_event, tuning_fault, tuning_job, legal_hold, kept)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def floor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    folder = tmp_path_factory.mktemp("floor")
    if request.param == "sqlite":
        made = Floor(folder, MODELS, real_files=True)
        yield made
        made.close()
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url:
        made = Floor(folder, MODELS, url, real_files=True)
        yield made
        made.close()


@pytest.fixture
def desk(floor: Floor) -> Iterator[Desk]:
    made = Desk(floor)
    yield made
    with made.db.write() as tx:
        for one in _TABLES:
            tx.execute(one.delete())
        tx.execute(organization.update().values(fine_tuning_off=False))
