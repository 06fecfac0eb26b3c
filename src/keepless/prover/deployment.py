"""A throw-away deployment: a folder, a server in it, and everything that the server says, in memory.

Holds: `Deployment` (start, kill, stop, sweep, remove; its processes and what they wrote). Leaves out: which models it
has and what is asked of it (the caller's).

The server is `python -m keepless serve`, as anybody runs it. Its configuration and its output go through pipes: the
prover itself writes nothing down. Its temporary folder and its working folder are ours.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

from keepless.prover.places import descendants
from keepless.prover.wire import ProverError

__all__ = ["Deployment", "toml"]

_START_S: Final = 180.0
_STOP_S: Final = 40.0


def toml(settings: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """A `keepless.toml`: JSON's texts, numbers and booleans are TOML's too."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, Mapping)]
    for name, table in settings.items():
        if isinstance(table, Mapping):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    for model in models:
        lines += ["[[models]]", *(f"{name} = {json.dumps(value)}" for name, value in model.items())]
    return "\n".join(lines) + "\n"


class Deployment:
    """One folder and, between `start` and `stop` or `kill`, one server. `with` removes both at its end."""

    def __init__(
        self,
        within: Path,
        settings: Mapping[str, Any],
        models: Sequence[Mapping[str, Any]],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # Short: the path of a unix socket below it has at most 107 letters.
        self.folder: Final = within.absolute() / f"k-{secrets.token_hex(4)}"
        self.data_dir: Final = self.folder / "data"
        self.url = ""
        self.told: dict[str, str] = {}  # the keys of the first start
        self.streams: Final[dict[str, bytearray]] = {"stdout": bytearray(), "stderr": bytearray()}
        self._config: Final = toml({**settings, "data_dir": str(self.data_dir), "port": 0}, models).encode()
        self._environment: Final = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []
        self._announced: Final = threading.Event()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(0o700)
            (self.folder / "tmp").mkdir()
        except OSError:
            raise ProverError("a folder cannot be made where it was asked for") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers. Raises `ProverError` when it does not."""
        self._announced.clear()
        at = len(self.streams["stdout"])
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "keepless", "serve", "--json", "--config", "/dev/stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self._variables(),
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ProverError("a process has no pipes")
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(self._config)
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self._announced.wait(_START_S)
        try:
            told = json.loads(bytes(self.streams["stdout"][at:]).split(b"\n", 1)[0])
        except ValueError:
            told = {}
        if "url" not in told:
            self.kill()
            raise ProverError(f"the server does not start: {told.get('error', {}).get('message', 'it said nothing')}")
        self.url = told["url"]
        self.told = {**told, **self.told}

    def _read(self, name: str, stream: IO[bytes]) -> None:
        while part := os.read(stream.fileno(), 65536):
            self.streams[name] += part
            if name == "stdout" and b"\n" in part:
                self._announced.set()
        self._announced.set()
        stream.close()

    @property
    def pids(self) -> list[int]:
        """The server's processes, itself first."""
        return [] if self._process is None else descendants(self._process.pid)

    def written(self) -> dict[str, bytes]:
        """Everything that the processes wrote so far."""
        return {name: bytes(data) for name, data in self.streams.items()}

    def stop(self) -> int:
        """End it as an operator does; its exit code. A server that does not end is killed (and the code is not 0)."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        return self.kill()

    def sweep_later(self, days: int) -> int:
        """`keepless sweep --once` under a clock that is days ahead; its exit code. What it writes is kept as well."""
        ahead = {"PROVER_AHEAD_NS": str(days * 86_400 * 10**9)}
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                # before anything of ours is imported, so that all of it reads this clock
                (
                    "import os, sys, time; now, ahead = time.time_ns, int(os.environ['PROVER_AHEAD_NS'])\n"
                    "time.time_ns = lambda: now() + ahead\n"
                    "from keepless.cli.main import main; sys.exit(main())"
                ),
                "sweep",
                "--once",
                "--json",
                "--config",
                "/dev/stdin",
            ],
            input=self._config,
            capture_output=True,
            cwd=self.folder,
            env={**self._variables(), **ahead},
            timeout=_START_S,
            check=False,
        )
        self.streams["stdout"] += done.stdout
        self.streams["stderr"] += done.stderr
        return done.returncode

    def _variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEEPLESS_")}
        return {**kept, "TMPDIR": str(self.folder / "tmp"), **self._environment}

    def kill_one(self, program: bytes) -> int:
        """SIGKILL for those of its processes that run a program; how many there were."""
        found = [pid for pid in self.pids if program in _cmdline(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def kill(self) -> int:
        """SIGKILL for all of its processes at once."""
        if self._process is None:
            return 0
        pids = self.pids
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = self._process.wait()
        while any(Path(f"/proc/{pid}").exists() and _lives(pid) for pid in pids):
            time.sleep(0.01)
        for reader in self._readers:
            reader.join(5)
        self._process = None
        return code


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
