"""Exported audit logs: each event is proved, every change is found, and an erased entry still stands in the log."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from keepless.db import Database
from keepless.receipts import audit_export
from keepless.receipts.audit_export import audit_lines
from keepless.receipts.checkpoint import Ed25519Signer, VerifierKey
from keepless.receipts.checks import Finding
from keepless.receipts.log import Log, Sought
from keepless.receipts.statement import EntryKind, canonical
from keepless.receipts.verify import verify_paths
from keepless.receipts.verify_audit import AuditVerified, verify_audit
from tests.support.receipts import ORGANIZATION, make_story, story

ALL = Sought()


def exported(database: Database, log: Log, sought: Sought = ALL) -> list[bytes]:
    return list(audit_lines(database, log, ORGANIZATION, sought))


def checked(lines: list[bytes], key: VerifierKey) -> AuditVerified | Finding:
    return verify_audit(io.BytesIO(b"".join(lines)), key)


def test_every_event_is_proved_offline(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_export, "_PAGE", 2)  # so that pages are turned
    log, _ = make_story(database)
    lines = exported(database, log)
    result = checked(lines, log.key)
    assert isinstance(result, AuditVerified)
    assert (result.organization_id, result.events, result.erased) == (ORGANIZATION, 4, 0)
    assert (result.first_index, result.last_index) == (0, 4)
    events = [json.loads(line)["event"] for line in lines[:-1]]
    assert [event["type"] for event in events] == [
        "data_retention.updated",
        "content.deleted",
        "content.captured",
        "data_retention.updated",
    ]
    assert checked(lines, VerifierKey(log.origin, Ed25519Signer(bytes(32)).public_key)) is Finding.BAD_PROOF


def test_what_was_not_asked_for_is_not_in_it(database: Database) -> None:
    log, _ = make_story(database)
    lines = exported(database, log, Sought(kinds=frozenset({EntryKind.DELETED})))
    result = checked(lines, log.key)
    assert isinstance(result, AuditVerified)
    assert result.events == 1
    nothing = checked(exported(database, log, Sought(kinds=frozenset())), log.key)
    assert isinstance(nothing, AuditVerified)
    assert (nothing.events, nothing.first_index) == (0, None)


def test_an_erased_entry_says_nothing_and_is_still_proved(database: Database) -> None:
    log, _ = make_story(database)
    with database.write() as tx:
        log.erase(tx, [1])
    lines = exported(database, log)
    result = checked(lines, log.key)
    assert isinstance(result, AuditVerified)
    assert (result.events, result.erased) == (4, 1)
    erased = json.loads(lines[2])
    assert (erased["event"], erased["statement"], erased["salt"]) == (None, None, None)
    assert b"obj_" not in lines[2]


def test_every_changed_byte_is_found(database: Database) -> None:
    log, _ = make_story(database)
    with database.write() as tx:
        log.erase(tx, [1])
    data = b"".join(exported(database, log))
    assert isinstance(verify_audit(io.BytesIO(data), log.key), AuditVerified)
    step = 1 if database.sqlite else 31  # what is read from either database is checked by the same code
    for at, byte in list(enumerate(data))[::step]:
        changed = data[:at] + bytes([byte ^ 1]) + data[at + 1 :]
        assert isinstance(verify_audit(io.BytesIO(changed), log.key), Finding), (at, changed[max(0, at - 40) : at + 40])
    for at in range(0, len(data), 97):
        assert isinstance(verify_audit(io.BytesIO(data[:at]), log.key), Finding), at


def changed(line: bytes, **values: Any) -> bytes:
    return canonical(json.loads(line) | values) + b"\n"


def test_lines_do_not_move_and_do_not_lie(database: Database) -> None:
    log, _ = make_story(database)
    newest, deleted, captured, oldest, end = exported(database, log)
    whole = [newest, deleted, captured, oldest, end]
    event, organization = json.loads(deleted)["event"], json.loads(end)["organization_id"]
    cases = {
        Finding.OUT_OF_ORDER: [newest, captured, deleted, oldest, end],
        Finding.NOT_WHOLE: whole[:-1],
        Finding.NOT_AS_LOGGED: [newest, changed(deleted, event=event | {"log_index": 3}), captured, oldest, end],
        Finding.NOT_AUDIT: [*whole, end],
        Finding.NOT_CANONICAL: [newest.replace(b'{"event"', b'{ "event"'), *whole[1:]],
        Finding.ANOTHER: [*whole[:-1], changed(end, organization_id=organization[:-1] + "x")],
    }
    for finding, lines in cases.items():
        assert checked(lines, log.key) is finding
    assert checked([newest, newest, captured, oldest, end], log.key) is Finding.OUT_OF_ORDER
    assert checked([deleted, captured, oldest, end], log.key) is Finding.NOT_WHOLE
    assert checked([changed(newest, event=None), *whole[1:]], log.key) is Finding.NOT_AUDIT
    assert checked([changed(newest, leaf="AAAA"), *whole[1:]], log.key) is Finding.NOT_AUDIT
    assert checked([], log.key) is Finding.NOT_WHOLE
    assert checked([b"[" * 60_000], log.key) is Finding.NOT_WHOLE
    assert checked([b"[]\n"], log.key) is Finding.NOT_AUDIT


def test_parts_of_two_exports_are_not_one(database: Database) -> None:
    log, _ = make_story(database)
    first = exported(database, log)
    make_story_goes_on(database, log)
    second = exported(database, log)
    assert checked([*second[:1], *first[1:]], log.key) is Finding.ANOTHER


def make_story_goes_on(database: Database, log: Log) -> None:
    with database.write() as tx:
        log.append(tx, story()[:1])


def test_files_are_found_in_folders_beside_receipts(database: Database, tmp_path: Path) -> None:
    log, _ = make_story(database)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(exported(database, log)))
    (tmp_path / "log.vkey").write_text(f"{log.key}\n")
    report = verify_paths([tmp_path])
    assert (report.ok, report.key_trusted) == (True, False)
    assert verify_paths([tmp_path / "audit.jsonl"], log.key).key_trusted
    (tmp_path / "cut.jsonl").write_bytes(b"".join(exported(database, log)[:-1]))
    assert [file.finding for file in verify_paths([tmp_path]).files] == [None, Finding.NOT_WHOLE]
