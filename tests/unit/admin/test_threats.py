"""What docs/threat-model.md names, where no other test of a room holds it: over every route of the admin API."""

import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pytest
import sqlalchemy as sa

from keepless.accounts.lease import Lease
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Role
from keepless.admin.matrix import ENDPOINTS
from keepless.content import Purpose
from keepless.db import Database
from keepless.errors import KeeplessError, Problem
from keepless.governance.organizations import FOREVER_MS
from keepless.http.admin_auth import authenticate
from keepless.ids import Id
from keepless.receipts.checkpoint import Ed25519Signer, NoteError, open_note
from keepless.receipts.log import Log
from keepless.vault.door import Place, Vault
from keepless.vault.keyring import FileKeyring
from tests.support.asgi import call
from tests.support.governed import deploy
from tests.support.log import ORIGIN, MemoryHeads
from tests.support.platform import Platform
from tests.unit.admin.test_matrix import filled, name

NOT_ASKED_FOR: Final[dict[str, object]] = {
    "id": "org_mine",
    "organization_id": "org_mine",
    "project_id": "proj_mine",
    "role": "owner",
    "permissions": ["policy:controls:change"],
    "epoch": 99,
    "created_at": 0,
    "expires_at": None,
    "revoked_at": None,
    "loosen_until": 253_402_300_799,
    "digest": "00",
    "value": "ak-keepless-mine",
    "password": "correct horse battery",
    "owner": {"role": "owner"},
    "deleted_at": None,
    "held": False,
}


def test_fields_that_were_not_asked_for_change_nothing(here: Platform) -> None:
    tried = 0
    for endpoint in ENDPOINTS:
        if endpoint.method != "POST":
            continue
        own = {field.encode_name for field in msgspec.structs.fields(endpoint.body)}
        for field, value in NOT_ASKED_FOR.items():
            if field in own:
                continue
            key = "owner" if endpoint.permission in ROLES[Role.OWNER] else "operator"
            answer = here.ask("POST", filled(endpoint.path), {field: value}, key=key)
            told = (answer.status, b"unknown_parameter" in answer.body)
            assert told == (400, True), (name(endpoint), field, answer.body)
            tried += 1
    assert tried > 300


FORGED: Final = 'MARKER\r\nx-evil: 1\r\n\r\n{"event":"server:process:started"}\n'


def test_no_header_line_or_log_line_is_made_by_what_somebody_types(
    here: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    headers = {"authorization": f"Bearer {here.owner_key}"}
    for endpoint in ENDPOINTS:
        path = filled(endpoint.path)
        bodies = [field.encode_name for field in msgspec.structs.fields(endpoint.body)] or ["MARKER\r\nx-evil: 1"]
        answers = [here.ask(endpoint.method, path, {field: FORGED}) for field in bodies]
        answers += [
            call(here.app, endpoint.method, "/v1" + re.sub(r"\{\w+\}", "MARKER\r\nx-evil: 1", endpoint.path), headers),
            call(here.app, endpoint.method, f"/v1{path}?after=MARKER%0d%0ax-evil:1&name=MARKER%00", headers),
            call(here.app, endpoint.method, f"/v1{path}", headers | {"x-request-id": "MARKER x-evil"}),
        ]
        for answer in answers:
            assert "x-evil" not in answer.headers
            assert not [value for value in answer.headers.values() if "MARKER" in value or "\n" in value]
            assert b"MARKER" not in answer.body, (name(endpoint), answer.body)
    said = capfd.readouterr()
    assert "MARKER" not in said.out + said.err
    assert "x-evil" not in said.out + said.err


class Known:
    """What is asked of the lease, and with what."""

    def __init__(self, secret: bytes) -> None:
        self._admins = {sha256(secret).digest(): AdminPrincipal(Id("akey_x"), None, Role.OPERATOR)}
        self.asked: list[bytes] = []

    def admin(self, digest: bytes) -> AdminPrincipal | None:
        self.asked.append(digest)
        return self._admins.get(digest)

    def principal(self, digest: bytes) -> None:
        self.asked.append(digest)

    def refresh_soon(self) -> None:
        """There is nothing to read."""


def steps(does: Callable[[], object]) -> list[str]:
    """Every call that is made, of Python and of C, in order."""
    made: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event in {"call", "c_call"}:
            made.append(frame.f_code.co_name if event == "call" else argument.__name__)

    sys.setprofile(note)
    try:
        does()
    finally:
        sys.setprofile(None)
    return made


def test_how_much_of_a_key_is_right_changes_nothing_that_is_done() -> None:
    secret = b"ak-keepless-" + b"a" * 52
    known = Known(secret)

    def ask(key: bytes) -> None:
        with pytest.raises(Problem):
            authenticate(b"Bearer " + key, cast("Lease", known))

    wrong = [b"x" + secret[1:], secret[:-1] + b"x", b"ak-keepless-" + b"b" * 52]
    ask(wrong[0])  # what is made once is made now
    traces = [steps(partial(ask, key)) for key in wrong]
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0]) > 5
    # What is looked up is a digest, which tells nothing of how near a guess was; the key itself is compared nowhere.
    assert {len(digest) for digest in known.asked} == {32}
    assert not [digest for digest in known.asked if digest[:4] == sha256(secret).digest()[:4]]


