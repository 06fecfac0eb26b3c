"""What a confined process can still do: each attempt in one word, on standard output. Run as a program.

With `python` only the audit hook stands between an attempt and the kernel; with `kernel` it was left out, so that what
libraries do without Python is seen to be refused too.
"""

import ctypes
import errno
import mmap
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keepless.training import confined

FOLDER = Path(sys.argv[2])
LIBC = ctypes.CDLL(None, use_errno=True)


def raw_open(path: Path, flags: int) -> None:
    """As a library in C does it."""
    found = LIBC.open(os.fsencode(path), flags, 0o600)
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    written = LIBC.write(found, b"marker", 6)
    if written != 6:
        raise OSError(ctypes.get_errno(), "")


def memory_file() -> None:
    file = os.memfd_create("x")
    if os.write(file, b"marker") != 6:
        raise OSError(errno.EFBIG, "")


def mapped() -> None:
    file = os.memfd_create("x")
    os.ftruncate(file, 4096)
    mmap.mmap(file, 4096)[:6] = b"marker"


def called() -> None:
    found = LIBC.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    if found < 0:
        raise OSError(ctypes.get_errno(), "")


def executed() -> None:
    # By the kernel's own refusal it comes back; else this process is `true` and says nothing more.
    arguments = (ctypes.c_char_p * 2)(b"true", None)
    LIBC.execve(b"/bin/true", arguments, None)
    raise OSError(ctypes.get_errno(), "")


there = FOLDER / "there"
ATTEMPTS: dict[str, Callable[[], Any]] = {
    "new": lambda: (FOLDER / "new").write_text("marker"),
    "old": lambda: there.write_text("marker"),
    "append": lambda: there.open("a").close(),
    "raw new": lambda: raw_open(FOLDER / "raw", os.O_CREAT | os.O_WRONLY),
    "raw old": lambda: raw_open(there, os.O_WRONLY),
    "raw truncate": lambda: raw_open(there, os.O_RDWR | os.O_TRUNC),
    "shared memory": lambda: raw_open(Path("/dev/shm/keepless-confined"), os.O_CREAT | os.O_RDWR),
    "memory file": memory_file,
    "mapped": mapped,
    "temporary": tempfile.TemporaryFile,
    "database": lambda: sqlite3.connect(FOLDER / "db").execute("create table t (a)"),
    "folder": (FOLDER / "folder").mkdir,
    "rename": lambda: there.rename(FOLDER / "renamed"),
    "remove": there.unlink,
    "link": lambda: os.link(there, FOLDER / "link"),
    "symlink": lambda: os.symlink(there, FOLDER / "symlink"),
    "copy": lambda: shutil.copy(there, FOLDER / "copy"),
    "call": called,
    "connect": lambda: socket.create_connection(("127.0.0.1", 1)),
    "run": lambda: subprocess.run(["/bin/true"], check=True),
    "execute": executed,
}


def main() -> None:
    there.write_text("there")
    if sys.argv[1] == "kernel":
        sys.addaudithook = lambda hook: None
    confined.confine()
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
            said = "done"
        except confined.ConfinedError:
            said = "refused"
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, "failed")
        except sqlite3.Error:
            said = "failed"
        print(f"{name}: {said}", flush=True)
    print("read:", there.read_text(), flush=True)


main()
