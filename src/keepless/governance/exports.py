"""Everything of a feature as one ZIP, for an owner who takes it along before it is destroyed.

Holds: `Exports` and `Export`. Leaves out: HTTP (console), captured requests, which are read under an opening alone (the
vault serves none of them for this purpose).

Steps: 1. one transaction: log entry EXPORT_BEGUN. COMMIT POINT: nothing is read before it. 2. object by object, oldest
first, through the vault's reader: decrypted in parts of a few MiB and put into the archive as they come; nothing is
written anywhere and nothing is whole in memory. 3. one transaction: EXPORTED, how many objects were handed over and
whether that was all; it has a receipt. A crash between leaves an export that was begun, which the log says.

What was written after it began is not in it. What ended meanwhile is named in the archive's list as missing; an object
that ends while it is being read cuts the archive short, and so does a client that leaves.
"""

import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import sqlalchemy as sa

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission
from keepless.accounts.store import projects_of
from keepless.clock import Clock
from keepless.content import Purpose
from keepless.db import Database
from keepless.errors import Code, ErrorType, Problem
from keepless.expiry.due import mask_of
from keepless.governance.change import not_found, own_organization
from keepless.ids import Id, Prefix, mint, trusted
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import row_of
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError
from keepless.vault.reading import ObjectReader
from keepless.vault.tables import kept

__all__ = ["EXPORTED", "Export", "Exports"]

# What owners have of a feature; what only a running job needs (parts, journals, checkpoints) is nobody's to read.
EXPORTED: Final = (
    DataClass.BATCH_INPUT,
    DataClass.BATCH_OUTPUT,
    DataClass.BATCH_ERROR,
    DataClass.FINE_TUNING_DATASET,
    DataClass.MODEL_WEIGHTS,
)
_PAGE: Final = 200
_NAME_LETTERS: Final = 120
_FORBIDDEN: Final = frozenset('/\\:*?"<>|')


class _Line(msgspec.Struct, omit_defaults=True):
    """One object in the archive's list. Instants in Unix seconds; `path` None: it ended before its turn came."""

    id: str
    data_class: DataClass = msgspec.field(name="class")
    project_id: str
    created_at: int
    bytes: int | None = None
    ends_at: int | None = None
    path: str | None = None


class Exports:
    """Exports of one deployment. `begin` blocks."""

    def __init__(self, db: Database, clock: Clock, log: Log, vault: Vault) -> None:
        self.db: Final = db
        self.clock: Final = clock
        self.log: Final = log
        self.vault: Final = vault

    def begin(
        self, actor: AdminPrincipal, organization_id: Id, project_id: Id | None, features: Sequence[Feature]
    ) -> "Export":
        """Begin to hand over what exists of some features. Raises `Problem` 400, 403, 404."""
        if actor.organization_id != organization_id:
            raise not_found()
        if Permission.FILES_EXPORT not in ROLES[actor.role]:
            message = "Everything at once is handed to owners only."
            raise Problem(403, Code.INSUFFICIENT_PERMISSIONS, message, type=ErrorType.PERMISSION)
        classes = [name for name in EXPORTED if row_of(name).feature in features]
        if not classes:
            raise Problem(400, Code.INVALID_VALUE, "Of this feature there is nothing to hand over.", param="feature")
        export_id, now_ms = mint(Prefix.EXPORT), self.clock.now_ms()
        facts: dict[Fact, FactValue] = {Fact.EXPORT_ID: export_id, Fact.ACTOR: actor.id, Fact.CLASSES: mask_of(classes)}
        begun = Entry(EntryKind.EXPORT_BEGUN, now_ms, organization_id, project_id, facts=facts)
        with self.db.write() as tx:
            own_organization(tx, organization_id)
            if project_id is not None and project_id not in projects_of(tx, organization_id):
                raise not_found()
            self.log.append(tx, [begun])
        return Export(self, begun, classes)


