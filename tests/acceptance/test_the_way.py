"""The whole way from outside: a failing request is kept because policy permits it, and everything after that until
its receipt. On SQLite with one serving process, on PostgreSQL with four."""

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepless.app.compose import Deployment, open_deployment
from keepless.config import load
from keepless.content import Purpose
from keepless.ids import trusted
from keepless.vault.errors import NotKeptError
from tests.support.outside import Answer, Organization, another, call, comes_true, holding, keepless
from tests.support.postgres import BIN, Cluster
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

DAY_S = 86_400
MARKER = "kept-4c1f9e-marker"
FAILING = [
    Behaviour.ERROR_500,
    Behaviour.CUT_JSON,
    Behaviour.CUT_HEAD,
    Behaviour.GARBAGE,
    Behaviour.BAD_JSON,
    Behaviour.NEVER,
    Behaviour.SLOW_IDLE,
]
HOLD = ("--reason", "litigation", "--authority", "court_order", "--reference", "case 7", "--review-at", "+30")


@dataclass
class Stand:
    """A running server and where it keeps things."""

    served: Served
    folder: Path
    database_url: str
    upstream: MockUpstream
    cluster: Cluster | None

    @property
    def operator(self) -> str:
        return self.served.told["operator_key"]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def customer(self) -> Organization:
        return another(self.served.url, self.operator)

    def sweep(self, *under: str) -> tuple[int, Any]:
        """`keepless sweep --once` beside the running server."""
        return keepless(
            "sweep", "--once", "--data-dir", str(self.data), under=under, KEEPLESS_DATABASE_URL=self.database_url
        )

    def copy_database(self, to: Path) -> str:
        """The address of a copy of the database as it is now, as a backup would make it."""
        if self.cluster is None:
            with sqlite3.connect(self.data / "keepless.sqlite") as source, sqlite3.connect(to) as target:
                source.backup(target)
            source.close()
            target.close()
            return f"sqlite:///{to}"
        url = f"{self.database_url}"
        name = f"copy_{self.database_url.split('@/')[1].split('?')[0]}"
        copied = url.replace("@/", "@/copy_")
        subprocess.run([BIN / "createdb", "--maintenance-db", url, name], check=True)
        dumped = subprocess.run([BIN / "pg_dump", "--dbname", url], check=True, capture_output=True)
        subprocess.run([BIN / "psql", "-q", "--dbname", copied], input=dumped.stdout, check=True, capture_output=True)
        return copied


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=3.0) as mock:
        yield mock


@pytest.fixture(scope="module", params=["sqlite-1", "postgres-2"])
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream
) -> Iterator[Stand]:
    kind, workers = request.param.split("-")
    folder = tmp_path_factory.mktemp(f"{kind}{workers}")
    models = upstream_models(upstream.base_url)
    if kind == "sqlite":
        with serve(folder, models, "--workers", workers, fresh=True) as served:
            yield Stand(served, folder, f"sqlite:///{folder}/data/keepless.sqlite", upstream, None)
        return
    cluster = request.getfixturevalue("postgres")
    with (
        cluster.database() as url,
        serve(folder, models, "--workers", workers, settings={"database_url": url}) as served,
    ):
        yield Stand(served, folder, url, upstream, cluster)


def fail(customer: Organization, behaviour: Behaviour = Behaviour.ERROR_500, **more: Any) -> Answer:
    return customer.chat(behaviour.value, MARKER, **more)


# -- what is kept, and what is not -------------------------------------------------------------------------------------


