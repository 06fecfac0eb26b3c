"""What a process that trains may not do, whatever the libraries in it try: write to disk, call anybody, start anything.

Holds: `confine`. Leaves out: memory and time (work), where the process comes from (port).

Four fences, each of which would do for what it covers:
1. No file can grow (RLIMIT_FSIZE 0): of any size, anywhere, in memory file systems too. Every kernel has it.
2. Landlock, where the kernel has it: no file is opened for writing, made, renamed, linked or removed; no program is
   run; no TCP. Devices of graphics cards are excepted: they are written to, and keep nothing.
3. A system call filter: no socket is made, no program is run.
4. Python's audit hook refuses the same by name, so that a library's own writers fail where they can be seen.
And no core dump, no tracing, no group, an end with who started it. Cannot be undone; threads made later are held too.
"""

import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from struct import Struct
from typing import Any, Final

__all__ = ["ConfinedError", "confine"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38

# landlock(7): numbers are the same on every architecture
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_RULE: Final = Struct("=Qi")
_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_CHANGES: Final = sum(1 << bit for bit in range(4, 13))  # make and remove, of every kind
_REFER: Final = 1 << 13  # since version 2
_TRUNCATE: Final = 1 << 14  # since version 3
_TCP: Final = 3  # bind and connect, since version 4
_DEVICES: Final = ("nvidia*", "dri/*", "kfd")

# seccomp(2): the architecture's number, then those of socket, execve and execveat
_CALLS: Final = {"x86_64": (0xC000003E, (41, 59, 322)), "aarch64": (0xC00000B7, (198, 221, 281))}
_FILTER: Final = Struct("=HBBI")
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | 13  # EACCES

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED: Final = frozenset(
    {
        *(f"os.{name}" for name in ("chmod", "chown", "exec", "fork", "forkpty", "link", "mkdir", "posix_spawn")),
        *(f"os.{name}" for name in ("remove", "rename", "rmdir", "setxattr", "spawn", "symlink", "system", "truncate")),
        *("pty.spawn", "shutil.copyfile", "shutil.move", "sqlite3.connect", "subprocess.Popen"),
        *("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
        *("tempfile.mkstemp", "tempfile.mkdtemp"),
    }
)


class ConfinedError(PermissionError):
    """A process that trains neither writes, nor calls, nor starts anything."""


def confine() -> None:
    """Hold this process, which has one thread yet, and everything that is loaded into it later. Raises `OSError`."""
    os.chdir("/")
    os.umask(0o077)
    # Python starts threads' handlers for it: what is written beyond the limit fails with EFBIG instead of a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    _must(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    _must(libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))
    _must(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _landlock(libc)
    _seccomp(libc)
    sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        raise ConfinedError
    if event == "open" and isinstance(args[2], int) and args[2] & _WRITES and not _device(args[0]):
        raise ConfinedError


def _device(path: object) -> bool:
    return isinstance(path, str) and any(Path(path).match(f"/dev/{pattern}") for pattern in _DEVICES)


def _landlock(libc: ctypes.CDLL) -> None:
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return  # not in this kernel, or switched off
    files = _EXECUTE | _WRITE_FILE | _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    held = Struct("=QQ").pack(files, _TCP) if version >= 4 else Struct("=Q").pack(files)
    rules = _must(libc.syscall(_CREATE_RULESET, held, len(held), 0))
    for device in _devices():
        with device.open("rb", buffering=0) as beneath:
            _must(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, _RULE.pack(_WRITE_FILE, beneath.fileno()), 0))
    _must(libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _devices() -> Iterable[Path]:
    return (path for pattern in _DEVICES for path in Path("/dev").glob(pattern) if not path.is_dir())


def _seccomp(libc: ctypes.CDLL) -> None:
    if platform.machine() not in _CALLS:
        return
    architecture, calls = _CALLS[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    program = [
        (load, 0, 0, 4),  # the architecture: another one's numbers mean other calls, and none of ours makes them
        (equal, 1, 0, architecture),
        (give, 0, 0, _REFUSE),
        (load, 0, 0, 0),
        *((equal, len(calls) - number, 0, call) for number, call in enumerate(calls)),
        (give, 0, 0, _ALLOW),
        (give, 0, 0, _REFUSE),
    ]
    steps = b"".join(_FILTER.pack(*step) for step in program)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    made = Program(len(program), steps)
    _must(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(made), 0, 0))


def _must(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "the kernel did not do it")
    return result