class Export:
    """One archive that is being handed over: all of `parts`, or what the client stayed for; then `end`."""

    def __init__(self, of: Exports, begun: Entry, classes: Sequence[DataClass]) -> None:
        self._of: Final = of
        self._begun: Final = begun
        self._classes: Final = list(classes)
        self._lines: Final[list[_Line]] = []
        self._ended = False

    @property
    def id(self) -> Id:
        """What the log calls it."""
        return trusted(str(self._begun.facts[Fact.EXPORT_ID]))

    def parts(self) -> Iterator[bytes]:
        """The bytes of the archive, as they are made. Raises `NotKeptError`, `NotOpenedError`, `StoreFailedError`."""
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for line in self._listed():
                self._lines.append(line)
                reader = self._reader(line)
                if reader is None:
                    continue
                label = reader.label()
                name = "" if label is None else label.reveal(Purpose.EXPORT).decode("utf-8", "replace")
                path = f"{line.data_class.value}/{line.id}/{_safe(name)}"
                with archive.open(_info(path, line.created_at * 1000), "w", force_zip64=True) as member:
                    for part in reader.stream():
                        member.write(part.reveal(Purpose.EXPORT))
                        yield sink.taken()
                line.path, line.bytes, line.ends_at = path, reader.size, _seconds(reader.ends_at)
            archive.writestr(_info("objects.jsonl", self._begun.at_ms), b"".join(map(_encoded, self._lines)))
        yield sink.taken()

    def end(self, *, complete: bool) -> None:
        """Write into the log how far it came; once."""
        if self._ended:
            return
        self._ended = True
        handed = sum(1 for line in self._lines if line.path is not None)
        whole = complete and handed == len(self._lines)
        facts: dict[Fact, FactValue] = {**self._begun.facts, Fact.OBJECTS: handed, Fact.COMPLETE: whole}
        begun = self._begun
        entry = Entry(EntryKind.EXPORTED, self._of.clock.now_ms(), begun.organization_id, begun.project_id, facts=facts)
        with self._of.db.write() as tx:
            self._of.log.append(tx, [entry])

    def _listed(self) -> Iterator[_Line]:
        """What there was when it began, oldest first; read by key, a page at a time."""
        c, begun = kept.c, self._begun
        own = [c.organization_id == begun.organization_id, c.data_class.in_(self._classes), c.created_at <= begun.at_ms]
        if begun.project_id is not None:
            own.append(c.project_id == begun.project_id)
        query = sa.select(c.id, c.data_class, c.project_id, c.created_at).where(*own)
        query = query.order_by(c.created_at, c.id).limit(_PAGE)
        last: tuple[int, str] | None = None
        while True:
            later = sa.true() if last is None else sa.tuple_(c.created_at, c.id) > sa.tuple_(*map(sa.literal, last))
            with self._of.db.read() as tx:
                rows = tx.execute(query.where(later)).all()
            for row in rows:
                yield _Line(row.id, row.data_class, row.project_id, row.created_at // 1000)
            if len(rows) < _PAGE:
                return
            last = (rows[-1].created_at, str(rows[-1].id))

    def _reader(self, line: _Line) -> ObjectReader | None:
        """None: it ended meanwhile, or is held and ended, which is served to nobody."""
        try:
            return self._of.vault.reader(trusted(line.id), trusted(str(self._begun.organization_id)), Purpose.EXPORT)
        except NotKeptError:
            return None


class _Sink:
    """Where the archive writes to; `taken` is what has come since the last time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Take some bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open here."""

    def taken(self) -> bytes:
        """What has come, and forget it."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found


def _info(path: str, at_ms: int) -> zipfile.ZipInfo:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    made = zipfile.ZipInfo(path, moment.timetuple()[:6])
    made.external_attr = 0o600 << 16
    return made


def _safe(name: str) -> str:
    """A customer's name as the name of a file in any system, below its own folder."""
    letters = "".join("_" if letter in _FORBIDDEN or not letter.isprintable() else letter for letter in name)
    return letters[:_NAME_LETTERS].strip(" .") or "content"


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def _encoded(line: _Line) -> bytes:
    return msgspec.json.encode(line, enc_hook=str) + b"\n"
