"""Everything on a machine that can hold a byte of a deployment, and the search of each.

Holds: `Searched` (what one search of one place came to), `Finding`, and one function a kind of place: folders (names,
contents, links, extended attributes), databases (every value of every row), processes (command line, environment, open
and mapped files), temporary folders, captured output. Leaves out: what a marker looks like (markers, search).

A report never says a name or a path in which a marker stands: it says that there is one. What could not be read is
counted, never passed over in silence.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from keepless.db import Database
from keepless.prover.search import Data, Hit, Search

__all__ = ["Finding", "Searched", "Unchanged", "database", "descendants", "folder", "output", "processes", "temporary"]

_PROC: Final = Path("/proc")
_LARGEST: Final = 4 * 1024**3  # of one file outside of the deployment: what is larger is counted as not read
_ROWS: Final = 1000
_WINDOW: Final = 64 * 1024 * 1024
_OVERLAP: Final = 256 * 1024  # a marker, or a compressed member, that lies across two windows
_MOMENT_S: Final = 2.0
_NAMELESS: Final = "(a name that holds a marker)"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One marker where none may be. `what`: the file, table or process in that place."""

    place: str
    what: str
    form: str
    marker: int


@dataclass(slots=True)
class Searched:
    """What was read in one place, and what was found. `unreadable`: things that could not be read."""

    place: str
    items: int = 0
    size: int = 0  # bytes
    unreadable: int = 0
    findings: set[Finding] = field(default_factory=set)

    def data(self, search: Search, what: str, data: Data) -> None:
        """Search some bytes."""
        self.items += 1
        self.size += len(data)
        self.found(search.within(data), what)

    def found(self, hits: Iterable[Hit], what: str) -> None:
        """Note what was found."""
        self.findings |= {Finding(self.place, what, hit.form, hit.marker) for hit in hits}

    def file(self, search: Search, path: Path, what: str, *, largest: int | None = None) -> None:
        """Search the contents of a file. What vanishes meanwhile holds nothing any more.

        It is read, not mapped: whoever maps a file that its owner cuts short is killed for it.
        """
        try:
            with path.open("rb") as opened:
                status = os.fstat(opened.fileno())
                if not stat.S_ISREG(status.st_mode) or (largest is not None and status.st_size > largest):
                    self.unreadable += 1
                    return
                before = b""
                while part := opened.read(_WINDOW):
                    self.found(search.within(before + part), what)
                    self.size += len(part)
                    before = part[-_OVERLAP:]
            self.items += 1
        except (FileNotFoundError, ProcessLookupError):
            return
        except OSError:
            self.unreadable += 1


def folder(search: Search, root: Path, place: str, *, without: Sequence[Path] = ()) -> Searched:
    """Every name, file, link and extended attribute below a folder."""
    searched = Searched(place)
    _walk(search, searched, root, root, set(without), changed_after=None)
    return searched


class Unchanged:
    """Files that were searched for the markers of this run and have not changed since: nothing of it is in them.

    An instant of change is as coarse as the kernel's clock, so what changed a moment ago is read again.
    """

    def __init__(self) -> None:
        self._files: Final[set[tuple[int, int, int, int]]] = set()

    def __contains__(self, status: os.stat_result) -> bool:
        return self._key(status) in self._files

    def add(self, status: os.stat_result) -> None:
        """Such a file was searched; `status` is from before that."""
        if status.st_ctime < time.time() - _MOMENT_S:
            self._files.add(self._key(status))

    @staticmethod
    def _key(status: os.stat_result) -> tuple[int, int, int, int]:
        return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def temporary(
    search: Search,
    roots: Iterable[Path],
    *,
    since: float,
    without: Sequence[Path] = (),
    unchanged: Unchanged | None = None,
) -> Searched:
    """What this user has written in the machine's temporary folders since an instant (Unix seconds).

    `unchanged`: what earlier searches of the same run have read, and need not read again.
    """
    searched = Searched("temporary folders")
    for root in dict.fromkeys(root.resolve() for root in roots if root.is_dir()):
        _walk(search, searched, root, root, set(without), changed_after=since, unchanged=unchanged)
    return searched


