"""The transparency log in SQL: one append-only Merkle tree for the deployment (RFC 6962, C2SP tlog).

Holds: `Log`: appending within the caller's transaction, reading entries, proofs, checkpoints, erasing an entry's
text. Leaves out: the trees' arithmetic (merkle), signatures (checkpoint), what receipts look like (bundle), HTTP
(tiles, admin).

Append is the LAST step of the caller's transaction: it takes the lock on the head row and keeps it until commit, so
that entries are numbered in the order in which their causes were committed and nobody waits for a lock while
holding this one. Commit point: the caller's commit. A checkpoint is signed only over what is committed (it reads in
its own transaction).

Signing, under the head store's lock: read the last signed head -> read the tree in a transaction -> show that it
continues that head (DECISIONS 14) -> remember the new head, durably (commit point) -> sign. A signature never exists
for a head that is not remembered, so a database restored from a backup cannot make the log fork.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock
from keepless.db import Database, insert_many, insert_or_ignore
from keepless.ids import Id, Prefix, mint
from keepless.log import Event, emit
from keepless.receipts import merkle
from keepless.receipts.checkpoint import (
    HeadStore,
    LogForkError,
    Signer,
    TreeHead,
    VerifierKey,
    encode_base64,
    sign_note,
)
from keepless.receipts.statement import Entry, EntryKind, body_of, commitment, new_salts
from keepless.receipts.tables import log_entry, log_head, log_node

__all__ = ["Appended", "Log", "Logged", "Sought"]

_ENTRY_COLUMNS: Final = (
    *("idx", "salt", "body", "kind", "organization_id", "object_id", "receipt_id", "at"),
    *("project_id", "actor_id", "subject_id"),
)
_FEW: Final = 1_000
_MOST_PARTS: Final = 256
_NODE_COLUMNS: Final = ("level", "idx", "hash")


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands; `receipt_id` only for kinds that a receipt states."""

    index: int
    receipt_id: Id | None


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry as stored. `salt` and `body` are None once erased."""

    index: int
    kind: EntryKind
    at_ms: int
    organization_id: Id | None
    object_id: Id | None
    receipt_id: Id | None
    salt: bytes | None
    body: bytes | None
    project_id: Id | None = None
    actor_id: Id | None = None
    subject_id: Id | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What of an organization's entries is asked for; None does not narrow, nothing of a kind is no entry.

    `subjects`: what an entry is about, or the object that it names. Instants in Unix ms, `to_ms` exclusive.
    """

    kinds: frozenset[EntryKind] | None = None
    actors: frozenset[Id] | None = None
    projects: frozenset[Id] | None = None
    subjects: frozenset[Id] | None = None
    from_ms: int | None = None
    to_ms: int | None = None


