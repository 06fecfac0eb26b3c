"""What the host of tuned models may load: what exists, of a project whose policy allows it, as the lease says now."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from keepless.accounts.store import touch, update_organization
from keepless.app import tuned_host
from keepless.app.plan import HostPlan, encode
from keepless.app.tuned_host import _Host
from keepless.config import FineTuning
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.tuned import NotHeldError
from keepless.tuning.names import parse_name
from tests.support.batching import Floor
from tests.support.engine import MODEL
from tests.support.tuned import keep


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    made = Floor(tmp_path_factory.mktemp("host"), [{"id": MODEL.id, "engine": "llama"}])
    yield made
    made.close()


@pytest.fixture
def host(floor: Floor) -> Iterator[_Host]:
    made = _Host(HostPlan(floor.deployment.settings, -1, "key", "t"), floor.deployment)
    made._lease.start()
    yield made
    made._lease.stop()


def model(floor: Floor) -> str:
    name = parse_name(keep(floor.deployment, floor.organization_id, floor.project_id, "x", weights=b"PK"))
    assert name is not None
    return name.hexadecimal


def test_a_model_is_held_as_soon_as_the_lease_knows_it_and_no_other(floor: Floor, host: _Host) -> None:
    made = model(floor)  # after the lease was read: a worker can know of it sooner
    assert asyncio.run(host._base_of(made, 0)).id == MODEL.id
    assert host._base(made) is not None
    assert host._base("0" * 12) is None


def test_what_is_unknown_or_not_allowed_is_withdrawn(
    floor: Floor, host: _Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(floor)
    asyncio.run(host._base_of(made, 0))
    monkeypatch.setattr(tuned_host, "_NEWS_S", 0.0)

    def withdrawn(name: str) -> bool:
        with pytest.raises(NotHeldError) as error:
            asyncio.run(host._base_of(name, 0))
        return error.value.kind is FailureKind.WITHDRAWN

    assert withdrawn("0" * 12)
    off(floor, True)
    host._lease._refresh()
    assert host._base(made) is None and withdrawn(made)
    off(floor, False)
    host._lease._refresh()
    assert host._base(made) is not None
    host._lease.stop()  # without a lease nothing is served
    assert host._base(made) is None


def off(floor: Floor, is_off: bool) -> None:
    with floor.deployment.db.write() as tx:
        update_organization(tx, floor.organization_id, touch(tx), fine_tuning_off=is_off)


def run(plan: bytes, listening: socket.socket) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "keepless.app.tuned_host"],
        input=b"%d\n" % os.getpid() + plan,
        capture_output=True,
        check=False,
        pass_fds=(listening.fileno(),),
    )


def test_with_nothing_to_do_it_ends_in_order(floor: Floor, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(floor.deployment.settings, fine_tuning=FineTuning(served_idle_stop=0.1))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        done = run(encode(HostPlan(settings, listening.fileno(), "key", "t")), listening)
        assert (done.returncode, done.stdout) == (0, b"")
        # What cannot be read ends it with a class and a code, never with the text.
        bad = run(b'{"MARKER": 1}', listening)
        assert bad.returncode == 2
        assert b"MARKER" not in bad.stdout + bad.stderr
        assert b"engine" in bad.stderr
