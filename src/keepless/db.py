"""The database: SQLAlchemy Core, synchronous, on SQLite or PostgreSQL 15.

One unit of work is one function in a worker thread.

Holds: `Database` (`read()` and `write()` transactions), the bounded column types, and `table`, which refuses to declare
a table that does not say what it holds or that has a column without a bound. Leaves out: the tables (each in its room).

SQLite: WAL, synchronous=FULL, secure_delete=ON, temp_store=MEMORY on every connection; `write()` is BEGIN IMMEDIATE, so
the check and the write of a transaction cannot be parted. PostgreSQL: READ COMMITTED; whoever compares an epoch takes
the organization's row FOR SHARE, whoever bumps it updates that row. Content never enters SQL: no bound column can
hold it, and statement parameters are hidden from errors.
"""

import contextlib
import importlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.types import TypeDecorator, TypeEngine

from keepless.errors import ConfigError
from keepless.ids import ID_LENGTH, Id

__all__ = [
    "Database",
    "EnumText",
    "Holds",
    "IdText",
    "Instant",
    "among",
    "bounded",
    "copy_or_ignore",
    "insert_many",
    "insert_or_ignore",
    "metadata",
    "partial_index",
    "table",
    "update_many",
]

metadata: Final = sa.MetaData()
Instant: Final = sa.BigInteger  # Unix milliseconds


class Holds(StrEnum):
    """What a table holds; its owner and its end follow from it."""

    ACCOUNT_DATA = "account_data"  # deleted with the account (DECISIONS 18)
    USAGE_METADATA = "usage_metadata"  # numbers, instants, enums, ids of ours (PRODUCT 1)
    CATALOGUE = "catalogue"  # metadata about what is kept; rows end with their object, tombstones stay
    TRANSPARENCY_LOG = "transparency_log"  # salted commitments; append-only
    CONTROL = "control"  # leases, counters, versions


class IdText(TypeDecorator[Id]):
    """An id of ours."""

    impl = sa.String(ID_LENGTH)
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Id | None]:
        """Read back as `Id`."""
        return _id_or_none


def _id_or_none(value: str | None) -> Id | None:
    return None if value is None else Id(value)


class _Members(dict[Any, StrEnum | None]):
    """The members of an enum by their texts. Raises ValueError for any other text."""

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__({member.value: member for member in kind})
        self[None] = None
        self._kind = kind

    def __missing__(self, text: str) -> StrEnum:
        return self._kind(text)  # raises


class EnumText(TypeDecorator[StrEnum]):
    """A member of one closed StrEnum, stored as its text (at most 40 characters)."""

    impl = sa.String(40)
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind
        self._members: Final = _Members(kind)

    def process_bind_param(self, value: StrEnum | str | None, dialect: sa.Dialect) -> str | None:
        """Refuse anything that is not a member."""
        return None if value is None else str(self._members[value])

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], StrEnum | None]:
        """Read back as the member."""
        return self._members.__getitem__


def bounded(type_: TypeEngine[Any]) -> bool:
    """Whether a column type has a bound (so that no prompt fits by accident): at most 1024 characters or bytes."""
    if isinstance(type_, TypeDecorator):
        return bounded(type_.impl_instance)
    if isinstance(type_, sa.String | sa.LargeBinary):
        return type_.length is not None and type_.length <= 1024
    return isinstance(type_, sa.Integer | sa.Boolean | sa.Float)


def table(name: str, *items: sa.schema.SchemaItem, holds: Holds, by_key: bool = False) -> sa.Table:
    """Declare a table. Raises TypeError for one that does not say what it holds or has an unbounded column.

    `by_key`: rows stand in the order of the primary key (SQLite: WITHOUT ROWID), for small ones that are read in spans.
    """
    if not isinstance(holds, Holds):
        raise TypeError(f"table {name} does not declare what it holds")
    for item in items:
        if isinstance(item, sa.Column) and not bounded(item.type):
            raise TypeError(f"column {name}.{item.name} has no bound")
    return sa.Table(name, metadata, *items, info={"holds": holds}, sqlite_with_rowid=not by_key)


def partial_index(name: str, *columns: str, where: sa.TextClause, unique: bool = False) -> sa.Index:
    """An index of the rows for which `where` is true."""
    return sa.Index(name, *columns, unique=unique, sqlite_where=where)


