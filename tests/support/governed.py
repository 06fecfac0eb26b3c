"""Accounts and governance of one deployment for tests: its changes, leases, and a database that can fail."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.fence import Fence
from keepless.accounts.keys import digest_of
from keepless.accounts.lease import Lease
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.clock import Clock, SystemClock
from keepless.db import Database
from keepless.governance.access import Access
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.organizations import FOREVER_MS, Initial, Organizations, bootstrap
from keepless.ids import Id
from keepless.receipts.log import Log
from keepless.receipts.statement import EntryKind
from tests.support.log import make_log


class FlakyDatabase(Database):
    """A database that can be made unreachable (`down`) or refuse writes (`read_only`)."""

    down = False
    read_only = False

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        self._fail(self.down)
        with super().read() as tx:
            yield tx

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        self._fail(self.down or self.read_only)
        with super().write() as tx:
            yield tx

    @staticmethod
    def _fail(now: bool) -> None:
        if now:
            raise sa.exc.OperationalError("unreachable", None, Exception())


@dataclass
class Deployment:
    """Everything of one database, with the first organization in it."""

    database: Database
    clock: Clock
    log: Log
    office: Office
    organizations: Organizations
    access: Access
    controls: DataControls
    initial: Initial
    purges: list[Id]

    @property
    def organization_id(self) -> Id:
        return self.initial.organization.organization_id

    @property
    def project_id(self) -> Id:
        return self.initial.organization.project_id

    @property
    def owner(self) -> AdminPrincipal:
        return AdminPrincipal(Id("akey_owner"), self.organization_id, Role.OWNER, FOREVER_MS)

    @property
    def careful_owner(self) -> AdminPrincipal:
        """An owner who may tighten only."""
        return AdminPrincipal(Id("akey_careful"), self.organization_id, Role.OWNER, None)

    @property
    def operator(self) -> AdminPrincipal:
        return AdminPrincipal(Id("okey_operator"), None, Role.OPERATOR, None)

    def kinds(self, *only: EntryKind) -> list[EntryKind]:
        """The kinds of the log's entries, oldest first."""
        with self.database.read() as tx:
            entries = self.log.entries(tx, kinds=only, limit=1000)
        return [entry.kind for entry in reversed(entries)]


def deploy(database: Database, clock: Clock | None = None) -> Deployment:
    """A deployment with its first organization and no process that serves."""
    own_clock = clock or SystemClock()
    log = make_log(database, own_clock)
    initial = bootstrap(database, own_clock, log, owner_email="owner@example.com")
    office = Office(database, own_clock, Fence(database, own_clock), log)
    purges: list[Id] = []
    controls = DataControls(office, purges.append)
    return Deployment(
        database, own_clock, log, office, Organizations(office), Access(office), controls, initial, purges
    )


def digest(secret: str) -> bytes:
    """What a secret is looked up by."""
    return digest_of(secret.encode())


@contextlib.contextmanager
def leased(
    database: Database, clock: Clock | None = None, on_swap: Callable[[], None] | None = None
) -> Iterator[Lease]:
    """A lease of this process that is running."""
    lease = Lease(database, clock or SystemClock(), *([on_swap] if on_swap else []))
    lease.start()
    try:
        yield lease
    finally:
        lease.stop()


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something becomes true; fails only when it never does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)
