"""Reliability captures on both databases: policy decides, the cap holds, everything fails closed."""

import io
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from keepless import log
from keepless.accounts.principal import PolicyInForce
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.incidents.capture import ATTEMPTS, Incident
from keepless.incidents.container import unpack
from keepless.incidents.reliability import CAPTURES_AN_HOUR, Reliability, forget_counts
from keepless.incidents.tables import capture_count
from keepless.policy.controls import Controls, RequestControls, Source, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decision import Discard, DiscardReason, Reason, Retain
from keepless.usage.record import Endpoint
from keepless.vault.errors import LocationRedError, StaleEpochError, StoreFailedError
from keepless.vault.rows import Kept

ORG, PROJECT = mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT)
HOUR = 3_600_000
OPEN = PolicyInForce(effective(Controls()), 7)
ZDR = PolicyInForce(effective(Controls(zero_data_retention=True)), 8)
Fault = Callable[[Retain], None]


class StubVault:
    """Keeps what the door would keep; `faults` are tried first, one a call."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = list(faults)
        self.kept: list[tuple[bytes, Retain]] = []

    def put(self, content: Content, permit: Retain) -> Kept:
        if self.faults:
            self.faults.pop(0)(permit)
        self.kept.append((content.reveal(Purpose.SEAL), permit))
        return Kept(
            id=mint(Prefix.OBJECT),
            organization_id=Id(permit.organization_id),
            project_id=Id(permit.project_id),
            data_class=permit.data_class,
            reason=permit.reason,
            request_id=None if permit.request_id is None else Id(permit.request_id),
            epoch=permit.epoch,
            created_at=permit.created_at_ms,
            expires_at=permit.expires_at_ms,
            size=content.size,
            location=Id("local"),
            blob=mint(Prefix.BLOB),
            kek_id=mint(Prefix.KEK),
            wrapped_dek=b"",
        )


def stale(_: Retain) -> None:
    raise StaleEpochError("stale")


def red(_: Retain) -> None:
    raise LocationRedError("red")


def full_disk(_: Retain) -> None:
    raise StoreFailedError("full")


def incident(
    policy: PolicyInForce | None = OPEN,
    *,
    at_ms: int = 0,
    model: str = "m",
    request: RequestControls | None = None,
    body: bytes = b"Q",
) -> Incident:
    return Incident(
        organization_id=ORG,
        project_id=PROJECT,
        key_id=mint(Prefix.API_KEY),
        model=Id(model),
        endpoint=Endpoint.CHAT,
        request_id=mint(Prefix.REQUEST),
        created_at_ms=at_ms,
        policy=policy,
        request_content=Content(body),
        answer_content=Content(b"half an ans"),
        request=request or RequestControls(),
    )


def make(database: Database, vault: StubVault, now: PolicyInForce | None = OPEN) -> Reliability:
    return Reliability(database, vault, lambda _org, _project: now, max_bytes=1000)


def counts(database: Database) -> tuple[int, int]:
    with database.read() as tx:
        columns = capture_count.c
        query = sa.select(sa.func.sum(columns.captured), sa.func.sum(columns.refused))
        row = tx.execute(query).one()
    return int(row[0] or 0), int(row[1] or 0)


def test_a_failed_request_is_kept_with_what_was_answered(database: Database) -> None:
    vault = StubVault()
    kept = make(database, vault).consider(incident(), Reason.UPSTREAM_CUT)
    assert isinstance(kept, Kept)
    assert (kept.data_class, kept.reason, kept.epoch) == (DataClass.RELIABILITY_LOG, Reason.UPSTREAM_CUT, 7)
    assert kept.expires_at == 30 * 24 * HOUR
    stored = unpack(vault.kept[0][0])
    assert stored.request.reveal(Purpose.CUSTOMER) == b"Q"
    assert stored.answer.reveal(Purpose.CUSTOMER) == b"half an ans"
    assert stored.header["reason"] == "upstream_cut"
    assert stored.header["class"] == "reliability_log"
    assert counts(database) == (1, 0)


NOT_KEPT = {
    "policy unreadable": (incident(None), DiscardReason.POLICY_UNREADABLE, Source.SCHEDULE),
    "zdr": (incident(ZDR), DiscardReason.ZERO_DATA_RETENTION, Source.ORGANIZATION),
    "opted out": (
        incident(PolicyInForce(effective(Controls(off=frozenset({Feature.INFERENCE_LOGGING}))), 1)),
        DiscardReason.OPTED_OUT,
        Source.ORGANIZATION,
    ),
    "store: false": (
        incident(request=RequestControls(keep_nothing=True)),
        DiscardReason.REQUEST_FORBIDS,
        Source.REQUEST,
    ),
    "too large": (incident(body=b"x" * 990), DiscardReason.TOO_LARGE, Source.SCHEDULE),
}


@pytest.mark.parametrize("case", NOT_KEPT)
def test_what_may_not_be_kept_never_reaches_the_vault(database: Database, case: str) -> None:
    vault = StubVault()
    what, reason, source = NOT_KEPT[case]
    assert make(database, vault).consider(what, Reason.UPSTREAM_CUT) == Discard(reason, source)
    assert vault.kept == []
    assert counts(database) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "reason"), [(red, DiscardReason.LOCATION_RED), (full_disk, DiscardReason.STORE_FAILED)]
)
def test_a_vault_that_refuses_keeps_nothing_and_uses_no_place(
    database: Database, fault: Fault, reason: DiscardReason
) -> None:
    vault, written = StubVault(fault), io.StringIO()
    log.redirect(written)
    assert make(database, vault).consider(incident(), Reason.ENGINE_CRASH) == Discard(reason)
    log.redirect(io.StringIO())
    (line,) = written.getvalue().splitlines()
    failed = reason is DiscardReason.STORE_FAILED
    assert ('"frames":["_put:' in line) is failed, "where it failed, and nothing of what"
    assert ("incident:capture:refused" in line) is not failed
    assert vault.kept == []
    assert counts(database) == (0, 0)


def test_a_stale_epoch_decides_again_with_the_policy_of_now(database: Database) -> None:
    vault = StubVault(stale)
    kept = make(database, vault, PolicyInForce(OPEN.effective, 9)).consider(incident(), Reason.UPSTREAM_5XX)
    assert isinstance(kept, Kept)
    assert kept.epoch == 9


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (ZDR, Discard(DiscardReason.ZERO_DATA_RETENTION, Source.ORGANIZATION)),
        (None, Discard(DiscardReason.POLICY_UNREADABLE)),
    ],
)
def test_a_stale_epoch_after_a_tightening_keeps_nothing(
    database: Database, now: PolicyInForce | None, expected: Discard
) -> None:
    vault = StubVault(stale)
    assert make(database, vault, now).consider(incident(), Reason.UPSTREAM_5XX) == expected
    assert vault.kept == []
    assert counts(database) == (0, 0)


def test_an_epoch_that_never_stands_still_keeps_nothing(database: Database) -> None:
    vault = StubVault(*[stale] * (ATTEMPTS + 1))
    refused = make(database, vault).consider(incident(), Reason.UPSTREAM_5XX)
    assert refused == Discard(DiscardReason.STALE_EPOCH)
    assert len(vault.faults) == 1
    assert counts(database) == (0, 0)


def test_five_an_hour_for_each_project_model_and_reason(database: Database) -> None:
    vault = StubVault()
    reliability = make(database, vault)
    for _ in range(CAPTURES_AN_HOUR):
        assert isinstance(reliability.consider(incident(at_ms=HOUR - 1), Reason.UPSTREAM_CUT), Kept)
    for _ in range(3):
        over = reliability.consider(incident(at_ms=HOUR - 1), Reason.UPSTREAM_CUT)
        assert over == Discard(DiscardReason.CAPPED)
    assert counts(database) == (5, 3)
    assert isinstance(reliability.consider(incident(at_ms=HOUR), Reason.UPSTREAM_CUT), Kept)
    assert isinstance(reliability.consider(incident(at_ms=HOUR - 1), Reason.UPSTREAM_5XX), Kept)
    assert isinstance(reliability.consider(incident(at_ms=HOUR - 1, model="other"), Reason.UPSTREAM_CUT), Kept)
    assert forget_counts(database, 2 * HOUR) == 4
    assert counts(database) == (0, 0)


def test_the_cap_holds_for_processes_together(database: Database) -> None:
    vaults = [StubVault() for _ in range(4)]
    barrier = threading.Barrier(4)

    def work(vault: StubVault) -> None:
        reliability = make(database, vault)
        barrier.wait()
        for _ in range(5):
            reliability.consider(incident(), Reason.UPSTREAM_TIMEOUT)

    threads = [threading.Thread(target=work, args=(vault,)) for vault in vaults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(vault.kept) for vault in vaults) == CAPTURES_AN_HOUR
    assert counts(database) == (CAPTURES_AN_HOUR, 15)


def test_a_database_that_fails_keeps_nothing(database: Database) -> None:
    vault = StubVault()
    with database.write() as tx:
        tx.exec_driver_sql("DROP TABLE capture_count")
    assert make(database, vault).consider(incident(), Reason.UPSTREAM_CUT) == Discard(DiscardReason.STORE_FAILED)
    assert vault.kept == []