class Log:
    """The log of one deployment. Thread-safe; every method blocks (database), so call it from a worker thread."""

    def __init__(self, db: Database, clock: Clock, signer: Signer, heads: HeadStore, origin: str) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._signer: Final = signer
        self._heads: Final = heads
        self.origin: Final = origin

    @property
    def key(self) -> VerifierKey:
        """The log's public key with its name, as `/log/key` and `log.vkey` give it."""
        return VerifierKey(self.origin, self._signer.public_key)

    def append(self, tx: Connection, entries: Sequence[Entry]) -> list[Appended]:
        """Append entries within `tx`, as its last step. Raises `StatementError` for what the log does not take."""
        if not entries:
            return []
        frontier, latest_ms, lag_ms = _locked_head(tx)
        rows: list[tuple[object, ...]] = []
        nodes: list[tuple[object, ...]] = []
        appended: list[Appended] = []
        for entry, salt in zip(entries, new_salts(len(entries)), strict=True):
            receipt_id = mint(Prefix.RECEIPT) if entry.has_receipt else None
            body, index = body_of(entry, receipt_id), frontier.size
            nodes += frontier.append(merkle.leaf_hash(commitment(salt, body)))
            ids = (_text(entry.organization_id), _text(entry.object_id), _text(receipt_id))
            found_by = (_text(entry.project_id), _text(entry.actor_id), _text(entry.subject_id))
            rows.append((index, salt, body, str(entry.kind), *ids, entry.at_ms, *found_by))
            appended.append(Appended(index, receipt_id))
            latest_ms = max(latest_ms, entry.at_ms)
            lag_ms = max(lag_ms, latest_ms - entry.at_ms)
        insert_many(tx, log_entry, _ENTRY_COLUMNS, rows)
        insert_many(tx, log_node, _NODE_COLUMNS, nodes)
        times = {"latest_at": latest_ms, "most_lag": lag_ms}
        tx.execute(log_head.update().values(size=frontier.size, frontier=frontier.to_bytes(), **times))
        return appended

    def erase(self, tx: Connection, indexes: Iterable[int]) -> None:
        """Erase the text and salt of entries; their leaves and every proof stay valid."""
        said = dict.fromkeys(("salt", "body", "project_id", "actor_id", "subject_id"))
        tx.execute(log_entry.update().where(log_entry.c.idx.in_(list(indexes))).values(**said))

    def size(self, tx: Connection) -> int:
        """The number of entries."""
        return tx.execute(sa.select(log_head.c.size)).scalar() or 0

    def entry(self, tx: Connection, index: int) -> Logged | None:
        """The entry at an index."""
        return _one(tx, log_entry.c.idx == index)

    def some(self, tx: Connection, indexes: Sequence[int]) -> list[Logged]:
        """The entries at some indexes."""
        return [_logged(row) for row in tx.execute(sa.select(log_entry).where(log_entry.c.idx.in_(list(indexes))))]

    def receipt(self, tx: Connection, receipt_id: Id, organization_id: Id | None = None) -> Logged | None:
        """The entry that a receipt states; of that organization only, when one is given."""
        found = _one(tx, log_entry.c.receipt_id == receipt_id)
        return found if found and organization_id in (None, found.organization_id) else None

    def entries(
        self,
        tx: Connection,
        *,
        organization_id: Id | None = None,
        kinds: Iterable[EntryKind] = (),
        object_id: Id | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Logged]:
        """Entries, newest first, below index `before`; at most `limit`."""
        query = sa.select(log_entry).order_by(log_entry.c.idx.desc()).limit(limit)
        chosen = set(kinds)
        if object_id is not None:
            # An object has few entries: what else is asked is put so that no other index can serve.
            query = query.where(log_entry.c.object_id == object_id)
            if organization_id is not None:
                query = query.where(sa.func.coalesce(log_entry.c.organization_id, "") == organization_id)
            if chosen:
                query = query.where(sa.func.coalesce(log_entry.c.kind, "").in_(sorted(chosen)))
                chosen = set()
        elif organization_id is not None:
            query = query.where(log_entry.c.organization_id == organization_id)
        if before is not None:
            query = query.where(log_entry.c.idx < before)
        if not chosen:
            return [_logged(row) for row in tx.execute(query)]
        # Each kind by itself, in the order of its own index: nothing is read of what is not asked for.
        rows = [row for kind in sorted(chosen) for row in tx.execute(query.where(log_entry.c.kind == kind))]
        return [_logged(row) for row in sorted(rows, key=lambda row: -row.idx)[:limit]]

    def sought(
        self,
        tx: Connection,
        organization_id: Id,
        asked: Sought,
        *,
        below: int | None = None,
        above: int | None = None,
        limit: int = 100,
    ) -> list[Logged]:
        """Entries of an organization, newest first: the nearest `limit` below an index, or else above one.

        A span of time is looked for where it can stand in the log, so its distance from now costs nothing.
        """
        upwards = above is not None and below is None
        column = log_entry.c
        own: list[sa.ColumnElement[bool]] = [column.organization_id == organization_id]
        few = None if asked.to_ms is None else _few_of(tx, organization_id, asked)
        own += _where_it_stands(tx, organization_id, asked) if few is None else [column.idx.in_(few)]
        if below is not None:
            own.append(column.idx < below)
        if above is not None:
            own.append(column.idx > above)
        found: dict[int, Any] = {}
        for part in _parts(asked):
            query = sa.select(log_entry).where(*own, *part)
            ordered = query.order_by(column.idx.asc() if upwards else column.idx.desc()).limit(limit)
            found |= {row.idx: row for row in tx.execute(ordered)}
        nearest = sorted(found, reverse=not upwards)[:limit]
        return [_logged(found[index]) for index in sorted(nearest, reverse=True)]

    def checkpoint(self) -> str:
        """Sign the present head. Raises `LogForkError` when it does not continue the last signed head."""
        return self.signed_head()[1]

    def signed_head(self) -> tuple[TreeHead, str]:
        """The present head with its checkpoint. Raises `LogForkError` as `checkpoint` does."""
        with self._heads.exclusive():
            last = self._heads.head()
            with self._db.read() as tx:
                frontier = _head(tx)
                head = TreeHead(self.origin, frontier.size, frontier.root())
                continues = last is None or (last[0] <= head.size and self._root(tx, last[0]) == last[1])
            if not continues:
                emit(Event.LOG_FORK_REFUSED, size=head.size, signed=last[0] if last else 0)
                raise LogForkError("the log does not continue what was signed before")
            if last != (head.size, head.root):
                self._heads.set_head(head.size, head.root)
            return head, sign_note(head, self._signer)

    def inclusion(self, tx: Connection, index: int, size: int) -> list[bytes]:
        """The audit path of an entry in the tree of `size` entries. Raises ValueError when it is not in it."""
        return merkle.inclusion_proof(index, size, _reader(tx))

    def inclusions(self, tx: Connection, indexes: Sequence[int], size: int) -> dict[int, list[bytes]]:
        """The audit paths of several entries, read at once. Raises ValueError when one is not in the tree."""
        wanted: set[merkle.Node] = set()

        def noted(nodes: Iterable[merkle.Node]) -> Mapping[merkle.Node, bytes]:
            asked = list(nodes)
            wanted.update(asked)
            return dict.fromkeys(asked, bytes(merkle.HASH_BYTES))

        for index in indexes:
            merkle.inclusion_proof(index, size, noted)
        known = _reader(tx)(wanted)
        return {index: merkle.inclusion_proof(index, size, lambda _: known) for index in indexes}

    def consistency(self, tx: Connection, old: int, new: int) -> list[bytes]:
        """The proof between two sizes. Raises ValueError unless 0 < old <= new."""
        return merkle.consistency_proof(old, new, _reader(tx))

    def proof(self, tx: Connection, index: int, head: TreeHead, checkpoint: str) -> str:
        """`c2sp.org/tlog-proof@v1` of one entry under a signed head."""
        path = self.inclusion(tx, index, head.size)
        lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(encode_base64(node) for node in path)]
        return "\n".join(lines) + "\n\n" + checkpoint

    def nodes(self, tx: Connection, level: int, first: int, count: int) -> list[bytes]:
        """Hashes of consecutive complete subtrees, as many of `count` as there are."""
        column = log_node.c
        query = sa.select(column.hash).where(column.level == level, column.idx.between(first, first + count - 1))
        return list(tx.execute(query.order_by(column.idx)).scalars())

    def _root(self, tx: Connection, size: int) -> bytes:
        return merkle.root(size, _reader(tx))


