"""The composition root: every part is made here, once, and handed to whoever needs it.

Holds: `Deployment` (the database, the keyring, the vault, the log and who sweeps: what `serve`, `sweep` and the other
commands on a data folder share) and `open_deployment`. Leaves out: the request path (worker), processes (serve).

Opening checks before it trusts: the keyring's modes, the schema's version, the latest instant any process has seen.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from keepless.accounts.principal import Limits, PolicyInForce
from keepless.accounts.store import model_limits_of, policy_in_force
from keepless.accounts.tables import change, model_limit, organization, project
from keepless.app.folder import bring_up_to_date, make_private, prepare
from keepless.clock import GuardedClock, SystemClock
from keepless.config import Settings
from keepless.db import Database
from keepless.errors import ConfigError
from keepless.expiry.sweep import Sweeper
from keepless.files.service import FileLimits, Files
from keepless.files.uploads import Uploads
from keepless.ids import Id
from keepless.receipts.checkpoint import Ed25519Signer
from keepless.receipts.log import Log
from keepless.vault.blobs import BlobStore, BucketBlobs, open_blobs
from keepless.vault.bucket_api import GcsApi, S3Api
from keepless.vault.door import Place, Vault
from keepless.vault.keyring import FileKeyring, open_keyring
from keepless.vault.locations import Findings, LocationGuard, check_gcs, check_local, check_s3
from keepless.vault.states import KekKind, KekState
from keepless.vault.tables import kek, kept

__all__ = [
    "Deployment", "check_keys", "is_day_key_missing", "is_empty", "limited_models", "limited_organizations",
    "open_deployment",
]  # fmt: skip

_DEFAULT_REGION: Final = "us"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What every command on a data folder shares."""

    settings: Settings
    db: Database
    clock: GuardedClock
    wall: SystemClock
    keyring: FileKeyring
    log: Log
    location: LocationGuard
    vault: Vault
    sweeper: Sweeper
    files: Files
    uploads: Uploads

    def close(self) -> None:
        """Close the database."""
        self.db.close()


def is_empty(settings: Settings) -> bool:
    """Whether nothing has been made here yet: no keyring, and no organization in the database."""
    if Path(settings.keyring.removeprefix("file://")).exists():
        return False
    if not settings.database_url and not Path(settings.data_dir).exists():
        return True
    prepare(settings.data_dir)
    make_private(settings.database)
    db = Database(settings.database)
    try:
        with db.read() as tx:
            return not sa.inspect(tx).has_table("organization")
    except sa.exc.SQLAlchemyError:
        raise ConfigError("the database cannot be reached; check database_url") from None
    finally:
        db.close()


def open_deployment(settings: Settings, *, create: bool = False) -> Deployment:
    """Open (with `create`: make) everything of a data folder. Raises `ConfigError` with what to do about it."""
    if create:
        prepare(settings.data_dir)
    keyring = open_keyring(settings.keyring, create=create)
    prepare(settings.data_dir)  # after the keyring: a folder that was mistyped is not made
    make_private(settings.database)
    db = Database(settings.database)
    try:
        bring_up_to_date(db)
        with db.read() as tx:
            floor_ms = tx.scalar(sa.select(change.c.clock_floor)) or 0
    except sa.exc.SQLAlchemyError:
        raise ConfigError("the database cannot be reached or is locked; check database_url") from None
    system = SystemClock()
    clock = GuardedClock(system, floor_ms)
    log = Log(db, clock, Ed25519Signer(keyring.log_key()), keyring, settings.log_origin)
    blobs = open_blobs(settings.blobs, os.environ)
    location = LocationGuard(blobs.name, lambda: _ask(blobs, settings.location_region), clock)
    vault = Vault(db, keyring, [Place(blobs, location)], log, clock)
    sweeper = Sweeper(db, clock, system, vault, log)
    files = Files(
        db,
        clock,
        vault,
        deleter=sweeper,
        policy_now=partial(_policy_now, db),
        limits=FileLimits(
            settings.limits.file_bytes,
            settings.limits.files,
            settings.limits.files_bytes,
            settings.limits.part_bytes,
        ),
    )
    return Deployment(
        settings,
        db,
        clock,
        system,
        keyring,
        log,
        location,
        vault,
        sweeper,
        files,
        Uploads(db, clock, vault, files, sweeper),
    )


def _policy_now(db: Database, organization_id: Id, project_id: Id) -> PolicyInForce | None:
    with db.read() as tx:
        return policy_in_force(tx, organization_id, project_id)


def check_keys(deployment: Deployment) -> None:
    """Refuse to serve with a keyring that is not the one of this database. Raises `ConfigError`.

    Not when opening: `keepless sweep --once` is how a person says that keys are lost for good. Others may make and
    destroy keys meanwhile: a key's file is there before its row, and its row is not active any more when its file goes.
    """
    before = _active_keys(deployment.db)
    files = {file.kek_id for file in deployment.keyring.kek_files()}
    if not before & _active_keys(deployment.db) <= files:  # not those that were destroyed in between
        raise ConfigError(
            "keyring: a key is missing; restore the keyring of this data folder, or, when the key is lost for good, "
            "run `keepless sweep --once`, which reports what cannot be read any more"
        )


def is_day_key_missing(deployment: Deployment, state: KekState) -> bool:
    """Whether the key of a day is gone while it is in use: some dozens of files are looked for, whatever is stored.

    ACTIVE: nothing can be kept that ends on its day. RETIRING: somebody's sweep has seen that it is gone, what is kept
    now has another, and what it wraps cannot be read.
    """
    before = {kek_id for kek_id in _day_keys(deployment.db, state) if not deployment.keyring.has(kek_id)}
    return bool(before) and bool(before & _day_keys(deployment.db, state))  # not one that was destroyed in between


def _day_keys(db: Database, state: KekState) -> set[Id]:
    """A retiring key counts while it wraps something: until then its file is not destroyed."""
    wanted = sa.select(kek.c.id).where(kek.c.state == state, kek.c.kind == KekKind.DAY)
    if state is KekState.RETIRING:
        wanted = wanted.where(sa.exists().where(kept.c.kek_id == kek.c.id))
    with db.read() as tx:
        return set(tx.scalars(wanted))


def _active_keys(db: Database) -> set[Id]:
    with db.read() as tx:
        return set(tx.scalars(sa.select(kek.c.id).where(kek.c.state == KekState.ACTIVE)))


def limited_organizations(db: Database) -> list[Id]:
    """The organizations whose requests of a day are counted: they, or one of their projects, have such a limit."""
    with db.read() as tx:
        own = sa.select(organization.c.id).where(organization.c.requests_per_day.is_not(None))
        below = sa.select(project.c.organization_id).where(project.c.requests_per_day.is_not(None))
        single = sa.select(model_limit.c.organization_id).where(model_limit.c.requests_per_day.is_not(None))
        return list(tx.scalars(own.union(below, single)))


def limited_models(db: Database) -> dict[Id, dict[str, Limits]]:
    """The models that projects have limits of their own for."""
    with db.read() as tx:
        return model_limits_of(tx, model_limit.c.requests_per_day.is_not(None))


def _ask(blobs: BlobStore, declared_region: str | None) -> Findings:
    """What the location says of itself; a folder can say nothing, so the operator's declaration stands."""
    if isinstance(blobs, BucketBlobs):
        wanted = declared_region or _DEFAULT_REGION
        if isinstance(blobs.api, S3Api):
            return check_s3(blobs.api, wanted)
        if isinstance(blobs.api, GcsApi):
            return check_gcs(blobs.api, wanted)
    return check_local(declared_region)
