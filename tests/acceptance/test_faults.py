"""Faults of the machine and of its keeper, from outside: inference goes on, nothing is lost or leaked, and what cannot
be trusted is not started."""

import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.outside import Answer, Organization, at_another_time, call, comes_true, keepless
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

MANY = [f"failing-{number}" for number in range(20)]  # models, each with an allowance of captures of its own


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        for model in MANY:
            mock.set(model, Behaviour.ERROR_500)
        yield mock


@pytest.fixture
def start(tmp_path: Path, upstream: MockUpstream) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    like = upstream_models(upstream.base_url)
    models = [*like, *({**like[0], "id": model} for model in MANY)]
    return lambda *options, **more: serve(tmp_path, models, *options, **more)


def refused(folder: Path, *options: str) -> str:
    """Start a server that must not start; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "keepless", "serve", "--port", "0", "--data-dir", str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == "", done
    assert "Traceback" not in done.stderr
    return done.stderr


def query(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "data" / "keepless.sqlite")) as db, db:
        return db.execute(sql).fetchall()


def readyz(customer: Organization) -> dict[str, str]:
    """What is not well, and why."""
    answer = call(customer.url, "GET", "/readyz", "")
    checks = {check["check"]: check["why"] for check in answer.json["checks"] if not check["ok"]}
    assert answer.status == (503 if checks.keys() - {"keys of what is kept"} else 200)
    return checks


# -- disk and database ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(process: int) -> Iterator[None]:
    """No file of a process can grow, or be written at all beyond its first byte: what a full disk does, and worse."""
    soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_keeping_but_not_inference(
    start: Callable[..., contextlib.AbstractContextManager[Served]], tmp_path: Path
) -> None:
    with start(settings={"limits.ledger_rows": 10}) as served:
        customer = Organization.of(served.url, served.told)
        before = customer.chat(MANY[0])
        assert before.kept.startswith("class=reliability_log")
        comes_true(lambda: query(tmp_path, "SELECT count(*) FROM usage") == [(1,)])
        with full_disk(served.process.pid):
            answers = [customer.chat("ok") for _ in range(30)]
            assert {answer.status for answer in answers} == {200}, "inference goes on"
            failed = [customer.chat(model) for model in MANY[1:5]]
            assert {answer.kept for answer in failed} == {"none"}, "captures fail closed"
            assert {answer.status for answer in failed} == {502}
            comes_true(lambda: "ledger" in readyz(customer))
            assert call(customer.url, "GET", "/healthz", "").status == 200
            assert set(customer.retained()) == {before.object_id}
            changed = customer.admin("POST", "/data_controls", {"zero_data_retention": True})
            assert changed.status in (500, 503), "what cannot be written is not claimed"
        comes_true(lambda: readyz(customer) == {})
        comes_true(lambda: customer.counted() == 30)
        after = customer.chat(MANY[5])
        assert set(customer.retained()) == {before.object_id, after.object_id}
        ((gapped,),) = query(tmp_path, "SELECT sum(requests) FROM usage_gap")
        assert gapped == 1 + 30 + 4 - 10 - 1, "ten rows waited, of the others their sums"
        assert any("usage:ledger:gap" in line for line in served.log)
        assert sum("incident:capture:failed" in line for line in served.log) == 4, "each is counted"
        # "nothing is left astray"; the server's own sweep may have its turn just now
        comes_true(lambda: keepless("sweep", "--once", "--data-dir", str(tmp_path / "data"))[0] == 0)


def test_a_locked_database_delays_keeping_but_not_inference(
    start: Callable[..., contextlib.AbstractContextManager[Served]], tmp_path: Path
) -> None:
    with start() as served:
        customer = Organization.of(served.url, served.told)
        held: list[Answer] = []
        catalogue = tmp_path / "data" / "keepless.sqlite"
        with contextlib.closing(sqlite3.connect(catalogue, isolation_level=None)) as outside:
            outside.execute("BEGIN EXCLUSIVE")
            waiting = threading.Thread(target=lambda: held.append(customer.chat(MANY[0])))
            waiting.start()
            until = time.monotonic() + 3
            answers = []
            while time.monotonic() < until:
                answers.append(customer.chat("ok").status)
            assert set(answers) == {200}
            assert held == [], "an answer that says what is kept waits until that is known"
            outside.execute("ROLLBACK")
        waiting.join(30)
        (failed,) = held
        assert failed.kept.startswith("class=reliability_log") and set(customer.retained()) == {failed.object_id}
        comes_true(lambda: customer.counted() == len(answers))
        assert query(tmp_path, "SELECT count(*) FROM usage_gap") == [(0,)]
        assert readyz(customer) == {}


# -- the clock -----------------------------------------------------------------------------------------------------


def test_a_clock_set_back_brings_nothing_back(
    start: Callable[..., contextlib.AbstractContextManager[Served]], tmp_path: Path
) -> None:
    with start() as served:
        told = served.told
        old = Organization.of(served.url, told).chat(MANY[0]).object_id
    with start("--no-worker", under=at_another_time("+31d"), known=told) as served:
        later = Organization.of(served.url, told)
        assert later.retained()[old]["expires_at"] < time.time() + 31 * 86_400, "due, and nobody sweeps here"
    with start(known=told) as served:
        customer = Organization.of(served.url, told)
        assert "behind" in readyz(customer)["clock"]
        # Expired is expired: it is not shown any more, and the sweep destroys it.
        comes_true(lambda: customer.admin("GET", f"/receipts?object_id={old}").json["data"])
        assert old not in customer.retained()
        (receipt,) = customer.admin("GET", f"/receipts?object_id={old}").json["data"]
        assert receipt["cause"] == "expired" and receipt["deleted_at"] > time.time() + 30 * 86_400
        young = customer.chat(MANY[1])
        assert young.kept.startswith("class=reliability_log")
        swept = keepless("sweep", "--once", "--data-dir", str(tmp_path / "data"))
        assert swept[0] == 0 and set(customer.retained()) == {young.object_id}
        proofs = tmp_path / "proofs"
        assert customer.keepless("receipts", "export", "--out", str(proofs))[0] == 0
        assert keepless("verify", str(proofs))[1]["ok"] is True


def test_two_days_back_destroys_nothing_and_says_so(
    start: Callable[..., contextlib.AbstractContextManager[Served]],
) -> None:
    with start(under=at_another_time("+2d")) as served:
        told = served.told
        # What is being written looks two days old there, like something left behind: not while that is looked for.
        comes_true(lambda: any("expiry:sweep:done" in line for line in served.log))
        kept = Organization.of(served.url, told).chat(MANY[0]).object_id
    with start(known=told, settings={"sweep_seconds": 0.5}) as served:
        customer = Organization.of(served.url, told)
        assert set(readyz(customer)) == {"clock"}
        comes_true(lambda: sum("expiry:sweep:done" in line for line in served.log) >= 2)
        assert set(customer.retained()) == {kept}
        assert customer.chat("ok").status == 200
        assert customer.admin("POST", "/data_controls", {"zero_data_retention": True}).status == 200
        comes_true(lambda: customer.retained() == {})


# -- what is not started -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> tuple[Path, dict[str, str]]:
    """A data folder with something in it, and what its first start told."""
    folder = tmp_path_factory.mktemp("made")
    model = {**upstream_models(upstream.base_url)[0], "id": MANY[0]}
    with serve(folder, [model]) as served:
        assert Organization.of(served.url, served.told).chat(MANY[0]).kept.startswith("class=")
        return folder / "data", dict(served.told)


@pytest.fixture
def folder(made: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A copy to do harm to."""
    shutil.copytree(made[0], tmp_path / "data", ignore=shutil.ignore_patterns("run"))
    return tmp_path / "data"