def _few_of(tx: Connection, organization_id: Id, asked: Sought) -> list[int] | None:
    """The entries of a span of time that has ended; None when they are many, and reading in order finds them sooner."""
    column = log_entry.c
    found = sa.select(column.idx).where(column.organization_id == organization_id, column.at < asked.to_ms)
    if asked.from_ms is not None:
        found = found.where(column.at >= asked.from_ms)
    few = list(tx.execute(found.order_by(column.at.desc()).limit(_FEW + 1)).scalars())
    return few if len(few) <= _FEW else None


def _where_it_stands(tx: Connection, organization_id: Id, asked: Sought) -> list[sa.ColumnElement[bool]]:
    """Bounds of the indexes at which the entries of a span can stand.

    No entry is further than `most_lag` before the latest one that stands before it. So nothing from `from_ms` on stands
    before an entry that is older than that by more, and nothing before `to_ms` after one that is younger by as much.
    """
    column, bounds = log_entry.c, list[sa.ColumnElement[bool]]()
    if asked.from_ms is None and asked.to_ms is None:
        return bounds
    lag_ms = tx.execute(sa.select(log_head.c.most_lag)).scalar() or 0
    own = sa.select(column.idx).where(column.organization_id == organization_id).limit(1)
    if asked.from_ms is not None:
        older = own.where(column.at < asked.from_ms - lag_ms).order_by(column.at.desc())
        if (found := tx.execute(older).scalar()) is not None:
            bounds.append(column.idx > found)
    if asked.to_ms is not None:
        younger = own.where(column.at >= asked.to_ms + lag_ms).order_by(column.at)
        if (found := tx.execute(younger).scalar()) is not None:
            bounds.append(column.idx < found)
    return bounds


