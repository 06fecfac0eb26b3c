"""What a folder of blobs has to make durable.

Holds: `fsync`, and `remove`, which deletes many files with one fsync. Leaves out: which files these are (blobs), and
writing them (sinks).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from keepless.ids import Id

__all__ = ["fsync", "remove"]


def fsync(path: Path) -> None:
    """Make a file, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path, names: Sequence[Id]) -> list[Id]:
    """Remove files of a folder; those that are durably not in it any more, whether or not they were there."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return list(names)
    except OSError:
        return []
    try:
        gone = [name for name in names if _unlink(name, descriptor)]
        os.fsync(descriptor)
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return gone


def _unlink(name: Id, descriptor: int) -> bool:
    try:
        os.unlink(name, dir_fd=descriptor)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
