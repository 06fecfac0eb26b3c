"""The host of tuned models, as a child of whoever runs the engines: started with the first need, again when it dies.

Holds: `TunedChild`. Leaves out: what it does (tuned_host). The listening socket is here: who asks while no host is
there waits in it, and nothing is lost between two. A deployment without tuned models does not pay for a host.
"""

import os
import secrets
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from keepless import log
from keepless.app.life import begin, watch
from keepless.app.plan import HostPlan, encode
from keepless.config import Engine, Settings
from keepless.db import Database
from keepless.inference.embedded.tuned_backend import HostAt
from keepless.log import Event
from keepless.tuning.tables import tuned_model

__all__ = ["TunedChild"]

_BACKLOG: Final = 1024
_ASK_S: Final = 0.5  # whether there are tuned models
_FIRST_S: Final = 0.1
_SLOWEST_S: Final = 10.0
_STEADY_S: Final = 30.0
_STOP_S: Final = 10.0


class TunedChild:
    """One host, kept running while it is needed. Its sockets are below `directory`, named after `name`."""

    def __init__(self, settings: Settings, directory: Path, name: str) -> None:
        self._settings: Final = settings
        self._name: Final = name
        self._path: Final = directory.absolute() / f"{name}-host.sock"
        self._key: Final = secrets.token_urlsafe(32)
        self._stopping: Final = threading.Event()
        self._wake: Final = os.eventfd(0)
        self._listening: Final = socket.socket(socket.AF_UNIX)
        # The child lives no longer than the thread that started it.
        self._thread: Final = threading.Thread(target=self._run, name="tuned-child", daemon=True)

    def start(self) -> HostAt | None:
        """Begin; where the host is asked. None: no model here can be tuned."""
        if not any(model.engine is Engine.LLAMA for model in self._settings.models):
            return None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._listening.bind(str(self._path))
        self._path.chmod(0o600)
        self._listening.listen(_BACKLOG)
        self._thread.start()
        return HostAt(str(self._path), self._key)

    def stop(self) -> None:
        """End it, and with it every tuned model. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            os.eventfd_write(self._wake, 1)
            if self._thread.ident is not None:
                self._thread.join()
            self._listening.close()
            os.close(self._wake)
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        self._wait_for_first()
        pause = _FIRST_S
        while not self._stopping.is_set():
            began = time.monotonic()
            listening = self._listening.fileno()
            plan = encode(HostPlan(self._settings, listening, self._key, self._name))
            child = begin(partial(_start, listening), plan)
            if child is not None:
                code = watch(child, self._stopping, _STOP_S)
                if code is None:
                    return
                if code == 0:  # there was nothing to do any more
                    self._called(None)
                    continue
                log.emit(Event.ENGINE_DIED, code=code)
            pause = _FIRST_S if time.monotonic() - began > _STEADY_S else min(2 * pause, _SLOWEST_S)
            self._stopping.wait(pause)

    def _wait_for_first(self) -> None:
        """Until there are tuned models: the first request for one shall not wait for the host as well."""
        db = Database(self._settings.database, pool_size=1)
        try:
            while not self._stopping.is_set() and not self._called(_ASK_S) and not _has_models(db):
                pass
        finally:
            db.close()

    def _called(self, timeout_s: float | None) -> bool:
        """Wait until somebody asks, or the end; whether somebody does."""
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}
        return self._listening.fileno() in ready


def _start(listening: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "keepless.app.tuned_host"], stdin=subprocess.PIPE, pass_fds=(listening,)
    )


def _has_models(db: Database) -> bool:
    try:
        with db.read() as tx:
            return tx.execute(sa.select(tuned_model.c.hexadecimal).limit(1)).first() is not None
    except (sa.exc.SQLAlchemyError, sqlite3.Error):
        return False  # ask again
