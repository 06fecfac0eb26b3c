"""Writes proof files: one a receipt, the log's public key, the record of transfers. They hold ids, instants, enums,
hashes and what the operator has declared; no content.

One of the two files of the source tree outside the vault that may write files (a lint rule names them), because an
auditor needs them on their own disk. Each file is replaced as a whole; an interrupted export leaves complete files.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from keepless.cli.outcome import FindingError

__all__ = ["KEY_FILE", "Folder"]

KEY_FILE = "log.vkey"


class Folder:
    """Where the proofs go; made when it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise FindingError("the folder of --out cannot be made") from None

    def write(self, name: str, text: str) -> Path:
        """Write one file as a whole. Raises `FindingError` when the disk does not take it."""
        target = self._path / name
        part = target.with_name(f".{name}.part")
        try:
            part.write_text(text, "utf-8")
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise FindingError("a proof cannot be written into the folder of --out") from None
        return target

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write one file piece by piece; it is there when all of it is. Raises `FindingError` as `write` does."""
        target = self._path / name
        part = target.with_name(f".{name}.part")
        try:
            with part.open("wb") as file:
                yield file.write
            part.replace(target)
        except OSError:
            raise FindingError("a proof cannot be written into the folder of --out") from None
        finally:
            part.unlink(missing_ok=True)
