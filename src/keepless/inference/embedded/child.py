"""The process of an engine that speaks frames: a bounded queue, a few threads, one function that answers.

Holds: `run` (a child's main), `Work` (the engine: settings in, answers out), `Channel` (what an answer is told to),
`harden` and `read_line`, which llama's child shares. Leaves out: engines, restarting (supervised).

The steps: 1. No core dumps, not traceable, dies with who started it, no more memory than the setting. 2. One line of
settings comes in on standard input. 3. The engine is loaded and warmed up; one word says how it went. 4. Connections
are taken from the listening socket that the supervisor owns (descriptor 3): the key first, then one request each;
`parallel` are in work, `queue` wait, more are BUSY. 5. It ends (exit code 0) when it had nothing to do for `idle_stop`
seconds; whoever connects afterwards waits in the socket until the supervisor has started the next one.

What is stuck ends the process: a request without progress for `first_byte_timeout` seconds, found by the loop; and the
loop itself, when a library holds the interpreter's lock, by the kernel's alarm. Clients that leave while they wait lose
their place at once; when the clients of all requests that are here have left, and none gives up within a second, that
ends the process too. A client that does not read is waited for: when that is enough, the gateway says, and leaves.
Nothing is logged, nothing is written.
"""

import contextlib
import ctypes
import hmac
import os
import resource
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

import msgspec

from keepless.content import Content
from keepless.errors import KeeplessError, Problem
from keepless.inference.embedded.dialect import encode_problem
from keepless.inference.embedded.engine import ChildSettings, Word
from keepless.inference.embedded.frames import Cost, FrameError, Frames, Head, Kind, Mishap, frame

