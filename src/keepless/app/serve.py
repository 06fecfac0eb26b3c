"""`keepless serve`: the supervisor. One folder, one socket, the embedded engines, and the processes that answer.

1. Make the first organization when the folder is empty (and print its keys, this once); take the folder's lock.
2. Open the listening socket: from here a second server on the port or the folder is refused.
3. Start the embedded engines and the shared counters of the rate limits.
4. With one worker serve in this very process; with several start them and start again (with growing pauses) what dies.
5. Start the process that runs jobs, once there are any (`works=False`: neither that nor sweeps).
6. On SIGTERM or SIGINT: let requests in work end, write what the ledger holds, stop jobs, stop the engines.

Leaves out: what a worker does (worker), the process of the jobs (job_child).
"""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from keepless import log
from keepless.app import worker
from keepless.app.compose import check_keys, is_empty, limited_models, limited_organizations, open_deployment
from keepless.app.engines import Engines
from keepless.app.folder import FolderLock, prepare
from keepless.app.harden import harden, raise_file_limit, silence
from keepless.app.initialise import initialise
from keepless.app.job_child import JobChild
from keepless.app.life import begin
from keepless.app.plan import Plan, encode
from keepless.app.tuned_child import TunedChild
from keepless.clock import DAY_MS, day_of
from keepless.config import Settings
from keepless.errors import ConfigError
from keepless.gateway.server import create_listening_socket
from keepless.http.limits import RateLimits
from keepless.jobs.port import Queue
from keepless.log import Event
from keepless.training.port import is_missing
from keepless.usage.totals import requests_since

__all__ = ["Announcement", "serve"]

Announcement = dict[str, str]
_STOP_S: Final = 20.0
_STEADY_S: Final = 30.0
_SLOWEST_S: Final = 10.0


def serve(settings: Settings, *, announce: Callable[[Announcement], None], works: bool = True) -> int:
    """Serve until a signal comes; the exit code. `announce` is told once, when requests are answered.

    Raises `ConfigError` when the folder, the port, the keyring or the database cannot be used.
    """
    first: Announcement = initialise(settings) if is_empty(settings) else {}
    folder = prepare(settings.data_dir)
    lock = FolderLock(folder)
    harden()
    silence()
    raise_file_limit()
    listening = _listen(settings)
    engines = Engines(settings, folder / "run", "engine")
    tuned = TunedChild(settings, folder / "run", "engine")
    with contextlib.ExitStack() as ending:
        ending.callback(lock.release)
        ending.callback(listening.close)
        ending.callback(engines.stop)
        at = engines.start()
        ending.callback(tuned.stop)
        host, port = listening.getsockname()[:2]
        scheme = "http" if settings.tls_cert is None else "https"
        told: Announcement = {"url": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", **first}
        if "sign_in_path" in told:
            told["sign_in"] = told["url"] + told.pop("sign_in_path")
        counters = _counters(settings).fd  # brings the schema up to date
        host = tuned.start()
        plan = Plan(
            settings=settings,
            listening=listening.fileno(),
            engines=at,
            counters=counters,
            pulses=engines.pulses.fd,
            sweeps=works,
            tuned=host,
        )
        if works:
            queues = (Queue.BATCH,) if is_missing() else tuple(Queue)
            own = Plan(settings=settings, listening=-1, engines=at, sweeps=False, tuned=host, queues=queues)
            jobs = JobChild(own)
            ending.callback(jobs.stop)
            jobs.start()
        if settings.workers == 1:
            return worker.run(plan, on_ready=lambda: announce(told))
        return _Supervisor(plan).run(lambda: announce(told))


def _counters(settings: Settings) -> RateLimits:
    """Shared counters with the requests of this day so far; opening also brings the schema up to date, once."""
    deployment = open_deployment(settings)
    try:
        check_keys(deployment)
        counters = RateLimits(deployment.clock)
        today = day_of(deployment.clock.now_ms()) * DAY_MS
        of_models = limited_models(deployment.db)
        counters.seed(requests_since(deployment.db, limited_organizations(deployment.db), today, of_models))
    finally:
        deployment.close()
    return counters


def _listen(settings: Settings) -> socket.socket:
    try:
        return create_listening_socket(settings.host, settings.port)
    except OSError:
        raise ConfigError("host and port cannot be listened on: in use, or not an address of this machine") from None


class _Worker:
    """One serving process, kept running."""

    def __init__(self, plan: Plan) -> None:
        self._plan: Final = plan
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.delay = 0.1
        self.due = 0.0

    def start(self) -> socket.socket | None:
        """Start it; the socket on which it says that it serves. None: it cannot be started at the moment."""
        try:
            said, says = socket.socketpair()
        except OSError as error:
            log.failure(Event.PROCESS_NOT_STARTED, error)
            return None
        with says:
            plan = Plan(
                settings=self._plan.settings,
                listening=self._plan.listening,
                engines=self._plan.engines,
                counters=self._plan.counters,
                pulses=self._plan.pulses,
                ready=says.fileno(),
                sweeps=self._plan.sweeps,
                tuned=self._plan.tuned,
            )
            self.process = begin(
                lambda: subprocess.Popen(
                    [sys.executable, "-m", "keepless.app.worker"],
                    stdin=subprocess.PIPE,
                    pass_fds=(plan.listening, plan.counters, plan.pulses, plan.ready),
                ),
                encode(plan),
            )
        self.began = time.monotonic()
        if self.process is None:
            said.close()
            return None
        return said


class _Supervisor:
    """Several serving processes on one socket."""

    def __init__(self, plan: Plan) -> None:
        self._workers: Final = [_Worker(plan) for _ in range(plan.settings.workers)]
        self._stopping: Final = threading.Event()

    def run(self, on_ready: Callable[[], None]) -> int:
        """Run until a signal; 0 when everything ended in time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        said = [worker.start() for worker in self._workers]
        served = [one is not None and one.recv(1) == b"1" for one in said]
        for one in said:
            if one is not None:
                one.close()
        if not all(served):
            self._end()
            raise ConfigError("a serving process did not start; its line in the log says why")
        on_ready()
        log.emit(Event.SERVER_STARTED, workers=len(self._workers))
        while not self._stopping.wait(0.2):
            for worker_ in self._workers:
                self._look_after(worker_)
        log.emit(Event.SERVER_STOPPING)
        code = self._end()
        log.emit(Event.SERVER_STOPPED, code=code)
        return code

    def _look_after(self, one: _Worker) -> None:
        now = time.monotonic()
        if one.process is not None and one.process.poll() is not None:
            log.emit(Event.WORKER_DIED, code=one.process.returncode)
            self._again(one, now)
        if one.process is None and now >= one.due:
            said = one.start()
            if said is None:
                self._again(one, now)
            else:
                said.close()

    @staticmethod
    def _again(one: _Worker, now: float) -> None:
        one.delay = 0.1 if now - one.began > _STEADY_S else min(2 * one.delay, _SLOWEST_S)
        one.process, one.due = None, now + one.delay

    def _end(self) -> int:
        running = [one.process for one in self._workers if one.process is not None]
        for process in running:
            process.terminate()
        until, code = time.monotonic() + _STOP_S, 0
        for process in running:
            try:
                code = max(code, abs(process.wait(max(0.1, until - time.monotonic()))))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = 1
        return code
