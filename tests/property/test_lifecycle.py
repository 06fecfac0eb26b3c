"""The life of everything that is kept, with a crash between any two steps, against a model of what must be true."""

import contextlib
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.engine import Connection

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.progress import request
from keepless.expiry.purge import Outcome
from keepless.expiry.report import Report
from keepless.expiry.sweep import ROLL_EVERY_MS, Sweeper
from keepless.governance.holds import HoldOrder, Holds
from keepless.ids import Id, Prefix, mint
from keepless.log import redirect
from keepless.policy.controls import Controls, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.policy.period import Ratchet, ratchets_after
from keepless.receipts.statement import EntryKind
from keepless.vault.blobs import MemoryBlobs
from keepless.vault.catalogue import some_kept
from keepless.vault.door import Place, Vault
from keepless.vault.envelope import Facts, unseal, unwrap
from keepless.vault.keyring import FileKeyring
from keepless.vault.locations import LocationGuard, check_local
from keepless.vault.reading import Labelled
from keepless.vault.rows import Kept
from keepless.vault.sinks import BlobSink
from keepless.vault.states import KekState, PurgeState, TombstoneState
from keepless.vault.tables import intent, kek, kept, kept_total, legal_hold, purge, tombstone
from tests.support.accounts import make_organization
from tests.support.clock import FakeClock
from tests.support.log import make_log
from tests.support.postgres import Cluster
from tests.support.sweeping import HOUR_MS, OPERATOR
from tests.support.vault import TRIGGERS, CrashError

START_MS = 4_000_000_000_000  # far ahead of the file system's clock, so that every file is older than the grace
LOG, BATCH, WEIGHTS = DataClass.RELIABILITY_LOG, DataClass.BATCH_INPUT, DataClass.MODEL_WEIGHTS
CLASSES = [LOG, LOG, BATCH, WEIGHTS]
DATA = b"what a customer said"
WAYS = ["whole", "streamed", "journal"]


class Fuse:
    """Counts the steps of a process; when it has burnt down the process is dead and every further step says so."""

    def __init__(self) -> None:
        self.left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise CrashError


class MortalDatabase(Database):
    """Dies before a transaction, before its commit, or after it."""

    fuse: Fuse

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        self.fuse.step()
        with super().write() as tx:
            yield tx
            self.fuse.step()
        self.fuse.step()


class MortalKeyring(FileKeyring):
    """Dies before or after a key is made or destroyed."""

    fuse: Fuse

    def create(self, kek_id: Id) -> bytes:
        self.fuse.step()
        key = super().create(kek_id)
        self.fuse.step()
        return key

    def destroy(self, kek_id: Id) -> bool:
        self.fuse.step()
        done = super().destroy(kek_id)
        self.fuse.step()
        return done


class MortalSink:
    """A blob that comes piece by piece, and dies before and after each."""

    def __init__(self, sink: BlobSink, fuse: Fuse) -> None:
        self.sink, self.fuse = sink, fuse

    def write(self, piece: bytes | memoryview) -> None:
        self.fuse.step()
        self.sink.write(piece)

    def finish(self) -> None:
        self.fuse.step()
        self.sink.finish()
        self.fuse.step()

    def abort(self) -> None:
        self.fuse.step()
        self.sink.abort()


class MortalStore(MemoryBlobs):
    """Dies before, after and in the middle of its work; acknowledges nothing while it is down."""

    fuse: Fuse
    down = False

    def put(self, blob: Id, pieces: Sequence[bytes]) -> None:
        self.fuse.step()
        super().put(blob, pieces)
        self.fuse.step()

    def append(self, journal: Id, position: int, part: int, group: bytes) -> None:
        self.fuse.step()
        super().append(journal, position, part, group)
        self.fuse.step()

    def begin(self, blob: Id) -> BlobSink:
        self.fuse.step()
        return MortalSink(super().begin(blob), self.fuse)

    def delete(self, blobs: Sequence[Id]) -> list[Id]:
        gone: list[Id] = []
        for blob in blobs:
            self.fuse.step()
            gone += [] if self.down else super().delete([blob])
        return gone


def is_journal(row: Kept) -> bool:
    return row.blob.startswith(Prefix.JOURNAL)


@dataclass
class Thing:
    """What the model knows of one object. `end` only ever comes nearer."""

    id: Id
    organization_id: Id
    project_id: Id
    data_class: DataClass
    created: int
    end: int | None
    condemned: bool = False  # covered by a purge that an owner asked for
    deleted_at: int | None = None  # when its row was first seen to be gone


