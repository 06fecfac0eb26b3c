"""Who runs the jobs: `serve` once there are batches, again when its child dies, or `worker` beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.batching import Floor, lines
from tests.support.serve import Served, serve
from tests.support.upstream import MockUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=0.05) as mock:
        yield mock


def children(of: int) -> list[int]:
    """Processes below one that run jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (path / "stat").read_text(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == of and b"keepless.app.job_worker" in command:
            found.append(int(path.name))
    return found


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def models(upstream: MockUpstream) -> list[dict[str, object]]:
    return [{"id": "ok", "engine": "openai", "base_url": upstream.base_url, "retention": "zero"}]


def batched(floor: Floor, server: Served, number: int) -> None:
    """A batch is made beside the server and run by its child."""
    batch_id = floor.batch(lines(number))
    assert floor.ended(batch_id).counts.completed == number
    assert children(server.process.pid)


def test_serve_runs_jobs_once_there_are_any_and_starts_again_what_dies(tmp_path: Path, upstream: MockUpstream) -> None:
    floor = Floor(tmp_path, models(upstream), real_files=True)
    try:
        with serve(tmp_path, models(upstream), known=floor.told) as server:
            assert not children(server.process.pid)
            batched(floor, server, 5)
            [child] = children(server.process.pid)
            os.kill(child, signal.SIGKILL)
            until(lambda: children(server.process.pid) not in ([], [child]))
            batched(floor, server, 5)
            [child] = children(server.process.pid)
        until(lambda: not Path(f"/proc/{child}").exists())
    finally:
        floor.close()


def test_killed_with_everything_below_it_serve_goes_on_when_it_is_started_again(
    tmp_path: Path, upstream: MockUpstream
) -> None:
    slow = [{**models(upstream)[0], "id": "slow-head", "batch_concurrency": 4}]
    floor = Floor(tmp_path, slow, real_files=True)
    before = len(upstream.received)
    try:
        with serve(tmp_path, slow, known=floor.told) as server:
            batch_id = floor.batch(lines(100, "slow-head"))
            floor.until(lambda: floor.see(batch_id).counts.completed)
            [child] = children(server.process.pid)
            server.process.kill()
            server.process.wait()
            until(lambda: not Path(f"/proc/{child}").exists())
        with serve(tmp_path, slow, known=floor.told):
            assert floor.ended(batch_id).counts.completed == 100
            floor.assert_each_once(batch_id, 100)
        assert len(upstream.received) - before <= 100 + 4 * 4  # under way, and of a tenth of a second
    finally:
        floor.close()


def test_a_server_may_leave_jobs_to_a_worker_beside_it(tmp_path: Path, upstream: MockUpstream) -> None:
    floor = Floor(tmp_path, models(upstream), real_files=True)
    try:
        with serve(tmp_path, models(upstream), "--no-worker", known=floor.told) as server:
            batch_id = floor.batch(lines(5))
            time.sleep(1.5)
            assert not children(server.process.pid)
            assert floor.see(batch_id).ended_at is None
            command = [sys.executable, "-m", "keepless", "worker", "--queues", "batch"]
            command += ["--config", str(tmp_path / "keepless.toml"), "--data-dir", str(tmp_path / "data")]
            worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            try:
                assert floor.ended(batch_id).counts.completed == 5
            finally:
                worker.terminate()
                assert worker.wait(30) == 0
    finally:
        floor.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--queues", "nothing"], "--queues: one or more of batch"), ([], "there is no deployment here")],
)
def test_a_worker_says_what_is_wrong(tmp_path: Path, options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "keepless", "worker", *options, "--data-dir", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