def test_only_what_failed_is_kept_and_nobody_can_read_it(stand: Stand) -> None:
    customer = stand.customer()
    began = int(time.time())
    for _ in range(3):
        assert customer.chat("ok", MARKER).kept == "none"
    assert customer.chat("error-400", MARKER).kept == "none"
    failed = {behaviour: fail(customer, behaviour) for behaviour in FAILING}
    kept = customer.retained()
    assert set(kept) == {answer.object_id for answer in failed.values()}
    for behaviour, answer in failed.items():
        item = kept[answer.object_id]
        assert 500 <= answer.status < 600, behaviour
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(item["expires_at"]))
        assert answer.kept == f"class=reliability_log; object={item['id']}; epoch={item['epoch']}; expires={expires}"
        assert item["class"] == "reliability_log" and item["request_id"] == answer.headers["x-request-id"]
        assert item["expires_at"] - item["created_at"] == 30 * DAY_S
        assert began <= item["created_at"] <= time.time()
    reasons = {behaviour: kept[answer.object_id]["reason"] for behaviour, answer in failed.items()}
    assert reasons[Behaviour.ERROR_500] == "upstream_5xx" and reasons[Behaviour.NEVER] == "upstream_timeout"
    assert {reasons[b] for b in (Behaviour.CUT_JSON, Behaviour.CUT_HEAD)} == {"upstream_cut"}
    assert {reasons[b] for b in (Behaviour.GARBAGE, Behaviour.BAD_JSON)} == {"upstream_malformed"}
    # Nobody has a way to the content alone, neither its owner nor the operator; and on disk it is ciphertext only.
    object_id = failed[Behaviour.ERROR_500].object_id
    for key in (customer.admin_key, stand.operator, customer.api_key):
        for path in (f"/retained_objects/{object_id}", f"/captures/{object_id}/content", f"/captures/{object_id}"):
            answer = customer.admin("GET", path, key=key)
            assert MARKER.encode() not in answer.body
            metadata = key == customer.admin_key and not path.endswith("/content")
            assert answer.status == 200 if metadata else answer.status in (400, 403, 404), (path, answer.status)
    assert holding(stand.folder, MARKER.encode()) == []
    assert MARKER not in "".join(stand.served.log)


def test_a_stream_that_is_cut_says_so_at_its_end_or_keeps_nothing(stand: Stand) -> None:
    customer = stand.customer()
    cut = fail(customer, Behaviour.CUT_STREAM, stream=True)
    assert (cut.status, cut.kept) == (200, "on-error")
    (object_id,) = customer.retained()
    assert f": x-keepless-retention class=reliability_log; object={object_id}".encode() in cut.body
    none = customer.chat("ok", MARKER, stream=True)
    assert none.kept == "on-error" and b"x-keepless-retention" not in none.body
    assert set(customer.retained()) == {object_id}


def test_other_organizations_see_nothing_of_it(stand: Stand) -> None:
    customer, stranger = stand.customer(), stand.customer()
    object_id = fail(customer).object_id
    request_id = customer.retained()[object_id]["request_id"]
    assert stranger.retained() == {}
    for method, path in [
        ("GET", f"/retained_objects/{object_id}"),
        ("DELETE", f"/retained_objects/{object_id}"),
        ("GET", f"/explain/{request_id}"),
    ]:
        assert stranger.admin(method, path).status == 404
    assert object_id in customer.retained()


def test_usage_counts_every_request_and_explain_says_why(stand: Stand) -> None:
    customer = stand.customer()
    answered = [customer.chat("ok") for _ in range(5)]
    failed = fail(customer)
    # Rows are written half a second later at most; reading across the processes shows them all.
    comes_true(lambda: customer.counted() == 5)
    page = customer.admin("GET", f"/usage/completions?start_time={int(time.time()) - 7200}&group_by[]=model").json
    (result,) = [result for bucket in page["data"] for result in bucket["results"]]
    assert (result["model"], result["input_tokens"], result["output_tokens"]) == ("ok", 45, 20)
    for answer, kept in ((answered[0], False), (failed, True)):
        code, told = customer.keepless("explain", answer.headers["x-request-id"])
        assert (code, told["kept"], told["status"]) == (0, kept, answer.status)
    assert told["object_id"] == failed.object_id and told["reason"] == "upstream_5xx"
    assert told["sketch"]["roles"] == ["user"]
    assert MARKER not in str(told)


# -- turning it off, and the proof -------------------------------------------------------------------------------------


def test_from_zero_retention_to_a_receipt_that_any_flipped_byte_breaks(stand: Stand, tmp_path: Path) -> None:
    customer = stand.customer()
    kept = {fail(customer, behaviour).object_id for behaviour in (Behaviour.ERROR_500, Behaviour.GARBAGE)}
    code, changed = customer.keepless("controls", "set", "--zdr", "on", "--wait")
    assert (code, changed["zero_data_retention"], changed["purge"]["state"]) == (0, True, "done")
    assert customer.retained() == {}
    assert fail(customer).kept == "none"
    listed = customer.admin("GET", "/receipts?limit=100").json["data"]
    assert {item["object_id"] for item in listed} == kept
    proofs = tmp_path / "proofs"
    assert customer.keepless("receipts", "export", "--out", str(proofs))[0] == 0
    code, verified = keepless("verify", str(proofs))
    assert (code, verified["ok"], verified["key_trusted"]) == (0, True, False)
    assert {file["object_id"] for file in verified["files"]} == kept
    key = tmp_path / "key"
    key.write_bytes(call(customer.url, "GET", "/log/key", "").body)
    assert keepless("verify", str(proofs), "--log-key", str(key))[1]["key_trusted"] is True
    first = next(path for path in proofs.iterdir() if path.name.startswith("rcpt_"))
    whole = first.read_bytes()
    at = len(whole) // 2
    first.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    code, verified = keepless("verify", str(proofs))
    assert (code, verified["ok"]) == (1, False)


