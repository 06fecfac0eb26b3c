"""Offline verification: a good receipt is shown, every other file is refused with its reason."""

from pathlib import Path

import msgspec
import pytest

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.receipts.bundle import Receipt, issue, issue_all, to_bytes
from keepless.receipts.checkpoint import Ed25519Signer, VerifierKey
from keepless.receipts.statement import Entry
from keepless.receipts.verify import Finding, Verified, verify_paths, verify_receipt
from tests.support import receipts as sample
from tests.support.golden import ROOT
from tests.support.log import make_log

GOLDEN = ROOT / "tests/golden/receipts"
DATA = (GOLDEN / "deleted.json").read_bytes()
KEY = VerifierKey.parse((GOLDEN / "log.vkey").read_text())
OTHER_KEY = VerifierKey(KEY.name, Ed25519Signer(bytes(32)).public_key)


def test_every_changed_byte_of_a_receipt_is_detected() -> None:
    assert isinstance(verify_receipt(DATA, KEY), Verified)
    for at, byte in enumerate(DATA):
        for other in (byte ^ 1, byte ^ 0x20, byte ^ 0x80, 0x20):
            if other != byte:
                changed = DATA[:at] + bytes([other]) + DATA[at + 1 :]
                assert isinstance(verify_receipt(changed, KEY), Finding), at


def test_every_missing_or_added_byte_is_detected() -> None:
    for at in range(len(DATA)):
        assert isinstance(verify_receipt(DATA[:at], KEY), Finding), at
        assert isinstance(verify_receipt(DATA[:at] + DATA[at + 1 :], KEY), Finding), at
        assert isinstance(verify_receipt(DATA[:at] + b" " + DATA[at:], KEY), Finding), at


def test_another_key_is_refused() -> None:
    assert verify_receipt(DATA, OTHER_KEY) is Finding.BAD_PROOF


def changed(**values: object) -> bytes:
    receipt = msgspec.json.decode(DATA, type=Receipt)
    return to_bytes(msgspec.structs.replace(receipt, **values))


RECEIPT = msgspec.json.decode(DATA, type=Receipt)
FILES = {
    "empty": (b"", Finding.MALFORMED),
    "no object": (b"[]", Finding.MALFORMED),
    "deep": (b"[" * 5000, Finding.MALFORMED),
    "huge": (b" " * 70_000, Finding.MALFORMED),
    "not utf-8": (DATA.replace(b"local", b"loca\xff"), Finding.MALFORMED),
    "unknown member": (DATA[:-1] + b',"z":1}', Finding.MALFORMED),
    "another format": (changed(format="keepless-receipt/2"), Finding.MALFORMED),
    "a line feed at the end": (DATA + b"\n", Finding.NOT_CANONICAL),
    "a member twice": (DATA[:-1] + b',"format":"keepless-receipt/1"}', Finding.NOT_CANONICAL),
    "another end": (changed(shredded_by_ms=RECEIPT.shredded_by_ms + 1), Finding.WRONG_END),
    "the destruction for the deletion": (changed(deletion=RECEIPT.key_destruction), Finding.NOT_A_DELETION),
    "the deletion for the destruction": (changed(key_destruction=RECEIPT.deletion), Finding.NOT_A_DELETION),
    "a short salt": (
        changed(deletion=msgspec.structs.replace(RECEIPT.deletion, salt="AAAA")),
        Finding.BAD_PROOF,
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_what_is_not_a_receipt_is_refused_with_the_reason(case: str) -> None:
    data, finding = FILES[case]
    assert verify_receipt(data, KEY) is finding


def test_a_receipt_whose_key_is_not_destroyed_yet_says_until_when() -> None:
    verified = verify_receipt((GOLDEN / "key-not-yet-destroyed.json").read_bytes(), KEY)
    assert isinstance(verified, Verified)
    assert verified.shredded_at_ms is None
    assert verified.shredded_by_ms == sample.DELETED + DAY_MS
    assert not verified.late


def issued(database: Database, entries: list[Entry]) -> Verified | Finding:
    log, receipt_id = sample.make_story(database, entries)
    data = issue(database, log, receipt_id)
    assert data is not None
    return verify_receipt(data, log.key)


def test_a_broken_promise_is_shown(database: Database) -> None:
    late = issued(database, [sample.deletion(), sample.destruction(sample.DELETED + DAY_MS + 1)])
    assert isinstance(late, Verified)
    assert late.late
    in_time = issued(database, [sample.deletion(mint(Prefix.OBJECT)), sample.destruction(sample.DELETED + DAY_MS)])
    assert isinstance(in_time, Verified)


def test_the_destruction_of_another_key_is_not_taken(database: Database) -> None:
    verified = issued(database, [sample.destruction(kek_id=Id("kek_" + "z" * 24)), sample.deletion()])
    assert isinstance(verified, Verified)
    assert verified.shredded_at_ms is None


def test_a_deletion_before_birth_is_refused(database: Database) -> None:
    assert issued(database, [sample.deletion(deleted_at_ms=sample.BORN - 1)]) is Finding.WRONG_END


def test_folders_are_verified_with_the_key_beside_the_files() -> None:
    report = verify_paths([GOLDEN])
    assert report.ok
    assert not report.key_trusted
    assert [result.path.name for result in report.files] == ["deleted.json", "key-not-yet-destroyed.json"]
    trusted = verify_paths([GOLDEN / "deleted.json", GOLDEN / "deleted.json"], KEY)
    assert trusted.ok
    assert trusted.key_trusted
    assert not verify_paths([GOLDEN], OTHER_KEY).ok


def test_what_cannot_be_verified_is_not_ok(tmp_path: Path) -> None:
    def finding(path: Path, key: VerifierKey | None = KEY) -> list[Finding | None]:
        report = verify_paths([path], key)
        assert not report.ok
        return [result.finding for result in report.files]

    assert not verify_paths([]).ok
    assert finding(tmp_path) == [Finding.NOTHING]
    assert finding(tmp_path / "missing.json") == [Finding.UNREADABLE]
    (tmp_path / "r.json").write_bytes(DATA)
    assert finding(tmp_path, None) == [Finding.NO_KEY]
    (tmp_path / "log.vkey").write_text("no key")
    assert finding(tmp_path, None) == [Finding.BAD_KEY]
    (tmp_path / "log.vkey").write_bytes(b"\xff")
    assert finding(tmp_path, None) == [Finding.BAD_KEY]
    (tmp_path / "log.vkey").write_text(f"{KEY}\n")
    assert verify_paths([tmp_path]).ok
    (tmp_path / "s.json").write_bytes(DATA[:-1])
    assert finding(tmp_path, None) == [None, Finding.MALFORMED]


def test_two_logs_of_one_size_under_one_key_are_a_fork(database: Database, tmp_path: Path) -> None:
    log, _ = sample.make_story(database, [sample.deletion()])
    for receipt_id, data in issue_all(database, log):
        (tmp_path / f"{receipt_id}.json").write_bytes(data)
    assert verify_paths([tmp_path], log.key).ok
    with database.write() as tx:
        for table in ("log_entry", "log_node", "log_head"):
            tx.exec_driver_sql(f"DELETE FROM {table}")
    forked = make_log(database)  # its key store has forgotten what was signed
    with database.write() as tx:
        forked.append(tx, [sample.deletion()])
    for receipt_id, data in issue_all(database, forked):
        (tmp_path / f"{receipt_id}.json").write_bytes(data)
    report = verify_paths([tmp_path], log.key)
    assert [result.finding for result in report.files] == [Finding.FORKED, Finding.FORKED]
