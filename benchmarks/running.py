"""Starting, watching and ending what is measured.

Holds: `Machine` (mock upstreams, targets, who may run), `Running`, and what the kernel knows of it: CPU time, memory.
Leaves out: which cells are measured (gateway), which targets there are (targets).

The target under test has core 0 to itself; the mock upstream and the load generator share core 1. Targets that are not
being measured are stopped (SIGSTOP), so that their idle work falls into nobody's figures. Every target is the leader of
a session of its own, by which its processes are found and ended.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from benchmarks.targets import OUT, Place, Target, body

__all__ = ["Load", "Machine", "Running"]

_TICK = os.sysconf("SC_CLK_TCK")
_TARGET_CORE, _LOAD_CORE = "0", "1"
Load = dict[str, float]


class Running:
    """A started target."""

    def __init__(self, target: Target, place: Place) -> None:
        self.target = target
        self.place = place
        self.port = place.port
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir(parents=True)
        self.errors = (place.folder / "stderr").open("wb")
        command = ["taskset", "-c", _TARGET_CORE, *target.write(place)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(place.folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        self.process = subprocess.Popen(
            command,
            cwd=place.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until it answers a request. Raises RuntimeError."""
        target, until = self.target, time.monotonic() + self.target.patience_s
        if target.announced is not None:
            self.port = target.announced(self._line(until), self.place, target)
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if b" 200 " in self._ask().split(b"\r\n", 1)[0]:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"{target.name} does not answer; see {self.place.folder}/stderr")

    def _line(self, until: float) -> str:
        """The line of JSON that it prints when it serves."""
        out = self.process.stdout
        while out is not None and time.monotonic() < until and self.process.poll() is None:
            if select.select([out], [], [], 0.5)[0]:
                line = out.readline()
                if line.startswith(b"{"):
                    return line.decode()
        raise RuntimeError(f"{self.target.name} does not start; see {self.place.folder}/stderr")

    def _ask(self) -> bytes:
        data = body(self.target.model, stream=False)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(
                f"POST {self.target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {self.target.key}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            return connection.recv(65536)

    def pids(self) -> list[int]:
        """Its processes."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if _stat(int(entry.name))[3] == str(self.process.pid):
                        found.append(int(entry.name))
        return found

    def cpu_s(self) -> float:
        """CPU seconds of all its processes, also those that ended."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += sum(int(ticks) for ticks in _stat(pid)[11:15]) / _TICK
        return total

    def memory_mb(self, kind: str = "Rss") -> float:
        """Resident size of all its processes; `Pss` counts shared pages by their share."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(f"{kind}:"):
                        total += int(line.split()[1])
        return total / 1024

    def signal(self, number: int) -> None:
        """To all its processes."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """End it, first politely."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.errors.close()


class Machine:
    """The mock upstreams and the targets. `with Machine(...)` ends them all."""

    def __init__(self, targets: list[Target], base_port: int = 9800) -> None:
        subprocess.run([str(Path(__file__).parent / "build")], check=True)
        self._base = base_port
        self.mock_port, self.long_port = base_port + 1, base_port + 2
        self._mocks = [
            _pinned(OUT / "bin" / "mock_upstream", str(self.mock_port)),
            _pinned(OUT / "bin" / "mock_upstream", str(self.long_port), "-n", "20000"),
        ]
        self.running: dict[str, Running] = {}
        for index, target in enumerate(targets):
            self._start(index, target)

    def _start(self, index: int, target: Target) -> None:
        place = Place(OUT / "run" / target.name, self._base + 10 + index, self.mock_port, self.long_port)
        one = Running(target, place)
        try:
            one.wait()
        except (RuntimeError, OSError, ValueError) as error:
            print(f"left out: {error}")
            one.end()
            return
        time.sleep(1)  # what a start leaves to do
        one.signal(signal.SIGSTOP)
        self.running[target.name] = one

    def load(self, port: int, path: str, key: str, data: bytes, connections: int, seconds: float, warm: float) -> Load:
        """One run of the load generator."""
        file = OUT / "run" / "body.json"
        file.write_bytes(data)
        command = ["taskset", "-c", _LOAD_CORE, str(OUT / "bin" / "load"), str(port), "-P", path, "-b", str(file)]
        command += ["-c", str(connections), "-t", str(seconds), "-w", str(warm), "-H", f"Authorization: Bearer {key}"]
        done = subprocess.run(command, capture_output=True, timeout=seconds + warm + 10, check=True)
        return dict(json.loads(done.stdout))

    def leave_out(self, name: str) -> None:
        """End a target that has failed."""
        one = self.running.pop(name, None)
        if one is not None:
            one.end()

    def instruments_s(self) -> float:
        """CPU seconds of the mocks and of every load generator so far."""
        ended = os.times()
        mocks = sum(sum(int(ticks) for ticks in _stat(mock.pid)[11:13]) / _TICK for mock in self._mocks)
        return mocks + ended.user + ended.system + ended.children_user + ended.children_system

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.running.values():
            one.end()
        for mock in self._mocks:
            mock.kill()
            mock.wait()


def _pinned(program: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = ["taskset", "-c", _LOAD_CORE, str(program), *arguments]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat behind the name, from the state on."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()