def _walk(
    search: Search,
    searched: Searched,
    root: Path,
    at: Path,
    without: set[Path],
    *,
    changed_after: float | None,
    unchanged: Unchanged | None = None,
) -> None:
    try:
        entries = sorted(os.scandir(at), key=lambda entry: entry.name)
    except OSError:
        searched.unreadable += changed_after is None
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        foreign = changed_after is not None and (
            status.st_uid != os.geteuid() or (stat.S_ISREG(status.st_mode) and status.st_ctime < changed_after)
        )
        if path in without or foreign:
            continue
        hits = search.within(os.fsencode(entry.name))
        what = _NAMELESS if hits else str(path.relative_to(root))
        searched.found(hits, what)
        for value in _attributes(path):
            searched.data(search, what, value)
        if stat.S_ISDIR(status.st_mode):
            _walk(search, searched, root, path, without, changed_after=changed_after, unchanged=unchanged)
        elif stat.S_ISLNK(status.st_mode):
            with contextlib.suppress(OSError):  # others' links come and go
                searched.data(search, what, os.fsencode(path.readlink()))
        elif stat.S_ISREG(status.st_mode) and (unchanged is None or status not in unchanged):
            before = len(searched.findings)
            searched.file(search, path, what, largest=None if changed_after is None else _LARGEST)
            if unchanged is not None and len(searched.findings) == before:
                unchanged.add(status)


def _attributes(path: Path) -> Iterator[bytes]:
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            yield name.encode()
            yield os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return  # this file system has none


def output(search: Search, streams: dict[str, bytes]) -> Searched:
    """What the processes wrote on standard output and standard error."""
    searched = Searched("log and standard output")
    for name, data in streams.items():
        searched.data(search, name, data)
    return searched


def database(
    search: Search,
    db: Database,
    place: str = "database rows",
    *,
    only: AbstractSet[str] | None = None,
    without: AbstractSet[str] = frozenset(),
) -> Searched:
    """Every value of every row of every table of every schema, whoever made it (also the engine of jobs).

    `only`: these schemas; `without`: all but these.
    """
    searched = Searched(place)
    try:
        with db.read() as tx:
            inspector = sa.inspect(tx)
            schemas = {name for name in inspector.get_schema_names() if not name.startswith(("pg_", "information_"))}
            schemas = (schemas if only is None else schemas & only) - without
            for schema in sorted(schemas):
                for name in sorted(inspector.get_table_names(schema)):
                    _table(search, searched, tx, sa.table(name, schema=schema))
    except sa.exc.SQLAlchemyError:
        searched.unreadable += 1
    return searched


def _table(search: Search, searched: Searched, tx: sa.Connection, table: sa.TableClause) -> None:
    name = table.name
    rows = tx.execution_options(yield_per=_ROWS).execute(sa.select(sa.text("*")).select_from(table))
    for part in rows.partitions():
        values = b"\n".join(_bytes(value) for row in part for value in row)
        searched.data(search, name, values)
        searched.items += len(part) - 1  # items are rows here


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b"%a" % (value,)


def descendants(root: int) -> list[int]:
    """A process and all that it started, directly or not, and that live."""
    parents: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(text.rpartition(b")")[2].split()[1])
    found = [root] if root in parents else []
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def processes(search: Search, pids: Iterable[int], *, since: float) -> Searched:
    """Command line, environment, and every file that a process has open or mapped and that changed since then.

    What several of them have open is read once, and said of the first.
    """
    searched, read = Searched("processes"), set[tuple[int, int]]()
    for number, pid in enumerate(pids):
        what = "server" if number == 0 else f"its process {number}"
        for name in ("cmdline", "environ"):
            searched.file(search, _PROC / str(pid) / name, f"{what}, {name}")
        try:
            opened = list((_PROC / str(pid) / "fd").iterdir())
            mapped = (_PROC / str(pid) / "maps").read_text("utf-8", "replace").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            searched.unreadable += 1
            continue
        for path in opened:
            if _changed(path, since, read):
                searched.file(search, path, f"{what}, open file")
        names = {line.split(maxsplit=5)[5] for line in mapped if line.count("/") and len(line.split(maxsplit=5)) == 6}
        for name in sorted(names):
            searched.found(search.within(os.fsencode(name)), f"{what}, name of a mapped file")
            if _changed(Path(name), since, read):
                searched.file(search, Path(name), f"{what}, mapped file")
    return searched


def _changed(path: Path, since: float, read: set[tuple[int, int]]) -> bool:
    """A file changed since then, or one without a name any more (a deleted file, memory with a descriptor); once."""
    try:
        status = path.stat()
    except OSError:
        return False
    key = status.st_dev, status.st_ino
    changed = stat.S_ISREG(status.st_mode) and (status.st_ctime >= since or status.st_nlink == 0)
    if not changed or key in read:
        return False
    read.add(key)
    return True
