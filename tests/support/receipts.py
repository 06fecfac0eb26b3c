"""Receipts for tests: a log with one deletion and the destruction of its key; with fixed salts and ids when asked."""

from hashlib import sha256
from typing import Final

import pytest

from keepless.db import Database
from keepless.ids import Id, Prefix
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.receipts import log as log_module
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, captured, deleted, key_destroyed
from keepless.vault.states import Cause, KekKind
from tests.support.log import make_log

ORGANIZATION: Final = Id("org_" + "o" * 24)
PROJECT: Final = Id("proj_" + "p" * 24)
OBJECT: Final = Id("obj_" + "b" * 24)
KEK: Final = Id("kek_" + "k" * 24)
BORN: Final = 1_761_400_000_000
DELETED: Final = 1_764_000_000_000
DESTROYED: Final = DELETED + 7_200_000


def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Salts and receipt ids that are the same in every run."""
    numbers = iter(range(1000))
    monkeypatch.setattr(
        log_module, "new_salts", lambda count: [sha256(b"salt %d" % next(numbers)).digest() for _ in range(count)]
    )
    monkeypatch.setattr(
        log_module, "mint", lambda prefix: Id(prefix.value + "r" * 24) if prefix is Prefix.RECEIPT else None
    )


def deletion(object_id: Id = OBJECT, kek_id: Id = KEK, deleted_at_ms: int = DELETED) -> Entry:
    """The statement of a receipt."""
    return deleted(
        at_ms=deleted_at_ms + 12,
        organization_id=ORGANIZATION,
        project_id=PROJECT,
        object_id=object_id,
        data_class=DataClass.RELIABILITY_LOG,
        reason=Reason.UPSTREAM_CUT,
        cause=Cause.EXPIRED,
        created_at_ms=BORN,
        deleted_at_ms=deleted_at_ms,
        kek_id=kek_id,
        location=Id("local"),
    )


def destruction(at_ms: int = DESTROYED, kek_id: Id = KEK) -> Entry:
    """The destruction of the key of `deletion`."""
    return key_destroyed(at_ms=at_ms, kek_id=kek_id, kek_kind=KekKind.DAY, location=Id("local"), expiry_day=20_416)


def story(*, destroyed: bool = True) -> list[Entry]:
    """What happened around one object."""
    birth = captured(
        at_ms=BORN,
        organization_id=ORGANIZATION,
        project_id=PROJECT,
        object_id=OBJECT,
        data_class=DataClass.RELIABILITY_LOG,
        reason=Reason.UPSTREAM_CUT,
        epoch=3,
        expires_at_ms=DELETED,
        location=Id("local"),
    )
    other = Entry(EntryKind.CONTROLS_CHANGED, BORN, ORGANIZATION, facts={Fact.EPOCH: 3, Fact.BATCH_OFF: True})
    return [other, birth, deletion(), *([destruction()] if destroyed else []), other]


def make_story(database: Database, entries: list[Entry] | None = None) -> tuple[Log, Id]:
    """A log that tells `story`, and the id of its receipt."""
    log = make_log(database)
    with database.write() as tx:
        appended = log.append(tx, story() if entries is None else entries)
    return log, next(each.receipt_id for each in appended if each.receipt_id is not None)
