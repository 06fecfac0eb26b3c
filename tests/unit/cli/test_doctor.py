"""`keepless doctor`: each check looks and changes nothing."""

from pathlib import Path

import pytest

from keepless.accounts.tables import change
from keepless.app.compose import open_deployment
from keepless.app.initialise import initialise
from keepless.cli import doctor
from keepless.cli.doctor import Grade
from keepless.config import (
    DEFAULT_MODEL,
    Engine,
    ModelConfig,
    Settings,
    UpstreamConfig,
    UpstreamRetention,
    load,
)
from keepless.vault.states import Cause, TombstoneState
from keepless.vault.tables import tombstone
from tests.support.clock import FakeClock
from tests.support.platform import Platform
from tests.unit.cli.conftest import Terminal


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(environ={}, data_dir=str(tmp_path / "data"))
    initialise(found)
    return found


def grades(findings: object) -> dict[str, Grade]:
    return {finding.check: finding.grade for finding in findings}


def proc(folder: Path, *, pattern: str = "core", swaps: str = "Filename\n") -> Path:
    (folder / "sys/kernel").mkdir(parents=True)
    (folder / "sys/kernel/core_pattern").write_text(pattern)
    (folder / "swaps").write_text(swaps)
    return folder


def test_a_new_folder_is_fine_but_for_the_keyrings_device(settings: Settings, terminal: Terminal) -> None:
    answer = terminal.json("doctor", "--data-dir", settings.data_dir)
    assert answer["ok"] is True
    found = {check["check"]: check["grade"] for check in answer["checks"]}
    assert found["keyring device"] == "warning"
    for check in ("data folder", "keyring", "keyring files", "secure_delete", "location", "purges", "clock"):
        assert found[check] == "ok", check
    code, out, _ = terminal.run("doctor", "--data-dir", settings.data_dir)
    assert (code, "this machine, region undeclared" in out) == (0, True)


def test_a_missing_folder_is_wrong_usage(terminal: Terminal, tmp_path: Path) -> None:
    assert "keepless init" in terminal.json("doctor", "--data-dir", str(tmp_path / "none"), code=2)["error"]["message"]
    assert not (tmp_path / "none").exists()


def test_loose_modes_are_problems(settings: Settings) -> None:
    keyring = Path(settings.keyring.removeprefix("file://"))
    Path(settings.data_dir).chmod(0o755)
    keyring.chmod(0o750)
    next(path for path in keyring.iterdir() if path.is_file()).chmod(0o644)
    found = grades(doctor.folder(settings))
    assert {found[name] for name in ("data folder", "keyring", "keyring files")} == {Grade.PROBLEM}


def test_a_missing_keyring_is_a_problem(settings: Settings, tmp_path: Path) -> None:
    Path(settings.keyring.removeprefix("file://")).rename(tmp_path / "elsewhere")
    assert grades(doctor.folder(settings))["keyring"] is Grade.PROBLEM


@pytest.mark.parametrize(
    ("pattern", "swaps", "core", "swap"),
    [
        ("core", "Filename\n", Grade.OK, Grade.OK),
        ("|/usr/lib/handler", "Filename\n/swapfile file 1 0 -2\n", Grade.WARNING, Grade.WARNING),
    ],
)
def test_memory_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, swaps: str, core: Grade, swap: Grade
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (0, 0))
    found = grades(doctor.machine(proc(tmp_path, pattern=pattern, swaps=swaps)))
    assert found == {"core dumps": core, "swap": swap, "fine-tuning": Grade.OK}


@pytest.mark.parametrize(("missing", "says"), [(True, "not installed"), (False, "can train")])
def test_whether_this_machine_can_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool, says: str
) -> None:
    monkeypatch.setattr(doctor, "is_missing", lambda: missing)
    (found,) = [one for one in doctor.machine(proc(tmp_path)) if one.check == "fine-tuning"]
    assert says in found.detail


def test_core_dumps_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert grades(doctor.machine(proc(tmp_path)))["core dumps"] is Grade.WARNING


@pytest.mark.parametrize(
    ("upstreams", "grade", "says"),
    [
        ([("zero", "http://127.0.0.1:1"), ("zero", "https://far")], Grade.OK, "2 upstreams, 2 with zero retention"),
        ([("zero", "http://127.0.0.1:1"), ("logs_30d", "https://far")], Grade.WARNING, "there is no failover"),
        ([("logs_30d", "https://far")], Grade.WARNING, "cannot use it"),
        ([("zero", "https://far"), ("zero", "http://far")], Grade.WARNING, "plain http"),
        ([("zero", "https://a"), ("zero", "https://b"), ("unknown", "https://c")], Grade.WARNING, "not declared"),
    ],
)
def test_what_upstreams_promise(upstreams: list[tuple[str, str]], grade: Grade, says: str) -> None:
    made = [UpstreamConfig(base_url=url, retention=UpstreamRetention(retention)) for retention, url in upstreams]
    (found,) = doctor.models([ModelConfig(id="m", engine=Engine.OPENAI, upstreams=made)])
    assert (found.check, found.grade) == ("model m", grade)
    assert says in found.detail


def test_an_embedded_model_keeps_nothing() -> None:
    assert [finding.grade for finding in doctor.models([DEFAULT_MODEL])] == [Grade.OK]


def test_a_clock_behind_the_latest_time_seen_is_a_problem(settings: Settings) -> None:
    deployment = open_deployment(settings)
    now = FakeClock()
    with deployment.db.write() as tx:
        tx.execute(change.update().values(clock_floor=now.now_ms() + 3_600_000))
    assert grades(doctor.clock(deployment.db, now))["clock"] is Grade.PROBLEM
    now.advance_ms(3_600_000)
    assert grades(doctor.clock(deployment.db, now))["clock"] is Grade.OK
    deployment.close()


def test_a_location_that_breaks_its_promise_is_a_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepless.vault.locations import Finding, Light, Property

    deployment = open_deployment(settings)
    red = (None, [Finding(Property.VERSIONING, Light.RED)])
    monkeypatch.setattr(deployment.location, "_check", lambda: red)
    (found,) = [one for one in doctor.stores(deployment) if one.check == "location"]
    assert (found.grade, "versioning" in found.detail) == (Grade.PROBLEM, True)
    deployment.close()


def test_what_is_overdue_or_half_destroyed_is_told(served: Platform) -> None:
    db, clock = served.rig.database, served.rig.clock
    assert grades(doctor.purges(db, clock))["overdue objects"] is Grade.OK
    kept = served.put()
    served.rig.pass_days(31)
    with db.write() as tx:
        tx.execute(
            tombstone.insert().values(
                object_id="obj_x",
                organization_id=kept.organization_id,
                project_id=kept.project_id,
                data_class=kept.data_class,
                reason=kept.reason,
                created_at=1,
                deleted_at=2,
                cause=Cause.EXPIRED,
                state=TombstoneState.DESTROYING,
                location=kept.location,
                blob="blob_x",
                bytes=1,
                kek_id=kept.kek_id,
            )
        )
    found = grades(doctor.purges(db, clock))
    assert (found["overdue objects"], found["unfinished deletions"]) == (Grade.WARNING, Grade.WARNING)


def test_postgres_is_told_to_rely_on_destroyed_keys(database: object) -> None:
    (found,) = doctor.database(database)
    assert (found.check, found.grade) in {("secure_delete", Grade.OK), ("database", Grade.WARNING)}
