"""The lease: what a process knows, for how long it may act on it, and what it does when it may not."""

import asyncio
import threading
from contextlib import AbstractContextManager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.lease import KEY_GRACE_S, LEASE_S, Lease
from keepless.accounts.roles import Role
from keepless.accounts.store import touch
from keepless.accounts.tables import api_key, change, process
from keepless.clock import SystemClock
from keepless.db import Database
from keepless.errors import ConfigError, Problem
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.policy.data_class import Feature
from tests.support.clock import FakeClock
from tests.support.governed import FlakyDatabase, deploy, digest, eventually, leased

ZDR = Patch(zero_data_retention=True, purge=False)


@pytest.fixture
def flaky(database_url: str) -> FlakyDatabase:
    db = FlakyDatabase(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    db.create_all()
    return db


def rows(database: Database) -> list[sa.Row]:
    with database.read() as tx:
        return list(tx.execute(sa.select(process)))


def test_a_lease_knows_keys_and_policy_from_its_start(database: Database) -> None:
    here = deploy(database)
    with leased(database) as lease:
        assert lease.valid and lease.keys_valid
        found = lease.principal(digest(here.initial.organization.api_key))
        assert found is not None and found.organization.id == here.organization_id
        assert found.project.id == here.project_id and found.project.effective.on == set(Feature)
        admin = lease.admin(digest(here.initial.organization.admin_key))
        assert admin is not None and admin.role is Role.OWNER and admin.loosen_until_ms is not None
        operator = lease.admin(digest(here.initial.operator_key))
        assert operator is not None and operator.role is Role.OPERATOR and operator.organization_id is None
        assert lease.principal(digest(here.initial.organization.admin_key)) is None
        assert lease.admin(digest(here.initial.organization.api_key)) is None
        assert lease.principal(b"?" * 32) is None
        assert lease.organization(here.organization_id) is not None
        assert lease.project(here.project_id) is lease.project_of(here.organization_id, here.project_id)
        assert lease.project_of(Id("org_other"), here.project_id) is None
        assert lease.snapshot_effective(Id("org_other"), here.project_id) is None


def test_one_principal_is_one_object_until_something_changes(database: Database) -> None:
    here = deploy(database)
    key = digest(here.initial.organization.api_key)
    with leased(database) as lease:
        before = lease.principal(key)
        assert lease.principal(key) is before
        here.controls.change(here.organization_id, Patch(zero_data_retention=True), here.owner)
        after = lease.principal(key)
        assert after is not None and after is not before
        assert after.organization.epoch == before.organization.epoch + 1
        assert after.project.effective.zero_data_retention and not before.project.effective.zero_data_retention


def test_a_change_is_known_when_it_has_answered(database: Database) -> None:
    here = deploy(database)
    with leased(database) as one, leased(database) as two:
        created = here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="New")
        for lease in (one, two):
            assert lease.principal(digest(created.secret)) is not None
        here.access.revoke_api_key(here.owner, here.organization_id, created.record.id)
        for lease in (one, two):
            assert lease.principal(digest(created.secret)) is None
        project = here.organizations.create_project(here.owner, here.organization_id, name="Second")
        key = here.access.create_api_key(here.owner, here.organization_id, project.id, name="Of it")
        here.controls.change(here.organization_id, Patch(off={Feature.BATCH: True}), here.owner, project_id=project.id)
        for lease in (one, two):
            policy = lease.snapshot_effective(here.organization_id, project.id)
            assert policy is not None and Feature.BATCH not in policy.effective.on
            untouched = lease.snapshot_effective(here.organization_id, here.project_id)
            assert untouched is not None and Feature.BATCH in untouched.effective.on
            assert untouched.epoch == policy.epoch
        here.organizations.archive_project(here.owner, here.organization_id, project.id)
        for lease in (one, two):
            assert lease.principal(digest(key.secret)) is None and lease.project(project.id) is None
        assert [row.acknowledged for row in rows(database)] == [one.generation] * 2


