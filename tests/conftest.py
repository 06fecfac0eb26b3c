"""Fixtures that every room's tests share.

Tests import the tree that they stand in. Processes that they start run the same tree, or, with
KEEPLESS_TEST_INSTALLED=1 (as `make test` does), the package as it is installed: compiled.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from keepless.accounts import keys
from keepless.db import Database, metadata
from tests.support.moto import Moto
from tests.support.postgres import Cluster
from tests.support.sqlite import fresh

# Threads that wait for each other, on cores that other tests use, would cost fifty times their work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A thousand tests make an organization, each with a password. What is really used is tested in accounts/test_keys.
keys._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
SOURCE = str(Path(__file__).parents[1] / "src")
if os.environ.pop("KEEPLESS_TEST_INSTALLED", "0") != "1":
    os.environ["PYTHONPATH"] = SOURCE
else:
    os.environ.pop("PYTHONPATH", None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One PostgreSQL server for the session (started only when a test asks)."""
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """One stand-in for S3 for the session (started only when a test asks)."""
    server = Moto()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database; every test that uses it runs on both kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/keepless.sqlite"
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield url


def opened(url: str) -> Database:
    return Database(url.replace("postgresql://", "postgresql+psycopg://", 1))


def make_tables(url: str) -> None:
    db = opened(url)
    db.create_all()
    db.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with every table that has been imported, and nothing in them."""
    if request.param == "sqlite":
        db = fresh(tmp_path)
        yield db
        db.close()
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database(cluster.template(len(metadata.tables), make_tables)) as url:
        db = opened(url)
        yield db
        db.close()


@pytest.fixture(autouse=True)
def _quiet_environment() -> Iterator[None]:
    """No setting of the developer's shell reaches a test."""
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("KEEPLESS_")}
    yield
    os.environ.update(saved)