def test_of_two_owners_who_remove_each_other_one_stays(database: Database) -> None:
    here = deploy(database)
    first = here.access.members(here.organization_id)[0]
    second = here.access.add_member(here.owner, here.organization_id, email="two@example.com", role=Role.OWNER)
    barrier, outcomes = threading.Barrier(2), list[object]()

    def remove(actor: Id, other: Id) -> None:
        principal = AdminPrincipal(actor, here.organization_id, Role.OWNER, FOREVER_MS)
        barrier.wait()
        try:
            here.access.remove_member(principal, here.organization_id, other)
            outcomes.append("removed")
        except Problem as problem:
            outcomes.append(problem.status)

    racers = [threading.Thread(target=remove, args=pair) for pair in ((first.id, second.id), (second.id, first.id))]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(map(str, outcomes)) == ["400", "removed"]
    assert [member.role for member in here.access.members(here.organization_id)] == [Role.OWNER]


def test_the_database_without_the_keyring_opens_nothing(anywhere: Platform, tmp_path: Path) -> None:
    here, rig = anywhere, anywhere.rig
    initial = here.deployment.initial
    text = "MARKER never to be seen"
    kept = here.rig.put(here.organization_id, here.project_id, text.encode())
    opened = here.services.sign_in.by_password(initial.owner_email, initial.owner_password)
    invite = here.json("POST", "/organization/invites", {"email": "i@example.com", "role": "reader"})
    token = invite["sign_in_path"].partition("token=")[2]
    secrets = [here.api_key, here.owner_key, here.operator_key, initial.owner_password, opened.secret, token, text]
    with rig.database.read() as tx:
        tables = sa.inspect(tx).get_table_names()
        stored = b"".join(
            value if isinstance(value, bytes) else str(value).encode()
            for table in tables
            for row in tx.execute(sa.text(f'SELECT * FROM "{table}"'))
            for value in (bytes(value) if isinstance(value, memoryview) else value for value in row)
        )
    assert len(tables) > 20
    assert here.organization_id.encode() in stored  # it is all there
    assert len(secrets) == len(set(filter(None, secrets)))
    assert [secret for secret in secrets if secret.encode() in stored] == []
    # The database and the blobs, with a keyring of one's own: nothing opens, and nothing is signed for the log.
    mine = Vault(
        rig.database, FileKeyring.initialise(tmp_path / "mine"), [Place(rig.store, rig.guard)], rig.log, rig.clock
    )
    with pytest.raises(KeeplessError):
        mine.read(kept.id, here.organization_id, Purpose.BREAK_GLASS)
    assert rig.vault.read(kept.id, here.organization_id, Purpose.BREAK_GLASS).size == len(text)
    forged = Log(rig.database, rig.clock, Ed25519Signer(bytes(32)), MemoryHeads(), ORIGIN)
    with pytest.raises(NoteError):
        open_note(forged.checkpoint(), rig.log.key)
