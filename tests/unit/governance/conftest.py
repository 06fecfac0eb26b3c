"""What tests of governance stand on: a deployment with its first organization, under a clock of theirs."""

import pytest

from keepless.db import Database
from keepless.governance.sign_in import SignIn
from tests.support.clock import FakeClock
from tests.support.governed import Deployment, deploy


@pytest.fixture
def here(database: Database) -> Deployment:
    return deploy(database, FakeClock())


@pytest.fixture
def entry(here: Deployment) -> SignIn:
    return SignIn(here.database, here.clock, here.log)
