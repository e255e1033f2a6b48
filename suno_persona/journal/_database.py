"""A journal's database: URL, engine, tables and version. SQLite and PostgreSQL differ only here."""

import operator
import os
import re
import secrets
import socket
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sql
from sqlalchemy import event as hooks
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from suno_persona.errors import ConfigurationError, JournalError
from suno_persona.journal._states import Record, Settle

VERSION = 2
LOCKED = 30  # seconds to wait for another process's transaction on an SQLite file
CONNECT = 10  # seconds to wait for a server to accept a connection, unless the URL has `connect_timeout`
TRANSACTION = 60  # seconds after which a transaction is broken off: the server is frozen, or others hold its locks
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_CHECKPOINT = 4 * 1024 * 1024  # bytes of write-ahead log after which it is moved into the main file
_IN_USE = 0x53554E4F  # "SUNO": the `user_version` of a main file of which the write-ahead log holds a part

_metadata = sql.MetaData()
schema = sql.Table(
    "suno_persona_schema",
    _metadata,
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("salt", sql.String(32), nullable=False),
    sql.Column("endpoint", sql.Text),
    sql.Column("fingerprint", sql.Text),
)
_TYPES: dict[str, Any] = {"key": sql.String(80), "index": sql.Integer}
requests = sql.Table("suno_persona_requests", _metadata)
for _field in msgspec.structs.fields(Record):
    _type = _TYPES.get(_field.name, sql.Text)
    _is_key, _is_optional = _field.name == "key", _field.default is None
    requests.append_column(sql.Column(_field.name, _type, primary_key=_is_key, nullable=_is_optional))
_NAMES = [*Record.__struct_fields__]
_OUTCOME = [*Settle.__struct_fields__[2:], "settled_at", "doubt"]
_COUNTED = {"preserve_rowcount": True}