@event.listens_for(metadata, "before_create")
def _partial_on_postgresql(_target: object, connection: Connection, **_: object) -> None:
    """Said only to who creates tables there: an index that speaks to a dialect loads it (see `_upsert_of`)."""
    if connection.dialect.name != "postgresql":
        return
    for declared in metadata.tables.values():
        for index in declared.indexes:
            where = index.dialect_options["sqlite"]["where"]
            if where is not None:
                index.dialect_options["postgresql"]["where"] = where


_MOST_ROWS: Final = 256  # in one statement


def insert_many(tx: Connection, into: sa.Table, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Insert positional rows at the driver's own speed: VALUES on SQLite, COPY on PostgreSQL.

    Values go to the driver as they are (no type decorators, no defaults): plain str, int, bool, bytes or
    None only, for `columns` in the order in which the table declares them.
    """
    cursor: Any = tx.connection.cursor()
    driver: Any = tx.dialect.loaded_dbapi  # not imported here: ten megabytes that a deployment on SQLite does not need
    try:
        if tx.dialect.name == "sqlite":
            _insert_values(cursor, into, tuple(columns), rows)
        else:
            with cursor, cursor.copy(f"COPY {into.name} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
    except driver.Error as error:
        # The same family of errors as every other statement raises, and as silent about values.
        raise sa.exc.DBAPIError.instance(None, None, error, driver.Error, hide_parameters=True) from None


def _insert_values(cursor: Any, into: sa.Table, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
    # Many rows a statement: `executemany` gives up the interpreter lock once a row, and a busy event loop in the same
    # process gives it back milliseconds later. Only powers of two: the driver keeps the last hundred statements
    # compiled, and one for each number of rows there ever was would be a hundred megabytes. With the driver's own
    # cursor: SQLAlchemy's steps cost a quarter of the time of a statement of 64 rows.
    at, step = 0, _MOST_ROWS
    while at < len(rows):
        while step > len(rows) - at:
            step //= 2
        cursor.execute(_insert_of(into, columns, step), tuple(itertools.chain.from_iterable(rows[at : at + step])))
        at += step


@lru_cache(256)
def _insert_of(into: sa.Table, columns: tuple[str, ...], rows: int) -> str:
    """The text of an insert of that many rows; writing it anew cost a third of the ledger's time."""
    one = str(into.insert().compile(dialect=sqlite.dialect(), column_keys=columns))
    return one + f", ({', '.join('?' * len(columns))})" * (rows - 1)


def update_many(
    tx: Connection, table_: sa.Table, key: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Set columns of the rows that `key` names, many in one statement; a row is its key and what to set.

    Values go to the driver as they are, as in `insert_many`.
    """
    one = ["?"] * (1 + len(columns))
    if tx.dialect.name != "sqlite":
        one = [f"%s::{table_.c[name].type.compile(tx.dialect)}" for name in (key, *columns)]
    at, step = 0, _MOST_ROWS
    while at < len(rows):
        while step > len(rows) - at:
            step //= 2
        values = tuple(itertools.chain.from_iterable(rows[at : at + step]))
        tx.exec_driver_sql(_update_of(table_, (key, *columns), f"({', '.join(one)})", step), values)
        at += step


@lru_cache(64)
def _update_of(table_: sa.Table, columns: tuple[str, ...], one: str, rows: int) -> str:
    given = sa.table("given", *map(sa.column, columns))
    key, *others = columns
    update = table_.update().where(table_.c[key] == given.c[key]).values({name: given.c[name] for name in others})
    return f"WITH given ({', '.join(columns)}) AS (VALUES {', '.join([one] * rows)}) {update}"


def among(tx: Connection, column: sa.ColumnElement[Any], ids: Sequence[Id]) -> sa.ColumnElement[bool]:
    """Whether a column is one of some ids, bound as one value: a list of any length is the same short statement."""
    if tx.dialect.name == "sqlite":
        given = sa.func.json_each(sa.literal(json.dumps(ids), sa.String)).table_valued("value")
        return column.in_(sa.select(given.c.value))
    return column == sa.any_(sa.literal(list(map(str, ids)), sa.ARRAY(sa.String)))


def _upsert_of(dialect: str) -> Any:
    """The INSERT of a dialect, which can say what to do about a row that is there.

    By its name, as SQLAlchemy loads the URL's: PostgreSQL's is 2.5 MB that a server on SQLite has no use for.
    """
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert


def insert_or_ignore(tx: Connection, into: sa.Table, **values: Any) -> bool:
    """Insert one row unless there is one with the same key; True when it was inserted."""
    insert = _upsert_of(tx.dialect.name)
    return tx.execute(insert(into).values(**values).on_conflict_do_nothing()).rowcount == 1


def copy_or_ignore(tx: Connection, into: sa.Table, columns: Sequence[str], rows: sa.Select[Any]) -> None:
    """Insert what a query with a condition gives, but for rows whose key is there."""
    insert = _upsert_of(tx.dialect.name)
    tx.execute(insert(into).from_select(columns, rows).on_conflict_do_nothing())


def adding_up(
    into: sa.Table, key: Sequence[str], sums: Sequence[str], rows: sa.Select[Any], *, on_sqlite: bool
) -> sa.Insert:
    """A statement that adds rows (`key`, then `sums`) to those with the same key, or inserts them.

    `rows` has a condition (SQLite). Making the statement costs more than a few hundred rows: make it once.
    """
    statement = _upsert_of("sqlite" if on_sqlite else "postgresql")(into).from_select([*key, *sums], rows)
    added = {name: into.c[name] + statement.excluded[name] for name in sums}
    made: sa.Insert = statement.on_conflict_do_update(index_elements=[into.c[name] for name in key], set_=added)
    return made


_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "secure_delete=ON",
    "temp_store=MEMORY",
    "foreign_keys=ON",
    "busy_timeout=10000",
    "cache_size=-1000",  # a connection; the system has the file's pages, too
)


# A server that vanishes without a word is noticed within seconds; the system's defaults wait for a quarter of an hour.
_POSTGRES: Final = {
    "connect_timeout": 5,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}


class Database:
    """One database. Thread-safe; every method blocks, so call it from a worker thread, never from the event loop."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.sqlite: Final = url.startswith("sqlite")
        self._turn: Final = threading.Lock()  # SQLite has one writer at a time
        try:
            if self.sqlite:
                # Our own BEGIN: the driver's implicit transactions would start a write as a read (and fail to upgrade).
                # The connection used last goes first: each has a page cache of its own, which only grows.
                self._engine: Engine = sa.create_engine(
                    url, hide_parameters=True, pool_size=pool_size, pool_use_lifo=True
                )
                event.listen(self._engine, "connect", _on_sqlite_connect)
            else:
                self._engine = sa.create_engine(
                    url, hide_parameters=True, pool_size=pool_size, pool_pre_ping=True, connect_args=_POSTGRES
                )
        except (sa.exc.ArgumentError, ImportError):
            raise ConfigError("database_url: sqlite:///FILE or postgresql://USER@HOST/NAME") from None

    @property
    def engine(self) -> Engine:
        """For migrations and for tests that look underneath."""
        return self._engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent read; never blocks a writer on SQLite."""
        with self._engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("BEGIN")
                try:
                    yield connection
                finally:
                    connection.exec_driver_sql("ROLLBACK")
            else:
                with connection.begin():
                    yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write: committed when the block ends, rolled back when it raises."""
        if self.sqlite:
            # Threads of one process wait for each other here: SQLite itself would have them look again and again, with
            # longer and longer pauses, and whoever comes late may be served first.
            with self._turn, self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.exec_driver_sql("ROLLBACK")
                    raise
                connection.exec_driver_sql("COMMIT")
            return
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def create_all(self) -> None:
        """Create every declared table that does not exist (tests; production goes through migrations)."""
        metadata.create_all(self._engine)

    def checkpoint(self) -> bool:
        """SQLite: fold the WAL into the database and empty it, so that deleted bytes are gone. True when complete."""
        if not self.sqlite:
            return True
        with self._engine.connect() as connection:
            row = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        return bool(row[0] == 0)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `Database` alone
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    if connection.execute("PRAGMA secure_delete").fetchone()[0] != 1:
        raise ConfigError("this SQLite cannot do secure_delete; Keepless refuses to use it")
