"""The lease: what a process knows of accounts and policy, and for how long it may act on it.

Holds: `Lease`, one a process. Leaves out: reading (snapshot), waiting for others (fence), HTTP.

1. `start` registers the process (its row in `process`), then reads everything, and only then is there a lease.
2. Every 200 ms a thread reads the generation and what changed, and whether its own row still stands. The lease runs for
   1 s from the instant BEFORE that read began: a read that began after a commit sees it, so 1 s after a change has been
   committed it is known here or nothing is acted on. No clocks are compared.
3. A changed snapshot is put in place on the event loop, followed by `on_swap` (which cancels what is no longer
   allowed). Only then is the lease extended and, by a second thread (a write may have to wait), the generation
   acknowledged.
4. When the lease ends `on_swap` is called too: without a lease a process behaves as under ZDR.

The lease is extended only after the snapshot it stands for is in place, so whoever acts on it asks `valid` FIRST and
looks up afterwards: what he then finds is at least as new as what was valid.

Two bounds (ADR 0002). *Policy* is acted on for `LEASE_S`. *API keys* are accepted for `KEY_GRACE_S` since the last
read, so that inference goes on, keeping nothing, while the database cannot be reached; a revocation therefore waits
for every registered process to acknowledge, or for that longer time. After it nobody is let in, because a key may
have been revoked.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import snapshot as snapshots
from keepless.accounts.liveness import here
from keepless.accounts.principal import AdminPrincipal, OrganizationState, PolicyInForce, Principal, ProjectState
from keepless.accounts.tables import process
from keepless.accounts.tuned import ReadTuned, Tuned, none_at_all
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, ConfigError, ErrorType, KeeplessError, Problem
from keepless.ids import Id, Prefix, mint
from keepless.log import Event, emit, failure

__all__ = ["KEY_GRACE_S", "LEASE_S", "AdminPrincipal", "Lease", "Principal"]

LEASE_S: Final = 1.0
KEY_GRACE_S: Final = 30.0
POLL_S: Final = 0.2
_SOONEST_S: Final = 0.05  # between two reads, however often somebody asks for one
_LOOK_S: Final = 0.01
_HEARTBEAT_S: Final = 30.0
_NEVER: Final = float("-inf")
# Asked many times a second: made once.
_REGISTERED: Final = sa.select(process.c.id).where(
    process.c.id == sa.bindparam("own"), process.c.condemned_at.is_(None)
)
_UNREACHABLE: Final = (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, KeeplessError)


def _nothing() -> None:
    """For a process that has nothing in flight."""


def _unreadable() -> Problem:
    return Problem(
        503,
        Code.POLICY_UNREADABLE,
        "Keys and data controls cannot be read at the moment. Try again shortly.",
        type=ErrorType.SERVER,
        headers={"retry-after": "1"},
    )


class Lease:
    """What this process may act on. The properties and look-ups take no lock and ask no database.

    `on_swap` runs on the event loop (or, without one, in the reader's thread) after every change of the snapshot and
    when the lease has ended. `read_tuned`: for processes that serve tuned models.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        on_swap: Callable[[], None] = _nothing,
        read_tuned: ReadTuned = none_at_all,
    ) -> None:
        self.on_swap = on_swap
        self._db: Final = db
        self._clock: Final = clock
        self._read_tuned: Final = read_tuned
        self._loop: asyncio.AbstractEventLoop | None = None
        self._snapshot = snapshots.EMPTY
        self._until = _NEVER
        self._keys_until = _NEVER
        self._in_place = -1
        self._had_lease = False
        self._end_enforced = False
        self._id: Id | None = None
        self._stopping: Final = threading.Event()
        self._wake: Final = threading.Event()
        self._to_acknowledge: Final = threading.Event()
        self._threads: list[threading.Thread] = []

    # --- the request path -------------------------------------------------------------------------------------------

    @property
    def valid(self) -> bool:
        """Whether policy may be acted on; without it behave as under ZDR: keep nothing, route to `zero` only."""
        return self._clock.monotonic() < self._until

    @property
    def keys_valid(self) -> bool:
        """Whether API keys may be accepted."""
        return self._clock.monotonic() < self._keys_until

    @property
    def generation(self) -> int:
        """The generation this process acts under; -1 before the first read."""
        return self._snapshot.generation

    def principal(self, digest: bytes) -> Principal | None:
        """What an API key stands for; None = no such key.

        Raises `Problem` 503 when that cannot be known: the snapshot is too old to accept any key, or the key is unknown
        and there is no lease.
        """
        now = self._clock.monotonic()
        accepted, known = now < self._keys_until, now < self._until
        found = self._snapshot.principal(digest)
        if not accepted or (found is None and not known):
            raise _unreadable()
        return found

    def admin(self, digest: bytes) -> AdminPrincipal | None:
        """What an admin or operator key stands for; None = no such key. Raises `Problem` 503 without a lease."""
        if not self.valid:
            raise _unreadable()
        return self._snapshot.admins.get(digest)

    def organization(self, organization_id: Id) -> OrganizationState | None:
        """An organization; None when there is none. Ask `valid` before acting on it."""
        return self._snapshot.organizations.get(organization_id)

    def project(self, project_id: Id) -> ProjectState | None:
        """A project; None when there is none. Ask `valid` before acting on it."""
        found = self._snapshot.projects.get(project_id)
        return None if found is None else found[1]

    def project_of(self, organization_id: Id, project_id: Id) -> ProjectState | None:
        """A project of this organization; None for another's."""
        found = self._snapshot.projects.get(project_id)
        return found[1] if found is not None and found[0] == organization_id else None

    def snapshot_effective(self, organization_id: Id, project_id: Id) -> PolicyInForce | None:
        """What is in force for a project and its epoch, from one snapshot; None = policy is not readable."""
        return self._snapshot.policy(organization_id, project_id) if self.valid else None

    def tuned(self, hexadecimal: str) -> Tuned | None:
        """A tuned model by its digits; None when there is none. Ask `valid` before acting on it."""
        return self._snapshot.tuned.get(hexadecimal)

    def tuned_of(self, project_id: Id) -> list[Tuned]:
        """The tuned models of a project, the newest first. Ask `valid` before acting on it."""
        found = [model for model in self._snapshot.tuned.values() if model.project_id == project_id]
        return sorted(found, key=lambda model: model.created_at, reverse=True)

    def refresh_soon(self) -> None:
        """Read again at once, at most 20 times a second: for an unknown key, and after a change made here."""
        self._wake.set()

    def read_anew(self) -> bool:
        """Wait for a read that begins after this call, no longer than a lease lasts; whether there was one. Blocks.

        For whoever was told of something that this process may not have read yet.
        """
        began = self._clock.monotonic()
        while self._until - LEASE_S < began:
            if self._stopping.is_set() or self._clock.monotonic() - began > LEASE_S:
                return False
            self._wake.set()
            self._stopping.wait(_LOOK_S)
        return True

    # --- the process ------------------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Register, read everything, and keep it up to date. Blocks for the first read: call it from a worker thread.

        Raises ConfigError when the database cannot be used (then nothing is registered and nothing runs).
        """
        self._loop = loop
        try:
            self._register()
            self._refresh()
        except sa.exc.SQLAlchemyError:
            raise ConfigError("the database cannot be read and written: is it the right one, and migrated?") from None
        for target in (self._keep_reading, self._keep_acknowledging):
            thread = threading.Thread(target=target, name=f"lease-{target.__name__.strip('_')}", daemon=True)
            self._threads.append(thread)
            thread.start()
        if loop is not None:
            loop.call_soon_threadsafe(self._watch)

    def stop(self) -> None:
        """Give the lease up, then the registration: from now on nobody waits for this process. Idempotent."""
        self._stopping.set()
        self._wake.set()
        self._to_acknowledge.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._until = self._keys_until = _NEVER
        own, self._id = self._id, None
        if own is not None:
            with contextlib.suppress(*_UNREACHABLE), self._db.write() as tx:
                tx.execute(process.delete().where(process.c.id == own))

    def _register(self) -> None:
        place, now_ms, own = here(), self._clock.now_ms(), mint(Prefix.PROCESS)
        with self._db.write() as tx:
            tx.execute(
                process.insert().values(
                    id=own,
                    started_at=now_ms,
                    seen_at=now_ms,
                    acknowledged=-1,
                    host=place.host,
                    pid=place.pid,
                    born=place.born,
                )
            )
        self._id = own

    def _refresh(self) -> bool:
        """One read; extends the lease. False when this process has been given up for dead and must register again."""
        began = self._clock.monotonic()
        with self._db.read() as tx:
            if not self._db.sqlite:
                tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            if not self._registered(tx):
                return False
            found = snapshots.read(tx, self._snapshot, self._read_tuned)
        found = snapshots.without_ended(found, self._clock.now_ms())
        if found is not self._snapshot:
            self._put_in_place(found)
        if not self._stopping.is_set():
            self._until, self._keys_until = began + LEASE_S, began + KEY_GRACE_S
        return True

    def _registered(self, tx: Connection) -> bool:
        return tx.execute(_REGISTERED, {"own": self._id}).first() is not None

    def _put_in_place(self, found: snapshots.Snapshot) -> None:
        """Make it the snapshot on the event loop's thread, so that no callback sees two policies; wait until done."""
        done = threading.Event()

        def swap() -> None:
            self._snapshot = found
            if self._threads:  # else nothing has been served yet
                self.on_swap()
            self._in_place = found.generation
            done.set()

        if self._loop is None or not self._threads:
            swap()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is served any more
                self._loop.call_soon_threadsafe(swap)
            while not done.wait(POLL_S) and not self._stopping.is_set():
                pass  # the loop is busy; the lease is not extended meanwhile, so it ends by itself
        self._to_acknowledge.set()

    def _keep_reading(self) -> None:
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                if not self._refresh():
                    self._register()
                    self._to_acknowledge.set()
                    self._wake.set()
                self._note(None)
            except _UNREACHABLE as error:
                self._note(error)
            if self._loop is None:
                self._enforce_end()
            self._wake.wait(POLL_S)
            self._wake.clear()
            self._stopping.wait(max(0.0, _SOONEST_S - (self._clock.monotonic() - began)))

    def _keep_acknowledging(self) -> None:
        done: tuple[Id | None, int] = (None, -1)
        while not self._stopping.is_set():
            due = self._to_acknowledge.wait(_HEARTBEAT_S)
            self._to_acknowledge.clear()
            now = (self._id, self._in_place)
            if due and now == done:
                continue
            try:
                with self._db.write() as tx:
                    own = process.update().where(process.c.id == now[0])
                    tx.execute(own.values(acknowledged=now[1], seen_at=self._clock.now_ms()))
                done = now
            except _UNREACHABLE:
                self._stopping.wait(POLL_S)
                self._to_acknowledge.set()  # try again: others are waiting, though never longer than for the lease

    def _note(self, error: BaseException | None) -> None:
        """Say when the lease was gained or lost."""
        valid = self.valid
        if valid == self._had_lease or self._stopping.is_set():
            return
        self._had_lease = valid
        event = Event.LEASE_GAINED if valid else Event.LEASE_LOST
        if error is None:
            emit(event, generation=self._in_place)
        else:
            failure(event, error, generation=self._in_place)

    def _enforce_end(self) -> None:
        """Once for every lease that has ended: what is in flight must obey ZDR now."""
        valid = self.valid
        if not valid and not self._end_enforced:
            self.on_swap()
        self._end_enforced = not valid

    def _watch(self) -> None:
        """On the event loop: when the lease has ended, enforce that, even when the reader itself hangs."""
        self._enforce_end()
        if self._loop is not None and not self._stopping.is_set():
            self._loop.call_later(POLL_S, self._watch)