def _parts(asked: Sought) -> list[list[sa.ColumnElement[bool]]]:
    """The conditions of one query for each value of what narrows most, so that an index gives each of them in order.

    What else is asked for is put so that no index can serve it: a database without statistics would take the wrong one.
    """
    column = log_entry.c
    narrowing: list[tuple[tuple[sa.Column[Any], ...], frozenset[Any] | None]] = [
        ((column.subject_id, column.object_id), asked.subjects),
        ((column.actor_id,), asked.actors),
        ((column.project_id,), asked.projects),
        ((column.kind,), asked.kinds),
    ]
    if asked.actors is not None and asked.projects is not None and asked.kinds is None:
        narrowing[3] = ((column.kind,), frozenset(EntryKind))  # their index has the kind before the place
    given = [(columns, sorted(values)) for columns, values in narrowing if values is not None]
    times: list[sa.ColumnElement[bool]] = []
    if asked.from_ms is not None:
        times.append(sa.func.coalesce(column.at, 0) >= asked.from_ms)
    if asked.to_ms is not None:
        times.append(sa.func.coalesce(column.at, 0) < asked.to_ms)
    if not given:
        return [times]
    if asked.subjects is None and math.prod(len(values) for _, values in given) <= _MOST_PARTS:
        # Of two that each fit many entries, together perhaps none, an index has both: nothing else is read.
        names = [columns[0] for columns, _ in given]
        together = itertools.product(*(values for _, values in given))
        return [[*(name == value for name, value in zip(names, one, strict=True)), *times] for one in together]
    (columns, values), *others = given
    rest = [sa.or_(*(sa.func.coalesce(one, "").in_(inner) for one in those)) for those, inner in others]
    if len(values) > _MOST_PARTS:
        return [[one.in_(values), *rest, *times] for one in columns]
    return [[one == value, *rest, *times] for one in columns for value in values]


def _text(value: Id | None) -> str | None:
    return None if value is None else str(value)


def _head(tx: Connection) -> merkle.Frontier:
    row = tx.execute(sa.select(log_head.c.size, log_head.c.frontier)).one_or_none()
    return merkle.Frontier() if row is None else merkle.Frontier(row.size, bytes(row.frontier))


def _locked_head(tx: Connection) -> tuple[merkle.Frontier, int, int]:
    """The head with its `latest_at` and `most_lag`, its row locked until the caller's transaction ends.

    SQLite's write transaction is the lock.
    """
    query = sa.select(log_head).with_for_update()
    row = tx.execute(query).one_or_none()
    if row is None:
        # The first entry ever: of two transactions that come here together, the second waits for the first's row.
        insert_or_ignore(tx, log_head, id=1, size=0, frontier=b"", latest_at=0, most_lag=0)
        row = tx.execute(query).one()
    return merkle.Frontier(row.size, bytes(row.frontier)), row.latest_at, row.most_lag


def _reader(tx: Connection) -> merkle.Reader:
    def read(nodes: Iterable[merkle.Node]) -> Mapping[merkle.Node, bytes]:
        wanted = list(nodes)
        if not wanted:
            return {}
        column = log_node.c
        by_level = [
            sa.and_(column.level == level, column.idx.in_([index for at, index in wanted if at == level]))
            for level in sorted({level for level, _ in wanted})
        ]
        query = sa.select(column.level, column.idx, column.hash).where(sa.or_(*by_level))
        return {(row.level, row.idx): bytes(row.hash) for row in tx.execute(query)}

    return read


def _one(tx: Connection, condition: sa.ColumnElement[bool]) -> Logged | None:
    row = tx.execute(sa.select(log_entry).where(condition)).one_or_none()
    return None if row is None else _logged(row)


def _logged(row: Any) -> Logged:
    salt = None if row.salt is None else bytes(row.salt)
    body = None if row.body is None else bytes(row.body)
    whose = (row.organization_id, row.object_id, row.receipt_id)
    return Logged(row.idx, row.kind, row.at, *whose, salt, body, row.project_id, row.actor_id, row.subject_id)