@dataclass
class Level:
    """An organization or a project of the model."""

    organization_id: Id
    project_id: Id  # "" = the organization itself
    days: int | None = None
    ratchets: tuple[Ratchet, ...] = ()
    was: list[tuple[int, int]] = field(default_factory=list)  # (when it was given up, days) of every earlier period


@dataclass
class Account:
    id: Id
    projects: list[Id]
    epoch: int = 1
    logging: bool = True
    levels: list[Level] = field(default_factory=list)


@dataclass
class Scope:
    """A hold of the model."""

    id: Id
    organization_id: Id
    project_id: Id | None
    object_id: Id | None

    def covers(self, thing: Thing) -> bool:
        same_project = self.project_id is None or self.project_id == thing.project_id
        same_object = self.object_id is None or self.object_id == thing.id
        return self.organization_id == thing.organization_id and same_project and same_object


class Lifecycle(RuleBasedStateMachine):
    """Every rule is one act of a person or of time; any of them can die half-way (`light_the_fuse`)."""

    fresh: ClassVar[Callable[[], str]]  # the address of an empty database
    folder: ClassVar[Path]
    runs: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        redirect(io.StringIO())
        type(self).runs += 1
        self.clock = FakeClock(START_MS)
        self.fuse = Fuse()
        self.database = MortalDatabase(type(self).fresh())
        if self.database.sqlite:  # processes die here, not machines: nothing has to reach the disk
            sa.event.listen(self.database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
        self.database.fuse = self.fuse
        self.database.create_all()
        self.store = MortalStore()
        self.store.fuse = self.fuse
        self.keyring = MortalKeyring.initialise(self.folder / f"keyring-{self.runs}")
        self.keyring.fuse = self.fuse
        self.accounts = []
        for projects in (2, 1):
            organization_id, first = make_organization(self.database)
            account = Account(organization_id, [first])
            for _ in range(projects - 1):
                account.projects.append(mint(Prefix.PROJECT))
                row = {"id": account.projects[-1], "organization_id": organization_id, "name": "", "created_at": 0}
                with self.database.write() as tx:
                    tx.execute(accounts.project.insert().values(row | {"generation": 0}))
            account.levels = [Level(organization_id, Id(""))] + [
                Level(organization_id, project_id) for project_id in account.projects
            ]
            self.accounts.append(account)
        self.things: dict[Id, Thing] = {}
        self.holds: dict[Id, Scope] = {}
        self.copies: list[tuple[Kept, bytes]] = []
        self.journals: dict[Id, int] = {}  # how many records each is known to hold
        self.swept_ms = 0  # the last clean sweep
        self.start_process()

    def start_process(self) -> None:
        self.fuse.left = None
        self.guard = LocationGuard(self.store.name, lambda: check_local(None), self.clock)
        self.guard.check()
        self.log = make_log(self.database, self.clock)
        self.vault = Vault(self.database, self.keyring, [Place(self.store, self.guard)], self.log, self.clock)
        self.sweeper = Sweeper(self.database, self.clock, self.clock, self.vault, self.log, batch=3)
        self.hold_office = Holds(self.database, self.clock, self.log, self.sweeper)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    # --- the model ---------------------------------------------------------------------------------------------------

    def account(self, organization_id: Id) -> Account:
        return next(account for account in self.accounts if account.id == organization_id)

    def is_held(self, thing: Thing) -> bool:
        return any(scope.covers(thing) for scope in self.holds.values())

    def has_ended(self, thing: Thing) -> bool:
        return thing.end is not None and thing.end <= self.clock.now_ms()

    def is_due(self, thing: Thing) -> bool:
        return not self.is_held(thing) and (self.has_ended(thing) or thing.condemned)

    def kept_rows(self) -> dict[Id, Kept]:
        with self.database.read() as tx:
            return {row.id: row for row in some_kept(tx, tx.execute(sa.select(kept.c.id)).scalars().all())}

    def rows(self, table: sa.Table) -> list[Any]:
        with self.database.read() as tx:
            return list(tx.execute(sa.select(table)))

    @contextlib.contextmanager
    def maybe_dying(self) -> Iterator[None]:
        """Run an act; when it dies, start a new process once the dead one's turn has run out."""
        try:
            yield
        except CrashError:
            self.clock.advance_ms(61_000)
            self.start_process()
            self.learn()

    def learn(self) -> None:
        """After a crash, what was in flight either happened or did not: ask the rows which."""
        rows = self.kept_rows()
        for object_id in rows.keys() - self.things.keys():
            self.add(rows[object_id])
        with self.database.read() as tx:
            c = legal_hold.c
            placed = sa.select(c.id, c.organization_id, c.project_id, c.object_id).where(c.released_at.is_(None))
            self.holds = {row.id: Scope(*row) for row in tx.execute(placed)}

    def add(self, row: Kept) -> None:
        thing = Thing(row.id, row.organization_id, row.project_id, row.data_class, row.created_at, row.expires_at)
        for level in self.account(row.organization_id).levels:
            if row.data_class is LOG and level.project_id in ("", row.project_id):
                self.bind(thing, level.days)
                for until_ms, days in level.was:  # what is as old as the very millisecond of a change is bound by both
                    self.bind(thing, days if thing.created <= until_ms else None)
        self.things[row.id] = thing

    @staticmethod
    def bind(thing: Thing, days: int | None) -> None:
        if days is not None:
            thing.end = min(thing.end or 2**62, thing.created + days * DAY_MS)

    # --- acts --------------------------------------------------------------------------------------------------------

    @rule(steps=st.integers(0, 60))
    def light_the_fuse(self, steps: int) -> None:
        self.fuse.left = steps

    @rule(
        wanted=st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from(CLASSES), st.sampled_from(WAYS)), min_size=1, max_size=5
        )
    )
    def put(self, wanted: list[tuple[int, DataClass, str]]) -> None:
        for who, data_class, way in wanted:
            self.put_one(who, data_class, way)

    def put_one(self, who: int, data_class: DataClass, way: str) -> None:
        account = self.accounts[who // 2]
        project_id = account.projects[who % len(account.projects)]
        days = [level.days for level in account.levels if level.project_id in ("", project_id)]
        shortest = min((one for one in days if one is not None), default=None)
        controls = Controls(
            off=frozenset() if account.logging else frozenset({Feature.INFERENCE_LOGGING}),
            retention_days={} if shortest is None else {LOG: shortest},
        )
        trigger, reason = TRIGGERS.get(data_class, (Trigger.FEATURE, Reason.CUSTOMER_UPLOAD))
        decision = decide(
            Query(
                organization_id=account.id,
                project_id=project_id,
                data_class=data_class,
                trigger=trigger,
                reason=reason,
                effective=effective(controls),
                epoch=account.epoch,
                created_at_ms=self.clock.now_ms(),
            )
        )
        if not isinstance(decision, Retain):
            assert data_class is LOG
            assert not account.logging
            return
        with self.maybe_dying():
            if way == "journal":
                self.keep_a_journal(decision)
                return
            row = self.stream(decision) if way == "streamed" else self.vault.put(Content(DATA), decision)
            self.add(row)
            self.copies.append((row, self.store.get(row.blob)))

    def keep_a_journal(self, permit: Retain) -> None:
        journal = self.vault.journal(permit)
        self.add(journal.row)
        for count in range(3):
            self.journals[journal.object_id] = count
            journal.append([Content(DATA)])
        self.journals[journal.object_id] = 3

    def read(self, thing: Thing, row: Kept | None) -> Content:
        """What is kept; of a journal, that it holds what was appended and nothing else."""
        if row is None or not is_journal(row):
            return self.vault.read(thing.id, thing.organization_id, Purpose.CUSTOMER)
        records = list(self.vault.journal_records(thing.id, thing.organization_id))
        assert all(record.reveal(Purpose.CUSTOMER) == DATA for record in records)
        assert 0 <= len(records) - self.journals.get(thing.id, 0) <= 1  # one may have been committed by a dying process
        return Content(DATA)

    def stream(self, permit: Retain) -> Kept:
        with self.vault.writing(Id(permit.organization_id)) as writer:
            for at in range(len(DATA)):
                writer.write(Content(DATA[at : at + 1]))
            return writer.commit(permit, label=Content(DATA))

    @rule(amount=st.sampled_from([60_000, 6 * HOUR_MS, DAY_MS, 4 * DAY_MS, 31 * DAY_MS]))
    def pass_time(self, amount: int) -> None:
        self.clock.advance_ms(amount)
        self.guard.check()

    @rule(who=st.integers(0, 4), days=st.sampled_from([None, 1, 3]))
    def change_period(self, who: int, days: int | None) -> None:
        level = [level for account in self.accounts for level in account.levels][who]
        now_ms = self.clock.now_ms()
        ratchets = ratchets_after(
            present=level.ratchets, days_before=level.days, days_after=days, ceiling=30, now_ms=now_ms
        )
        key = {"organization_id": level.organization_id, "project_id": level.project_id, "data_class": LOG}
        account = self.account(level.organization_id)
        with self.maybe_dying(), self.database.write() as tx:
            for table in (accounts.period, accounts.ratchet):
                tx.execute(table.delete().where(*(table.c[name] == value for name, value in key.items())))
            if days is not None:
                tx.execute(accounts.period.insert().values(key | {"days": days}))
            for one in ratchets:
                values = {"created_before": one.created_before_ms, "days": one.days}
                tx.execute(accounts.ratchet.insert().values(key | values))
            self.bump(tx, account.id)
        if self.epoch_now(account.id) == account.epoch:
            return  # it died before the commit
        account.epoch += 1
        # Lengthening never lengthens: what was there stays bound by the period it has been under.
        if level.days is not None:
            level.was.append((now_ms, level.days))
        level.days, level.ratchets = days, ratchets
        for thing in self.things.values():
            bound = thing.organization_id == account.id and thing.data_class is LOG
            if bound and level.project_id in ("", thing.project_id):
                self.bind(thing, days)

    @rule(who=st.integers(0, 1), back_on=st.sampled_from([True, True, False]))
    def turn_logging_off(self, who: int, back_on: bool) -> None:
        """The purge covers what was written before, also when logging is allowed again before the next sweep."""
        self.toggle_logging(self.accounts[who])
        if back_on and not self.accounts[who].logging:
            self.toggle_logging(self.accounts[who])

    def toggle_logging(self, account: Account) -> None:
        with self.maybe_dying(), self.database.write() as tx:
            self.bump(tx, account.id, inference_logging_off=account.logging)
            if account.logging:
                request(
                    tx,
                    organization_id=account.id,
                    project_id=None,
                    classes=[LOG, DataClass.ABUSE_LOG],
                    epoch=account.epoch + 1,
                    now_ms=self.clock.now_ms(),
                )
        if self.epoch_now(account.id) == account.epoch:
            return
        account.epoch += 1
        for thing in self.things.values():
            thing.condemned |= account.logging and thing.organization_id == account.id and thing.data_class is LOG
        account.logging = not account.logging

    def bump(self, tx: Connection, organization_id: Id, **values: object) -> None:
        table = accounts.organization
        tx.execute(table.update().where(table.c.id == organization_id).values(epoch=table.c.epoch + 1, **values))

    def epoch_now(self, organization_id: Id) -> int:
        with self.database.read() as tx:
            table = accounts.organization
            return tx.execute(sa.select(table.c.epoch).where(table.c.id == organization_id)).scalar_one()

    @rule(who=st.integers(0, 2), pick=st.integers(0, 30), narrow=st.sampled_from(["", "project", "object"]))
    def place_hold(self, who: int, pick: int, narrow: str) -> None:
        account = self.accounts[who // 2]
        project_id = account.projects[who % len(account.projects)] if narrow == "project" else None
        rows = [row for row in self.kept_rows().values() if row.organization_id == account.id]
        object_id = rows[pick % len(rows)].id if narrow == "object" and rows else None
        order = HoldOrder(
            organization_id=account.id,
            project_id=project_id,
            object_id=object_id,
            reason=HoldReason.LITIGATION,
            authority=HoldAuthority.COURT_ORDER,
            reference="1",
            review_at_ms=self.clock.now_ms() + 1,
        )
        with self.maybe_dying():
            hold = self.hold_office.place(order, OPERATOR)
            self.holds[hold.id] = Scope(hold.id, account.id, project_id, object_id)

    @precondition(lambda self: self.holds)
    @rule(pick=st.integers(0, 30))
    def release_hold(self, pick: int) -> None:
        scope = sorted(self.holds.values(), key=lambda one: one.id)[pick % len(self.holds)]
        with self.maybe_dying():
            self.hold_office.release(scope.organization_id, scope.id, OPERATOR)
            del self.holds[scope.id]

    @precondition(lambda self: self.things)
    @rule(pick=st.integers(0, 1000), down=st.sampled_from([False, False, True]))
    def delete(self, pick: int, down: bool) -> None:
        self.store.down = down
        thing = list(self.things.values())[pick % len(self.things)]
        before = thing.id in self.kept_rows()
        with self.maybe_dying():
            outcome = self.sweeper.delete_object(thing.organization_id, thing.id).outcome
            if before and self.has_ended(thing):
                assert outcome is Outcome.UNKNOWN
            elif before and self.is_held(thing):
                assert outcome is Outcome.HELD
            elif before:
                assert outcome is (Outcome.PENDING if self.store.down else Outcome.DELETED)

    @rule(later=st.sampled_from([0, 13 * HOUR_MS, 4 * DAY_MS, 31 * DAY_MS]), down=st.sampled_from([False] * 4 + [True]))
    def sweep(self, later: int, down: bool) -> None:
        self.store.down = down
        self.pass_time(later)
        with self.maybe_dying():
            report = self.sweeper.sweep_once()
            self.judge(report)

    @rule()
    def copy_everything(self) -> None:
        """A thief's or a backup's copy of database and blobs. It opens now: that is what makes the rest meaningful."""
        for row in self.kept_rows().values():
            with contextlib.suppress(KeeplessError):
                self.copies.append((row, self.store.get(row.blob)))
                assert self.opens(*self.copies[-1]) == DATA

    def opens(self, row: Kept, ciphertext: bytes) -> bytes:
        facts = Facts(
            organization_id=row.organization_id,
            project_id=row.project_id,
            data_class=row.data_class,
            object_id=row.id,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )
        dek = unwrap(self.keyring.load(row.kek_id), row.wrapped_dek, facts)
        if is_journal(row):
            return DATA  # its records open with this key
        return unseal(dek, facts, row.blob, ciphertext).reveal(Purpose.PROVE)

    @rule()
    def all_is_accounted_for_after_two_sweeps_past_the_grace(self) -> None:
        self.fuse.left = None
        self.store.down = False
        self.pass_time(HOUR_MS + 1)
        for _ in range(2):
            report = self.sweeper.sweep_once(confirm=True)
            self.pass_time(1)
        assert report.clean
        self.judge(report)
        rows = self.kept_rows().values()
        assert set(self.store.listed(2**53)) == {row.blob for row in rows}
        assert self.rows(intent) == []
        living = {row.id for row in self.rows(kek) if row.state is not KekState.DESTROYED}
        assert {file.kek_id for file in self.keyring.kek_files()} == living
        assert {row.kek_id for row in rows} <= living

    def judge(self, report: Report) -> None:
        """After a sweep that found nothing in its way, everything due is destroyed and nothing else is."""
        if not report.clean or self.store.down:
            return
        self.swept_ms = self.clock.now_ms()
        rows = self.kept_rows()
        for thing in self.things.values():
            assert not (self.is_due(thing) and thing.id in rows)
        assert all(row.state is TombstoneState.DESTROYED for row in self.rows(tombstone))
        for row in self.rows(purge):
            covered = [t for t in self.things.values() if t.condemned and t.organization_id == row.organization_id]
            left = [thing for thing in covered if thing.id in rows and rows[thing.id].epoch < row.epoch]
            assert row.state is (PurgeState.PARTIAL if left else PurgeState.DONE)

    @rule(seed=st.integers(0, 2**32))
    def live_a_while(self, seed: int) -> None:
        """A dozen acts at once, in the proportions of a busy deployment."""
        draw = random.Random(seed)
        acts = {
            lambda: self.put(
                [(draw.choice([0, 0, 0, 1, 2]), draw.choice(CLASSES), draw.choice(WAYS)) for _ in range(3)]
            ): 5,
            lambda: self.pass_time(draw.choice([6 * HOUR_MS, DAY_MS])): 2,
            lambda: self.change_period(draw.choice([0, 0, 1, 2, 4]), draw.choice([None, 1, 3])): 4,
            lambda: self.turn_logging_off(draw.choice([0, 0, 1]), True): 2,
            lambda: self.place_hold(draw.randrange(3), draw.randrange(30), draw.choice(["", "project", "object"])): 3,
            lambda: self.release_hold(draw.randrange(30)) if self.holds else None: 3,
            lambda: self.delete(draw.randrange(1000), False) if self.things else None: 2,
            lambda: self.sweep(draw.choice([0, 13 * HOUR_MS, 2 * DAY_MS]), False): 5,
            self.copy_everything: 2,
            lambda: self.light_the_fuse(draw.randrange(80)): 1,
        }
        for act in draw.choices(list(acts), list(acts.values()), k=12):
            act()
            self.what_ended_is_not_served_and_what_lives_is()
            self.nothing_goes_without_a_reason_and_a_tombstone()

    # --- what is always true -----------------------------------------------------------------------------------------

    @invariant()
    def what_ended_is_not_served_and_what_lives_is(self) -> None:
        rows = self.kept_rows()
        labelled = self.labels()
        for thing in self.things.values():
            try:
                content = self.read(thing, rows.get(thing.id))
            except KeeplessError:
                lives = thing.id in rows and not self.has_ended(thing) and not thing.condemned
                assert not lives
            else:
                assert content.reveal(Purpose.CUSTOMER) == DATA
                assert thing.id in labelled
                assert thing.id in rows
                assert not self.has_ended(thing)

    def labels(self) -> set[Id]:
        found: dict[Id, Labelled] = {}
        for account in self.accounts:
            found |= self.vault.labels(list(self.things), account.id, Purpose.CUSTOMER)
        texts = {one: it.label.reveal(Purpose.CUSTOMER) for one, it in found.items() if it.label is not None}
        assert all(text == DATA or len(text) == 8 for text in texts.values())  # 8 bytes: the length of a journal
        return set(found)

    @invariant()
    def nothing_goes_without_a_reason_and_a_tombstone(self) -> None:
        rows, graves = self.kept_rows(), {row.object_id: row for row in self.rows(tombstone)}
        assert not rows.keys() & graves.keys()
        for thing in self.things.values():
            if thing.id not in rows:
                grave = graves[thing.id]
                assert (grave.organization_id, grave.data_class) == (thing.organization_id, thing.data_class)
                thing.deleted_at = grave.deleted_at
                reasons = {"customer": True, "controls": thing.condemned}
                ended = thing.end is not None and thing.end <= grave.deleted_at
                assert reasons.get(grave.cause, ended)

    @invariant()
    def every_purge_has_exactly_one_receipt(self) -> None:
        with self.database.read() as tx:
            entries = self.log.entries(tx, kinds=[EntryKind.DELETED], limit=100_000)
        settled = [row for row in self.rows(tombstone) if row.state is TombstoneState.DESTROYED]
        assert sorted(entry.object_id for entry in entries) == sorted(row.object_id for row in settled)
        assert {entry.receipt_id for entry in entries} == {row.receipt_id for row in settled}

    @invariant()
    def totals_are_counts(self) -> None:
        counted: dict[tuple[Id, Id, DataClass], list[int]] = {}
        for row in self.kept_rows().values():
            total = counted.setdefault((row.organization_id, row.project_id, row.data_class), [0, 0])
            total[0] += 1
            total[1] += row.size
        said = {
            (row.organization_id, row.project_id, row.data_class): [row.objects, row.bytes]
            for row in self.rows(kept_total)
        }
        assert {key: total for key, total in said.items() if total != [0, 0]} == counted

    @invariant()
    def no_copy_opens_what_was_shredded_half_a_day_before_the_last_sweep(self) -> None:
        for row, ciphertext in self.copies:
            thing = self.things.get(row.id)
            if thing is None or thing.deleted_at is None or thing.deleted_at + ROLL_EVERY_MS > self.swept_ms:
                continue
            with pytest.raises(KeeplessError):
                self.opens(row, ciphertext)


def run(fresh: Callable[[], str], folder: Path, examples: int, steps: int) -> None:
    machine = type("Machine", (Lifecycle,), {"fresh": staticmethod(fresh), "folder": folder})
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def sqlite_in(folder: Path) -> Callable[[], str]:
    return lambda: f"sqlite:///{folder}/{mint(Prefix.PROCESS)}.sqlite"


def test_lifecycle_on_sqlite(tmp_path: Path) -> None:
    run(sqlite_in(tmp_path), tmp_path, examples=10, steps=20)


def test_lifecycle_on_postgresql(postgres: Cluster, tmp_path: Path) -> None:
    with contextlib.ExitStack() as databases:

        def fresh() -> str:
            return databases.enter_context(postgres.database()).replace("postgresql://", "postgresql+psycopg://", 1)

        run(fresh, tmp_path, examples=3, steps=12)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_lifecycle_at_length(tmp_path: Path) -> None:
    run(sqlite_in(tmp_path), tmp_path, examples=60, steps=30)
