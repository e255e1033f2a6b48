"""Where a journal is: its URL, its engine, its tables and their versions. SQLite and PostgreSQL differ here alone."""

import importlib
import os
import re
import secrets
import socket
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import attrs
import sqlalchemy as sql
from sqlalchemy import event as hooks
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from suno_persona._error_body import one_line
from suno_persona.errors import ConfigurationError, JournalError
from suno_persona.journal._states import Record

VERSION = 2
LOCKED = 30  # seconds to wait for another process's transaction on an SQLite file
CONNECT = 10  # seconds to wait for a server to let us in, unless the URL has `connect_timeout`
TRANSACTION = 60  # seconds after which a transaction is broken off: the server is frozen, or others hold its locks
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_metadata = sql.MetaData()
schema = sql.Table(
    "suno_persona_schema",
    _metadata,
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("salt", sql.String(32)),
    sql.Column("endpoint", sql.Text),
    sql.Column("fingerprint", sql.Text),
)
_TYPES: dict[str, Any] = {"key": sql.String(80), "index": sql.Integer}
requests = sql.Table("suno_persona_requests", _metadata)
for _field in attrs.fields(Record):
    _type = _TYPES.get(_field.name, sql.Text)
    _is_key, _is_optional = _field.name == "key", _field.default is None
    requests.append_column(sql.Column(_field.name, _type, primary_key=_is_key, nullable=_is_optional))


def database_url(url: str | os.PathLike[str]) -> sql.URL:
    """Read the path of an SQLite file, or the URL of a database. Raises `ConfigurationError`."""
    text = os.fspath(url) if isinstance(url, str | os.PathLike) else None
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
    if parsed.get_backend_name() == "sqlite" and _is_transient(parsed):
        raise _invalid("an SQLite database in memory, which no later run can read")
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _is_transient(url: sql.URL) -> bool:
    """Return whether SQLite keeps the database in memory or in an unnamed file (its manual, on URI filenames)."""
    name, _, query = (url.database or "").partition("?")
    options = {**url.query, **dict(parse_qsl(query))}
    in_memory = options.get("mode") == "memory" or options.get("vfs") == "memdb"
    return in_memory or name.removeprefix("file:") in ("", ":memory:")


def postgresql_conninfo(url: str) -> str:
    """Return the same database for psycopg alone. Raises `ConfigurationError` where it is no PostgreSQL."""
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
    """Make the engine of a database. Raises `ConfigurationError` where there is none."""
    is_sqlite = url.get_backend_name() == "sqlite"
    # Behind a pooler such as pgbouncer, each transaction has another connection, on which nothing is prepared.
    options: dict[str, Any] = {"isolation_level": None} if is_sqlite else {"prepare_threshold": None}
    if not is_sqlite and "connect_timeout" not in url.query:
        options["connect_timeout"] = CONNECT
    try:
        engine = sql.create_engine(
            url,
            hide_parameters=True,
            paramstyle="qmark" if is_sqlite else "format",
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
    else:
        _check_options(url)
    return engine


def insert(dialect: sql.Dialect) -> Any:
    """Return the dialect's own INSERT of requests, which can have an ON CONFLICT clause."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect.name}").insert(requests)  # the other is not imported


def _check_options(url: sql.URL) -> None:
    from psycopg import ProgrammingError, conninfo

    try:
        conninfo.make_conninfo("", **dict.fromkeys(url.query, ""))
    except ProgrammingError as error:
        raise _invalid(f"a URL with an {error}") from None


def option_error(error: BaseException) -> ConfigurationError | None:
    """Return what to raise where the driver takes no option of the URL with such a value."""
    cause = getattr(error, "orig", error)
    words = str(cause)
    is_ours = getattr(cause, "sqlstate", "") is None and re.search(r"bad value for|invalid \w+ value", words)
    return _invalid(f"a URL with an option that the driver rejects: {one_line(words)}") if is_ours else None


def clock(connection: sql.Connection) -> datetime:
    """Return the time by the database's clock; an SQLite file has that of its machine."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    time: datetime = connection.execute(sql.select(sql.func.clock_timestamp())).scalar_one()
    return time.astimezone(UTC)


def break_off(connection: Any) -> None:
    """End what a connection waits for, from another thread, however long that would take."""
    if isinstance(connection, sqlite3.Connection):
        connection.interrupt()
    else:
        with suppress(Exception), socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            same.shutdown(socket.SHUT_RDWR)


def _configure(connection: DBAPIConnection, _: object) -> None:
    # SQLite does not always wait for another process that turns on the write-ahead log too, and so it never should.
    # `synchronous` lets a commit survive a power cut (SQLite's manual on WAL).
    try:
        for pragma in ("busy_timeout=0", "journal_mode=WAL", "synchronous=FULL", f"busy_timeout={LOCKED * 1000}"):
            connection.cursor().execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise


def check_file(file: str, *, create: bool) -> None:
    """Say what is wrong with the path of an SQLite file, where SQLite itself would not say it clearly."""
    if os.path.isdir(file):
        raise JournalError(message=f"{file}: the journal must be a file; got a folder")
    if not create and not os.path.exists(file):
        raise JournalError(message=f"{file}: the journal must exist; got no such file")


def comes_of_others(error: BaseException) -> bool:
    """Whether another transaction is the reason why one failed: nothing of it was committed."""
    # A serialization failure or a deadlock (PostgreSQL's manual, appendix A), or both create the tables. The low byte
    # of SQLite's extended codes is the code (SQLite's manual on result codes).
    cause = getattr(error, "orig", error)
    is_busy = getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    state = getattr(cause, "sqlstate", None)
    return is_busy or isinstance(error, IntegrityError) or state in ("40001", "40P01", "42P07", "42710")


def prepare(connection: sql.Connection, *, create: bool) -> None:
    """Create the tables, or see that they are known here."""
    name = shown(connection.engine.url)
    tables = sql.inspect(connection).get_table_names()
    if schema.name not in tables:
        if not create:
            raise JournalError(message=f"{name}: the journal must exist; got a database without one")
        if tables and connection.dialect.name == "sqlite":
            message = f"{name}: must be a journal or a new file; got a database with the table {tables[0]!r}"
            raise JournalError(message=message)
        _metadata.create_all(connection, checkfirst=False)
        connection.execute(sql.insert(schema).values(version=VERSION, salt=secrets.token_hex(16)))
    elif (version := connection.scalar(sql.select(schema.c.version))) != VERSION:
        hint = "use the suno_persona that wrote it"
        raise JournalError(message=f"{name}: the journal must have version {VERSION}; got {version}: {hint}")


def _invalid(found: str) -> ConfigurationError:
    hint = "the path of a file, or the URL of a database such as postgresql://host/name"
    return ConfigurationError(message=f"journal must be {hint}; got {found}")