def test_keys_end_by_themselves(database: Database) -> None:
    clock = FakeClock()
    here = deploy(database, clock)
    made = here.access.create_api_key(
        here.owner, here.organization_id, here.project_id, name="hour", expires_in_seconds=3600
    )
    admin = here.access.create_admin_key(here.owner, here.organization_id, name="hour", expires_in_seconds=3600)
    assert made.record.expires_at_ms == admin.record.expires_at_ms == clock.now_ms() + 3_600_000
    with leased(database, clock) as lease:
        clock.advance_ms(3_599_000)
        eventually(lambda: lease.valid)
        assert lease.principal(digest(made.secret)) is not None
        assert lease.admin(digest(admin.secret)) is not None
        clock.advance_ms(1_001)
        eventually(lambda: lease.valid and lease.principal(digest(made.secret)) is None)
        assert lease.admin(digest(admin.secret)) is None
        assert lease.principal(digest(here.initial.organization.api_key)) is not None
    with leased(database, clock) as later:  # and a process that starts afterwards never knew them
        assert later.principal(digest(made.secret)) is None
        assert later.admin(digest(admin.secret)) is None


def test_a_deleted_organization_opens_nothing(database: Database) -> None:
    here = deploy(database)
    with leased(database) as lease:
        other = here.organizations.create(here.operator, name="Other")
        assert lease.principal(digest(other.api_key)) is not None
        here.organizations.delete(here.operator, other.organization_id)
        assert lease.principal(digest(other.api_key)) is None and lease.admin(digest(other.admin_key)) is None
        assert lease.organization(other.organization_id) is None and lease.project(other.project_id) is None
        assert lease.principal(digest(here.initial.organization.api_key)) is not None


def test_without_the_database_policy_ends_first_and_keys_later(flaky: FlakyDatabase) -> None:
    clock = FakeClock()
    here = deploy(flaky, clock)
    key, ended = digest(here.initial.organization.api_key), threading.Event()
    with leased(flaky, clock, lambda: None if lease_of[0].valid else ended.set()) as lease:
        lease_of = [lease]
        flaky.down = True
        assert lease.valid
        clock.advance_ms(int(LEASE_S * 1000))
        assert not lease.valid and lease.snapshot_effective(here.organization_id, here.project_id) is None
        assert ended.wait(20)  # what is in flight is told
        assert lease.principal(key) is not None  # inference goes on
        with pytest.raises(Problem) as unknown:
            lease.principal(b"?" * 32)  # it may have been created meanwhile
        assert unknown.value.status == 503
        with pytest.raises(Problem) as administering:
            lease.admin(digest(here.initial.organization.admin_key))
        assert administering.value.status == 503
        clock.advance_ms(int((KEY_GRACE_S - LEASE_S) * 1000))
        assert not lease.keys_valid
        with pytest.raises(Problem) as known:
            lease.principal(key)  # it may have been revoked meanwhile
        assert known.value.status == 503 and known.value.headers["retry-after"] == "1"
        flaky.down = False
        eventually(lambda: lease.valid)
        assert lease.principal(key) is not None
    flaky.close()


def test_a_database_that_cannot_be_written_ends_nothing(flaky: FlakyDatabase) -> None:
    """A full disk: reading goes on, so the lease does; what was changed elsewhere is known, though not acknowledged."""
    clock = FakeClock()
    here = deploy(flaky, clock)
    with leased(flaky, clock) as lease:
        flaky.read_only = True
        revoke_everything(flaky.engine.url.render_as_string(hide_password=False))
        eventually(lambda: lease.principal(digest(here.initial.organization.api_key)) is None)
        flaky.read_only = False
        eventually(lambda: [row.acknowledged for row in rows(flaky)] == [lease.generation])
    flaky.close()


def revoke_everything(database_url: str) -> None:
    """As another process would that can still write."""
    database = Database(database_url)
    with database.write() as tx:
        tx.execute(api_key.update().values(revoked_at=1, generation=touch(tx)))
    database.close()