def kek(folder: Path) -> Path:
    (found,) = (folder / "keyring").glob("kek_*.key")
    return found


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "no keyring": (lambda folder: shutil.rmtree(folder / "keyring"), "the folder is missing; restore it"),
    "no log key": (lambda folder: (folder / "keyring" / "log.key").unlink(), "log.key is missing; restore the keyring"),
    "no key of a day": (lambda folder: kek(folder).unlink(), "a key is missing; restore the keyring"),
    "a log key for everybody": (
        lambda folder: (folder / "keyring" / "log.key").chmod(0o644),
        "must have mode 0600; set it with chmod",
    ),
    "a key of a day for the group": (lambda folder: kek(folder).chmod(0o640), "must have mode 0600"),
    "a keyring for everybody": (lambda folder: (folder / "keyring").chmod(0o755), "must have mode 0700"),
    "half a log key": (lambda folder: (folder / "keyring" / "log.key").write_bytes(b"x"), "does not have 32 bytes"),
    "a newer version": (
        lambda folder: query(folder.parent, "UPDATE alembic_version SET version_num = '9999'"),
        "written by a newer Keepless; install that version",
    ),
    "not a database": (lambda folder: (folder / "keepless.sqlite").write_bytes(b"x" * 8192), "database"),
}


@pytest.mark.parametrize(("harm", "says"), HARM.values(), ids=HARM)
def test_what_cannot_be_trusted_is_not_started(folder: Path, harm: Callable[[Path], object], says: str) -> None:
    harm(folder)
    assert says in refused(folder)