def database_url(url: str | os.PathLike[str]) -> sql.URL:
    """Read the path of an SQLite file, or the URL of a database. Raises `ConfigurationError`."""
    text = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(text, str):
        raise _invalid(f"a {type(url).__name__}")
    if re.match(r"\w{2,}:/(?!/)|(.*\s)?(host|dbname|user|password)=", text):
        raise _invalid("neither")  # not shown: it may hold a password
    try:
        parsed = sql.make_url(text) if "://" in text else sql.URL.create("sqlite", database=text)
    except (SQLAlchemyError, ValueError):
        raise _invalid("a URL that cannot be read") from None  # nor here
    if parsed.get_backend_name() not in ("sqlite", *_DRIVERS):
        raise _invalid(f"one of {parsed.get_backend_name()}; SQLite and PostgreSQL are supported")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise _invalid("an SQLite database in memory, which no later run can read")
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def postgresql_conninfo(url: str) -> str:
    """Return the URL for psycopg without SQLAlchemy. Raises `ConfigurationError` for any other database."""
    parsed = database_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(message=f"journal must be the URL of a PostgreSQL database; got {shown(parsed)}")
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def shown(url: sql.URL) -> str:
    """Name a database in messages, without passwords."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    hidden = {name: "***" for name in url.query if "pass" in name}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def make_engine(url: sql.URL) -> sql.Engine:
    """Make the engine of a database. Raises `ConfigurationError` if its driver is missing or rejects the URL."""
    is_sqlite = url.get_backend_name() == "sqlite"
    # Behind a pooler such as pgbouncer, each transaction has another connection, on which nothing is prepared.
    options: dict[str, Any] = {"isolation_level": None} if is_sqlite else {"prepare_threshold": None}
    if not is_sqlite and "connect_timeout" not in url.query:
        options["connect_timeout"] = CONNECT
    try:
        engine = sql.create_engine(
            url,
            hide_parameters=True,
            pool_reset_on_return=None,  # every transaction here ends itself
            pool_pre_ping=not is_sqlite,  # a server may have been restarted since
            connect_args=options,
        )
    except ModuleNotFoundError as error:
        package = "suno-persona[postgres]" if url.drivername in _DRIVERS.values() else error.name
        raise _invalid(f"one whose driver {error.name} is not installed: pip install '{package}'") from None
    except SQLAlchemyError as error:
        raise _invalid(f"{url.drivername}, of which SQLAlchemy says: {error}") from None
    if is_sqlite:
        hooks.listen(engine, "connect", _configure)
    return engine


Write: TypeAlias = Callable[[sql.Connection, Sequence[Record]], int]
"""Writes records in one go, and returns how many it wrote."""


def writes(dialect: sql.Dialect) -> tuple[Write, Write, Write]:
    """Return how to insert new records, to settle those still as their holder claimed them, and to update any."""
    return _by_executemany(dialect) if dialect.name == "sqlite" else _as_json(dialect)


def _by_executemany(dialect: sql.Dialect) -> tuple[Write, Write, Write]:
    """SQLite: the driver's own call, as SQLAlchemy's way to it costs more than the database."""

    def write(statement: Any) -> Write:
        compiled = statement.compile(dialect=dialect)
        text, values = str(compiled), operator.attrgetter(*(name[1:] for name in compiled.positiontup))
        return lambda connection, records: (
            connection.exec_driver_sql(text, list(map(values, records)), execution_options=_COUNTED).rowcount
        )

    def insert(names: Iterable[str]) -> Write:
        return write(sqlite.insert(requests).values({name: new[name] for name in names}).on_conflict_do_nothing())

    def insert_new(connection: sql.Connection, records: Sequence[Record]) -> int:
        """Bind no NULLs for requests without an outcome, which nearly all are: each costs as much as a value."""
        groups: dict[Write, list[Record]] = {insert_open: [], insert_whole: []}
        for record in records:
            is_open = record.settled_at is None and record.doubt is None
            groups[insert_open if is_open else insert_whole].append(record)
        return sum(insert(connection, group) for insert, group in groups.items() if group)

    new: Any = {name: sql.bindparam(f"_{name}") for name in _NAMES}  # SQLAlchemy keeps the columns' names for itself
    insert_open, insert_whole = (
        insert(name for name in _NAMES if name not in _OUTCOME or name == "state"),
        insert(_NAMES),
    )
    update = sql.update(requests).where(requests.c.key == new["key"])
    settle = update.where(_is_as_claimed(new)).values({name: new[name] for name in _OUTCOME})
    return insert_new, write(settle), write(update.values(new))


def _as_json(dialect: sql.Dialect) -> tuple[Write, Write, Write]:
    """PostgreSQL: all records as one JSON parameter, as a parameter for each member costs five times as much."""

    def write(statement: Any) -> Write:
        text = str(statement.compile(dialect=dialect))

        def execute(connection: sql.Connection, records: Sequence[Record]) -> int:
            document = msgspec.json.encode(records).decode()
            return connection.exec_driver_sql(text, {"records": document}, execution_options=_COUNTED).rowcount

        return execute

    columns = [sql.column(column.name, column.type) for column in requests.c]
    rows = sql.func.json_to_recordset(sql.bindparam("records", type_=sql.JSON)).table_valued(*columns)
    insert = postgresql.insert(requests).from_select(_NAMES, sql.select(rows.render_derived(with_types=True)))
    new = insert.excluded
    outcome, everything = ({name: new[name] for name in names} for names in (_OUTCOME, _NAMES))
    # Unlike UPDATE, this locks the records in their order.
    settle = insert.on_conflict_do_update(index_elements=["key"], set_=outcome, where=_is_as_claimed(new))
    update = insert.on_conflict_do_update(index_elements=["key"], set_=everything)
    return write(insert.on_conflict_do_nothing()), write(settle), write(update)


def _is_as_claimed(new: Any) -> Any:
    own = requests.c  # nothing else of a claimed record changes
    is_unchanged = (own.holder == new["holder"]) & own.index.is_not_distinct_from(new["index"])
    return (own.state == sql.literal_column("'claimed'")) & is_unchanged


def begin_write(connection: sql.Connection) -> None:
    """Begin a transaction that writes, and whose commit survives a power cut."""
    if connection.dialect.name == "sqlite":
        # Otherwise two processes read at once, and then one of them cannot write.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        # In each transaction: the server's default may be less, and a pooler may change the connection between two.
        connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', true)"
            " WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
        )


def clock(connection: sql.Connection) -> datetime:
    """Return the time by the database's clock; an SQLite file has that of its machine."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    time: datetime = connection.execute(sql.select(sql.func.clock_timestamp())).scalar_one()
    return time.astimezone(UTC)


def break_off(connection: Any) -> None:
    """Interrupt a connection's statement from another thread."""
    if isinstance(connection, sqlite3.Connection):
        connection.interrupt()
    else:
        with suppress(Exception), socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            same.shutdown(socket.SHUT_RDWR)