def test_a_customers_deletion_is_for_good(stand: Stand) -> None:
    customer = stand.customer()
    object_id = fail(customer).object_id
    deleted = customer.admin("DELETE", f"/retained_objects/{object_id}")
    assert (deleted.status, deleted.json["deleted"]) == (200, True)
    assert customer.retained() == {}
    assert customer.admin("GET", f"/retained_objects/{object_id}").status == 404
    (receipt,) = customer.admin("GET", f"/receipts?object_id={object_id}").json["data"]
    assert receipt["cause"] == "customer"


def test_a_hold_blocks_deletion_and_its_release_purges(stand: Stand) -> None:
    customer = stand.customer()
    object_id = fail(customer).object_id
    code, hold = keepless(
        "holds", "place", "--organization-id", customer.id, *HOLD,
        KEEPLESS_BASE_URL=customer.url, KEEPLESS_ADMIN_KEY=stand.operator,
    )  # fmt: skip
    assert code == 0
    assert customer.admin("DELETE", f"/retained_objects/{object_id}").status == 423
    assert customer.retained()[object_id]["held"] is True
    assert [h["id"] for h in customer.admin("GET", "/legal_holds").json["data"]] == [hold["id"]], "owners see it"
    code, partial = customer.keepless("controls", "set", "--zdr", "on", "--wait")
    assert (code, partial["purge"]["state"], partial["purge"]["holds"]) == (1, "partial", [hold["id"]])
    code, _ = stand.sweep("faketime", "+40 days")
    assert code == 0
    assert set(customer.retained()) == {object_id}
    released = keepless(
        "holds", "release", hold["id"], "--organization-id", customer.id,
        KEEPLESS_BASE_URL=customer.url, KEEPLESS_ADMIN_KEY=stand.operator,
    )  # fmt: skip
    assert released[0] == 0
    comes_true(lambda: customer.retained() == {})
    purge = customer.admin("GET", f"/purges/{partial['purge']['id']}").json
    assert (purge["state"], purge["destroyed"]) == ("done", 1)


# -- the end of its days -----------------------------------------------------------------------------------------------


def opened(stand: Stand, database_url: str, keyring: Path, blobs: Path) -> Deployment:
    return open_deployment(
        load(
            environ={},
            data_dir=str(stand.data),
            database_url=database_url,
            keyring_url=f"file://{keyring}",
            blobs_url=f"file://{blobs}",
        )
    )


def test_after_31_days_it_is_destroyed_and_older_copies_cannot_be_read(stand: Stand, tmp_path: Path) -> None:
    customer = stand.customer()
    object_id = fail(customer).object_id
    keyring = stand.data / "keyring"
    assert list(keyring.glob("kek_*"))
    old = stand.copy_database(tmp_path / "copy.sqlite")
    for part in ("keyring", "blobs"):
        shutil.copytree(stand.data / part, tmp_path / part)
    asked = (trusted(object_id), trusted(customer.id), Purpose.PROVE)
    with_all = opened(stand, old, tmp_path / "keyring", tmp_path / "blobs")
    assert MARKER.encode() in with_all.vault.read(*asked).reveal(Purpose.PROVE), "the copies are good ones"
    with_all.close()
    assert stand.sweep()[0] == 0
    assert object_id in customer.retained(), "nothing is due today"

    code, report = stand.sweep("faketime", "+31 days")

    assert code == 0 and report["destroyed"] >= 1 and report["keys_destroyed"] >= 1
    assert customer.retained() == {}
    assert list(keyring.glob("kek_*")) == [], "the key of its day is destroyed"
    (receipt,) = customer.admin("GET", f"/receipts?object_id={object_id}").json["data"]
    assert receipt["cause"] == "expired"
    with_the_keys_of_now = opened(stand, old, keyring, tmp_path / "blobs")
    with pytest.raises(NotKeptError):
        with_the_keys_of_now.vault.read(*asked)
    with_the_keys_of_now.close()
    # A person's sweep under another time moves nobody's clock: today's requests are kept as before.
    assert fail(customer).kept.startswith("class=reliability_log")
    assert call(customer.url, "GET", "/readyz", "").status == 200