LOSSES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "the key of a day": (kek, "a key is "),  # missing; or lost, once the server's own sweep has looked
    "the log key": (lambda folder: folder / "keyring" / "log.key", "log.key is missing; restore the keyring"),
    "the keyring": (lambda folder: folder / "keyring", "the folder is missing; restore it"),
}


@pytest.mark.parametrize(("what", "says"), LOSSES.values(), ids=LOSSES)
def test_a_key_that_goes_missing_while_it_is_used_is_told(
    start: Callable[..., contextlib.AbstractContextManager[Served]],
    tmp_path: Path,
    what: Callable[[Path], Path],
    says: str,
) -> None:
    with start() as served:
        customer = Organization.of(served.url, served.told)
        before = customer.chat(MANY[0])
        assert before.kept.startswith("class=reliability_log") and readyz(customer) == {}
        lost = what(tmp_path / "data")
        lost.rename(tmp_path / "elsewhere")
        assert any(says in why for why in readyz(customer).values())
        assert customer.chat("ok").status == 200, "inference goes on"
        meanwhile = customer.chat(MANY[1])  # kept under what there is, or not at all
        (tmp_path / "elsewhere").rename(lost)
        assert readyz(customer) == {}
        kept = [answer for answer in (before, meanwhile, customer.chat(MANY[2])) if answer.kept != "none"]
        assert set(customer.retained()) == {answer.object_id for answer in kept}
        # A key that a sweep has missed is retired, and what it wraps moves on when it is back: nothing is lost.
        comes_true(lambda: keepless("sweep", "--once", "--data-dir", str(tmp_path / "data"))[0] == 0)
        assert query(tmp_path, "SELECT DISTINCT state FROM kek JOIN kept ON kept.kek_id = kek.id") == [("active",)]


def test_a_key_that_is_lost_for_good_is_reported_by_a_person_s_sweep(folder: Path) -> None:
    kek(folder).unlink()
    code, report = keepless("sweep", "--once", "--data-dir", str(folder))
    assert code == 1 and "key" in str(report["findings"])
    with contextlib.closing(sqlite3.connect(folder / "keepless.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM kept").fetchone() == (1,), "its row stands until its end"


def test_tls_is_announced_and_an_untrusted_certificate_named(
    start: Callable[..., contextlib.AbstractContextManager[Served]], tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    with start(settings={"tls_cert": str(certificate), "tls_key": str(key)}) as served:
        assert served.url.startswith("https://127.0.0.1:")
        known = {"KEEPLESS_BASE_URL": served.url, "KEEPLESS_ADMIN_KEY": served.told["admin_key"]}
        assert keepless("controls", "show", SSL_CERT_FILE=str(certificate), **known)[0] == 0
        code, told = keepless("controls", "show", **known)
        assert (code, "certificate is not trusted" in told["error"]["message"]) == (1, True)


def test_a_second_server_is_refused_and_the_first_unharmed(
    start: Callable[..., contextlib.AbstractContextManager[Served]], tmp_path: Path
) -> None:
    with start() as served:
        customer = Organization.of(served.url, served.told)
        assert "another server is running on this data folder" in refused(tmp_path / "data")
        port = served.url.rsplit(":", 1)[1]
        elsewhere = refused(tmp_path / "elsewhere", "--port", port)
        assert "in use" in elsewhere
        assert customer.chat("ok").status == 200
        assert customer.chat(MANY[0]).kept.startswith("class=")
        assert readyz(customer) == {}
    assert served.process.returncode == 0