def test_a_process_given_up_for_dead_registers_again(database: Database) -> None:
    deploy(database)
    with leased(database) as lease:
        (before,) = rows(database)
        with database.write() as tx:
            tx.execute(process.update().values(condemned_at=1))
        eventually(lambda: len(rows(database)) == 2)
        eventually(lambda: lease.valid and rows(database)[-1].acknowledged >= 0)
        (after,) = [row for row in rows(database) if row.condemned_at is None]
        assert after.id != before.id and after.pid == before.pid


def test_stopping_gives_the_lease_up_and_the_registration(database: Database) -> None:
    deploy(database)
    lease = Lease(database, SystemClock())
    lease.start()
    assert len(rows(database)) == 1
    lease.stop()
    lease.stop()
    assert rows(database) == [] and not lease.valid and not lease.keys_valid


def test_a_database_without_tables_is_refused(tmp_path: object) -> None:
    empty = Database(f"sqlite:///{tmp_path}/empty.sqlite")
    lease = Lease(empty, SystemClock())
    with pytest.raises(ConfigError):
        lease.start()
    assert not lease.valid
    empty.close()


def test_on_a_loop_the_swap_runs_on_the_loop_before_the_change_answers(database: Database) -> None:
    here = deploy(database)
    seen: list[tuple[int, int]] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        lease = Lease(database, SystemClock())
        lease.on_swap = lambda: seen.append((threading.get_ident(), lease.generation))
        await asyncio.to_thread(lease.start, loop)
        assert seen == []  # nothing was in flight before the first snapshot
        patch = Patch(off={Feature.INFERENCE_LOGGING: True})
        await asyncio.to_thread(here.controls.change, here.organization_id, patch, here.owner)
        assert seen == [(threading.get_ident(), lease.generation)]
        await asyncio.to_thread(lease.stop)

    asyncio.run(serve())


def test_a_loop_that_hangs_gets_no_longer_lease(database: Database) -> None:
    """The snapshot is put in place on the loop; while the loop hangs with the old one, the lease runs out."""
    here = deploy(database)
    with_old: list[bool] = []

    async def serve() -> None:
        lease = Lease(database, SystemClock())
        await asyncio.to_thread(lease.start, asyncio.get_running_loop())
        key = digest(here.initial.organization.api_key)
        changed = threading.Thread(target=here.controls.change, args=(here.organization_id, ZDR, here.owner))
        changed.start()
        changed.join()  # this blocks the loop: the change answers because the lease has ended
        found = lease.snapshot_effective(here.organization_id, here.project_id)
        with_old.append(found is not None and not found.effective.zero_data_retention)
        for _ in range(500):
            if lease.valid:
                break
            await asyncio.sleep(0.02)
        after = lease.principal(key)
        assert after is not None and after.project.effective.zero_data_retention
        await asyncio.to_thread(lease.stop)

    asyncio.run(serve())
    assert with_old == [False]


def test_asking_again_does_not_ask_the_database_without_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(database)
    reads = 0
    original = database.read

    def counting() -> AbstractContextManager[Connection]:
        nonlocal reads
        reads += 1
        return original()

    monkeypatch.setattr(database, "read", counting)
    clock = SystemClock()
    with leased(database, clock) as lease:
        began = clock.monotonic()
        while clock.monotonic() - began < 0.5:
            lease.refresh_soon()
        took = clock.monotonic() - began
        assert reads <= 2 + took / 0.05


def test_who_was_told_of_something_newer_has_it_read(flaky: FlakyDatabase) -> None:
    deploy(flaky)
    with leased(flaky, SystemClock()) as lease:
        for _ in range(5):
            with flaky.write() as tx:
                touch(tx)
                committed = generation_of(tx)
            assert lease.read_anew()
            assert lease.generation >= committed
        flaky.down = True
        assert not lease.read_anew()  # nor is there a lease
        assert not lease.valid
        flaky.down = False
        eventually(lease.read_anew)
    flaky.close()


def generation_of(tx: Connection) -> int:
    return int(tx.execute(sa.select(change.c.generation)).scalar_one())
