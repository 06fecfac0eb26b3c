"""One entry as a file, and entries proved against the log's own tree, on both databases."""

from pathlib import Path

import msgspec
import pytest

from keepless.db import Database
from keepless.receipts import merkle
from keepless.receipts.bundle import ENTRY_FORMAT, EntryFile, issue_entry, to_bytes
from keepless.receipts.checkpoint import VerifierKey
from keepless.receipts.log import Log
from keepless.receipts.stated import included, is_entry_file, verify_entry
from keepless.receipts.verify import Finding, verify_paths
from tests.support import receipts as sample
from tests.support.log import make_log


@pytest.fixture
def log(database: Database) -> Log:
    return sample.make_story(database)[0]


def issued(database: Database, log: Log, index: int = 2) -> bytes:
    data = issue_entry(database, log, index, sample.ORGANIZATION)
    assert data is not None
    return data


def test_a_file_of_an_entry_is_verified_offline(database: Database, log: Log, tmp_path: Path) -> None:
    data = issued(database, log)
    assert is_entry_file(data)
    stated = verify_entry(data, log.key)
    assert stated is not None
    assert (stated.index, stated.statement["kind"]) == (2, "deleted")
    (tmp_path / "one.json").write_bytes(data)
    report = verify_paths([tmp_path], log.key)
    assert report.ok and report.key_trusted
    (tmp_path / "log.vkey").write_text(f"{log.key}\n")
    assert verify_paths([tmp_path]).ok
    (tmp_path / "one.json").write_bytes(data.replace(b'"deleted"', b'"deletes"'))
    assert [file.finding for file in verify_paths([tmp_path], log.key).files] == [Finding.BAD_PROOF]


def test_every_changed_byte_shows(database: Database, log: Log) -> None:
    data = issued(database, log)
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert verify_entry(changed, log.key) is None, at
    assert verify_entry(b" " + data, log.key) is None
    assert verify_entry(data[:-1], log.key) is None
    short = msgspec.json.decode(data, type=EntryFile)
    cut = msgspec.structs.replace(short.entry, salt="AAAA")
    assert verify_entry(to_bytes(EntryFile(entry=cut, format=ENTRY_FORMAT)), log.key) is None


def test_another_logs_key_proves_nothing(database: Database, log: Log) -> None:
    other = VerifierKey(log.origin, bytes(range(32, 64)))
    assert verify_entry(issued(database, log), other) is None


def test_what_is_not_the_organizations_or_was_erased_has_no_file(database: Database, log: Log) -> None:
    size = 5
    with database.read() as tx:
        owned = {one.index for one in log.entries(tx, organization_id=sample.ORGANIZATION)}
    for index in range(size + 2):
        found = issue_entry(database, log, index, sample.ORGANIZATION)
        assert (found is not None) is (index in owned)
    with database.write() as tx:
        log.erase(tx, [2])
    assert issue_entry(database, log, 2, sample.ORGANIZATION) is None


def test_entries_are_proved_together_as_one_by_one(database: Database) -> None:
    log = make_log(database)
    with database.write() as tx:
        log.append(tx, [sample.deletion() for _ in range(37)])
    with database.read() as tx:
        together = log.inclusions(tx, range(37), 37)
        assert together == {index: log.inclusion(tx, index, 37) for index in range(37)}
    assert included(database, log, range(40)) == dict.fromkeys(range(37), True)
    assert included(database, log, []) == {}
    with database.write() as tx:
        log.erase(tx, [3])
    assert 3 not in included(database, log, [3, 4])


def test_a_salt_that_is_not_the_entrys_proves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log(database)
    with database.write() as tx:
        log.append(tx, [sample.deletion(), sample.deletion()])
    monkeypatch.setattr(merkle, "leaf_hash", lambda _: bytes(32))
    assert included(database, log, [0, 1]) == {0: False, 1: False}