__all__ = ["Channel", "GoneError", "NotLoadedError", "Work", "harden", "has_left", "read_line", "run", "say"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_LINE_LIMIT: Final = 64 * 1024
_LISTENING: Final = 3
_TURN_S: Final = 0.25
_GRACE_S: Final = 1.0  # for a request whose client has left
_READ_S: Final = 30.0  # for a request to come in
_READ_BYTES: Final = 1024 * 1024
_STUCK: Final = 3  # exit code


class GoneError(KeeplessError):
    """Nobody waits for the answer any more."""


class NotLoadedError(KeeplessError):
    """The engine cannot be used; `word` says why."""

    def __init__(self, word: Word) -> None:
        super().__init__(word.value)
        self.word: Final = word


class Channel:
    """The way of one answer back. After the client left every call raises `GoneError`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: Final = connection
        self._place: Final = connection.fileno()
        self._begun = False
        self.moved: float | None = time.monotonic()  # None: it waits for the client, which is no fault of the engine

    @property
    def gone(self) -> bool:
        """Whether the client has left (or says what it must not). Any thread may ask."""
        poll = select.poll()  # one a call: two threads that ask the same one at once are an error of its own
        poll.register(self._place, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    @property
    def begun(self) -> bool:
        """Whether a head has been told."""
        return self._begun

    def head(self, content_type: str, status: int = 200) -> None:
        """The beginning of the answer."""
        self._begun = True
        self._send(frame(Kind.HEAD, msgspec.json.encode(Head(status, content_type))))

    def data(self, data: bytes) -> None:
        """The next piece of it."""
        self._send(frame(Kind.DATA, data))

    def progress(self) -> None:
        """Nothing to tell yet, but the work goes on: to be called at least every few seconds."""
        self._send(frame(Kind.PROGRESS))

    def end(self, cost: Cost) -> None:
        """The answer is complete."""
        self._send(frame(Kind.END, msgspec.json.encode(cost)))

    def fail(self, mishap: Mishap) -> None:
        """There will be no (more) answer."""
        self._send(frame(Kind.FAILURE, mishap.value.encode("ascii")))

    def _send(self, data: bytes) -> None:
        if self.gone:
            raise GoneError
        self.moved = None
        try:
            self._connection.settimeout(None)
            self._connection.sendall(data)
        except OSError:
            raise GoneError from None
        finally:
            self.moved = time.monotonic()


class Work(Protocol):
    """A loaded engine. Called in several threads."""

    def __call__(self, header: bytes, content: Content, channel: Channel) -> Cost:
        """Answer one request: tell `channel`, return what it cost.

        Raises `Problem` (4xx) for what cannot be served; anything else that it raises is a fault of the engine.
        """


def run(load: Callable[[ChildSettings], Work]) -> NoReturn:
    """Serve until the other end of standard input is closed, or there is nothing to do."""
    harden()
    control = socket.socket(fileno=os.dup(0))
    settings = msgspec.json.decode(read_line(control), type=ChildSettings)
    limit = settings.model.memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    word, work = Word.READY, None
    try:
        work = load(settings)
    except NotLoadedError as error:
        word = error.word
    except Exception:
        word = Word.NOT_LOADED
    control.sendall(word.value.encode("ascii") + b"\n")
    if work is not None:
        _Loop(settings, work, control).run()
    # Threads are not joined: they have nothing to save.
    os._exit(0 if work is not None else 1)


def harden() -> None:
    """Forbid core dumps and tracing; end with who started us."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def read_line(control: socket.socket) -> bytes:
    """The line of settings; ends the process when there is none."""
    data = b""
    while not data.endswith(b"\n") and len(data) < _LINE_LIMIT:
        more = control.recv(4096)
        if not more:
            os._exit(1)
        data += more
    return data


def say(connection: socket.socket, mishap: Mishap) -> bool:
    """Tell a client whose request was not read; whether it could be told.

    The connection must stay until the client has left (`has_left`): what is closed unread takes the word with it.
    """
    try:
        connection.settimeout(0)
        connection.sendall(frame(Kind.FAILURE, mishap.value.encode("ascii")))
    except OSError:
        return False
    return True


def has_left(connection: socket.socket, timeout_s: float) -> bool:
    """Wait until the client has closed its side; whether it has."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(timeout_s * 1000))


def _closed(connection: socket.socket, waited_s: float) -> bool:
    """Close the connection of a client that has left, or had the time to."""
    if waited_s < _GRACE_S and not has_left(connection, 0):
        return False
    connection.close()
    return True


class _Loop:
    def __init__(self, settings: ChildSettings, work: Work, control: socket.socket) -> None:
        model = settings.model
        self._settings: Final = settings
        self._work: Final = work
        self._control: Final = control
        self._listening: Final = socket.socket(fileno=_LISTENING)
        self._listening.setblocking(False)
        self._stuck_s: Final = model.first_byte_timeout
        self._room: Final = model.parallel + model.queue
        self._waiting: Final[deque[tuple[socket.socket, float]]] = deque()
        self._lock: Final = threading.Lock()
        self._came: Final = threading.Condition(self._lock)  # one more waits
        self._held = 0  # connections in work or waiting
        self._running: Final[set[Channel]] = set()
        self._leaving: list[tuple[socket.socket, float]] = []  # told that there is no room
        for _ in range(model.parallel):
            threading.Thread(target=self._serve, daemon=True).start()

    def run(self) -> None:
        """Take connections and watch over requests, until there is a reason to end."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._listening, select.POLLIN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        busy = time.monotonic()
        left: dict[Channel, float] = {}
        while True:
            # The kernel ends the process when this loop does not come round any more.
            signal.setitimer(signal.ITIMER_REAL, 2 * self._stuck_s)
            ready = {descriptor for descriptor, _ in poll.poll(_TURN_S * 1000)}
            now = time.monotonic()
            if self._control.fileno() in ready:
                return
            if self._listening.fileno() in ready:
                self._accept(now)
            self._leaving = [one for one in self._leaving if not _closed(one[0], now - one[1])]
            with self._lock:
                self._let_go()
                held, running = self._held, tuple(self._running)
            if held:
                busy = now
            elif now - busy > self._settings.model.idle_stop:
                return
            if any(moved is not None and now - moved > self._stuck_s for moved in [one.moved for one in running]):
                os._exit(_STUCK)
            left = {one: left.get(one, now) for one in running if one.gone}
            if left and len(left) == held and all(now - since > _GRACE_S for since in left.values()):
                return  # what is worked on is for nobody, and nobody waits

    def _accept(self, now: float) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listening.accept()
            with self._lock:
                full = self._held >= self._room
                if not full:
                    self._held += 1
                    self._waiting.append((connection, now))
                    self._came.notify()
            if not full:
                return
            if say(connection, Mishap.BUSY):
                self._leaving.append((connection, now))
            else:
                connection.close()

    def _let_go(self) -> None:
        """Those whose clients left while they waited."""
        for one in [one for one in self._waiting if has_left(one[0], 0)]:
            self._waiting.remove(one)
            self._held -= 1
            one[0].close()

    def _serve(self) -> None:
        while True:
            with self._came:
                self._came.wait_for(lambda: bool(self._waiting))
                connection, came = self._waiting.popleft()
            try:
                with connection:
                    self._answer(connection, came)
            finally:
                with self._lock:
                    self._held -= 1

    def _answer(self, connection: socket.socket, came: float) -> None:
        """One connection, whatever becomes of it."""
        try:
            if time.monotonic() - came > self._stuck_s:
                if say(connection, Mishap.BUSY):
                    has_left(connection, _GRACE_S)
                return
            header, content = self._request(connection)
        except (OSError, FrameError, GoneError):
            return
        channel = Channel(connection)
        with self._lock:
            self._running.add(channel)
        try:
            with contextlib.suppress(GoneError):
                self._told(header, content, channel)
        finally:
            with self._lock:
                self._running.discard(channel)

    def _told(self, header: bytes, content: Content, channel: Channel) -> None:
        try:
            cost = self._work(header, content, channel)
        except GoneError:
            raise
        except Problem as problem:
            if channel.begun:
                channel.fail(Mishap.FAILED)
                return
            channel.head("application/json", problem.status)
            channel.data(encode_problem(problem))
            cost = Cost()
        except Exception:  # its text may quote the content: not passed on
            channel.fail(Mishap.FAILED)
            return
        channel.end(cost)

    def _request(self, connection: socket.socket) -> tuple[bytes, Content]:
        """The key, the header and the content. Raises `FrameError` for anything else."""
        connection.settimeout(_READ_S)
        key = self._settings.key.encode("ascii")
        frames = Frames(self._settings.content_limit)
        came: list[tuple[Kind, bytes]] = []
        while len(came) < 3:
            data = connection.recv(_READ_BYTES)
            if not data:
                raise FrameError
            came += frames.feed(data)
            if came and not hmac.compare_digest(came[0][1], key):
                raise FrameError
        if [kind for kind, _ in came] != [Kind.KEY, Kind.HEADER, Kind.CONTENT]:
            raise FrameError
        return came[1][1], Content(came[2][1])