def _configure(connection: DBAPIConnection, _: object) -> None:
    # SQLite does not always wait for another process that turns on the write-ahead log too, and so it never should.
    # `synchronous` lets a commit survive a power cut (SQLite's manual on WAL). See `SQLiteFile` for checkpoints.
    pragmas = ("busy_timeout=0", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0", _BUSY)
    try:
        for pragma in pragmas:
            connection.cursor().execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise


_BUSY = f"busy_timeout={LOCKED * 1000}"


class SQLiteFile:
    """The file of an open SQLite journal: marked as in use, and known again if it is replaced.

    Commits go to the write-ahead log. A checkpoint moves them to the main file, and the last connection to be closed
    deletes the log. So a copy of the main file alone is whole only after that. The mark shows it: each of our
    checkpoints writes it to the main file, and it is cleared in the log at once. Whoever moves all of the log to the
    main file, even SQLite's own command after a kill, moves the cleared mark there, too.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        (self._path,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
        if not _is_marked(self._path):
            self._mark(connection)
        self.clear(connection)  # a process may have been killed before it did
        self._identity, self._size = self._stat()
        self._limit = self._size + _CHECKPOINT

    def check(self) -> None:
        """Raise `JournalError` if the path names another file than the one that is open."""
        try:
            found, self._size = self._stat()
        except FileNotFoundError as error:
            raise JournalError(message=f"{error.filename}: the journal's file was deleted while it was open") from None
        if found != self._identity:
            raise JournalError(message=f"{self._path}: the journal's file was replaced while it was open")

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Move the write-ahead log into the main file if it has grown enough. Call it before a transaction."""
        if self._size > self._limit:
            self._mark(connection)
            self._limit = self._stat()[1] + _CHECKPOINT

    def clear(self, connection: sqlite3.Connection) -> None:
        """Clear the mark, in the write-ahead log, if it is still there."""
        if connection.execute("PRAGMA user_version").fetchone() != (0,):
            connection.execute("PRAGMA user_version=0")

    def _stat(self) -> tuple[list[tuple[int, int]], int]:
        """Return the identity of the files, and the size of the write-ahead log."""
        main, log = os.stat(self._path), os.stat(f"{self._path}-wal")
        return [(main.st_dev, main.st_ino), (log.st_dev, log.st_ino)], log.st_size

    def _mark(self, connection: sqlite3.Connection) -> None:
        # Another process may clear the mark between the two, and a reader may keep the log from being moved.
        for _ in range(5):
            connection.execute(f"PRAGMA user_version={_IN_USE}")
            try:
                connection.execute("PRAGMA busy_timeout=1000")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.execute(f"PRAGMA {_BUSY}")
                self.clear(connection)
            if _is_marked(self._path):
                return


def _is_marked(path: str) -> bool:
    """Return whether the main file alone says that it is in use."""
    # `immutable` ignores the write-ahead log. Reading the file without SQLite would release SQLite's locks on it.
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?immutable=1", uri=True)) as alone,
    ):
        return bool(alone.execute("PRAGMA user_version").fetchone() == (_IN_USE,))
    return False


def check_file(url: sql.URL, *, create: bool) -> None:
    """Raise `JournalError` for the file of an SQLite journal that is missing or not whole."""
    file = str(url.database).partition("?")[0].removeprefix("file:") if "uri" in url.query else str(url.database)
    if os.path.isdir(file):
        raise JournalError(message=f"{file}: the journal must be a file; got a folder")
    if not os.path.exists(file):
        if create:
            return
        raise JournalError(message=f"{file}: the journal must exist; got no such file")
    # Another process may open or close it at this moment: then it is not marked before or after.
    if _is_marked(file) and not os.path.exists(f"{os.path.realpath(file)}-wal") and _is_marked(file):
        raise JournalError(
            message=f"{file}: the journal was copied or killed while in use, and {file}-wal, which holds a part of it, "
            "is missing: copy that file, too"
        )


def comes_of_others(error: BaseException) -> bool:
    """Return whether a transaction failed because of another one: nothing of it was committed."""
    # A serialization failure or a deadlock (PostgreSQL's manual, appendix A), or both create the tables. The low byte
    # of SQLite's extended codes is the code (SQLite's manual on result codes).
    cause = getattr(error, "orig", error)
    is_busy = getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    state = getattr(cause, "sqlstate", None)
    return is_busy or isinstance(error, IntegrityError) or state in ("40001", "40P01", "42P07", "42710")


def prepare(connection: sql.Connection, *, create: bool) -> None:
    """Create the tables, or check their version."""
    name = shown(connection.engine.url)
    tables = sql.inspect(connection).get_table_names()
    if schema.name not in tables:
        if not create:
            raise JournalError(message=f"{name}: the journal must exist; got a database without one")
        if tables and connection.dialect.name == "sqlite":
            raise JournalError(message=f"{name}: must be a journal or a new file; got one with the table {tables[0]!r}")
        _metadata.create_all(connection, checkfirst=False)
        connection.execute(sql.insert(schema).values(version=VERSION, salt=secrets.token_hex(16)))
    elif (version := connection.scalar(sql.select(schema.c.version))) != VERSION:
        raise JournalError(message=f"{name}: the journal must have version {VERSION}; got {version}")


def _invalid(found: str) -> ConfigurationError:
    hint = "the path of a file, or the URL of a database such as postgresql://host/name"
    return ConfigurationError(message=f"journal must be {hint}; got {found}")
