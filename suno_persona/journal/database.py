"""The database behind a journal: its address, its connections, its tables. It knows nothing of requests.

SQLite and every other database differ here, and nowhere else.
"""

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Self, TypeVar

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.engine.interfaces import ConnectArgsType, DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from suno_persona.errors import ConfigurationError, JournalError

VERSION = 1
_LOCKED = 30  # seconds to wait for another process's transaction on an SQLite file
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_PACKAGES = {"sqlite+aiosqlite": "suno-persona[journal]", "postgresql+psycopg": "suno-persona[postgres]"}

_metadata = sql.MetaData()
_schema = sql.Table("suno_persona_schema", _metadata, sql.Column("version", sql.Integer, nullable=False))
requests: sql.Table = sql.Table(
    "suno_persona_requests",
    _metadata,
    sql.Column("key", sql.String(80), primary_key=True),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("claimed_at", sql.String(32), nullable=False),
    sql.Column("claimed_by", sql.String(300), nullable=False),
    sql.Column("settled_at", sql.String(32)),
    sql.Column("persona", sql.Text),
    sql.Column("persona_id", sql.Text),
    sql.Column("reason", sql.Text),
    sql.Column("holder", sql.String(32), nullable=False),
    sql.Column("place", sql.Integer),
)


_T = TypeVar("_T")


class Database:
    """An open database that holds a journal's tables, or new ones."""

    def __init__(self, url: sql.URL) -> None:
        self.name: str = shown(url)
        self._engine = _engine(url)

    @classmethod
    async def open(cls, url: sql.URL, *, make: bool) -> Self:
        """Connect, and `make` the tables where there are none. Raises `JournalError`."""
        database = cls(url)
        try:
            if _is_sqlite(url):
                await database._open_file(url, make=make)
            await database._prepare(make=make)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Disconnect."""
        await self._engine.dispose()

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[_T]], *, attempts: int = 1) -> _T:
        """Do some work in a transaction and commit it. What the database says against it becomes a `JournalError`.

        It is finished also where its caller is cancelled meanwhile: cut off, it would keep its locks. Where another
        transaction came in between, it is done again, up to so many `attempts`.
        """
        while True:
            attempts -= 1
            try:
                return await self._until_finished(work)
            except JournalError as error:
                if attempts <= 0 or not _comes_of_others(error.__cause__):
                    raise

    async def _until_finished(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        task = asyncio.create_task(self._transaction(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    async def lock(self, connection: AsyncConnection) -> None:
        """Begin a transaction that reads first and writes then."""
        await connection.run_sync(_lock)

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        try:
            async with self._engine.begin() as connection:
                return await work(connection)
        except (SQLAlchemyError, OSError, UnicodeError) as error:
            raise self._failure(error.orig if isinstance(error, DBAPIError) else error) from error
        except _NotAJournalError as error:
            raise JournalError(message=f"{self.name}: {error}") from None

    def _failure(self, reason: BaseException | None) -> JournalError:
        words = " ".join(str(reason).split())
        return JournalError(message=f"{self.name}: the journal cannot be read or written: {words}")

    async def _open_file(self, url: sql.URL, *, make: bool) -> None:
        if not make and not os.path.exists(str(url.database)):  # noqa: ASYNC240 - as fast as opening it
            raise JournalError(message=f"{self.name}: expected a journal, found no such file")
        try:
            await asyncio.to_thread(_make_durable_file, self._engine.dialect.create_connect_args(url))
        except sqlite3.Error as error:
            raise self._failure(error) from error

    async def _prepare(self, *, make: bool) -> None:
        """Make the tables, or see that they are those that are known here."""
        try:
            await self.transaction(lambda connection: connection.run_sync(_make_tables, make))
        except JournalError as error:
            if not isinstance(error.__cause__, IntegrityError | ProgrammingError):
                raise
            # Another process made them at the same moment.
            await self.transaction(lambda connection: connection.run_sync(_make_tables, make))


class _NotAJournalError(Exception):
    """The database holds something else."""


def _lock(connection: sql.Connection) -> None:
    # SQLite would otherwise let two processes read at once, and then refuse one of them to write.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make_tables(connection: sql.Connection, make: bool) -> None:
    _lock(connection)
    tables = sql.inspect(connection).get_table_names()
    if _schema.name not in tables:
        if not make:
            raise _NotAJournalError("expected a journal, found a database without one")
        if tables and connection.dialect.name == "sqlite":
            raise _NotAJournalError(f"expected a journal or a new file, found a database with the table {tables[0]!r}")
        _metadata.create_all(connection)
        connection.execute(sql.insert(_schema).values(version=VERSION))
    elif (version := connection.scalar(sql.select(sql.func.max(_schema.c.version)))) != VERSION:
        raise _NotAJournalError(
            f"expected a journal of version {VERSION}, found version {version}: use the suno_persona that wrote it, "
            "or a newer one"
        )


def database_url(url: str | os.PathLike[str]) -> sql.URL:
    """The database of a journal, by the path of an SQLite file or by its URL. Raises `ConfigurationError`."""
    text = os.fspath(url) if isinstance(url, str | os.PathLike) else None
    if not isinstance(text, str):
        raise _refuse(f"a {type(url).__name__}")
    if re.match(r"\w{2,}:/(?!/)|(.*\s)?(host|dbname|user|password)=", text):
        raise _refuse("neither")  # not shown: it may hold a password
    if "://" not in text:
        parsed = sql.URL.create("sqlite", database=text)
    else:
        try:
            parsed = sql.make_url(text)
        except (SQLAlchemyError, ValueError):
            raise _refuse("a URL that cannot be read") from None  # not shown: it may hold a password
    if _is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        raise _refuse("an SQLite database in memory, which no later run can read")
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _comes_of_others(error: BaseException | None) -> bool:
    """Whether a transaction failed because of another one, so that it is worth another try."""
    # A serialization failure or a deadlock (PostgreSQL's manual, appendix A); nothing of it was committed.
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, IntegrityError) or state in ("40001", "40P01")


def postgresql_conninfo(url: str) -> str:
    """The same database for psycopg alone. Raises `ConfigurationError` where it is no PostgreSQL."""
    parsed = database_url(url)
    if parsed.get_backend_name() != "postgresql":
        message = f"journal: expected the URL of a PostgreSQL database, found {shown(parsed)}"
        raise ConfigurationError(message=message)
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def shown(url: sql.URL) -> str:
    """A database as errors name it: without passwords."""
    if _is_sqlite(url):
        return str(url.database)
    secrets = {name: "***" for name in url.query if "pass" in name}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def _is_sqlite(url: sql.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: sql.URL) -> AsyncEngine:
    is_sqlite = _is_sqlite(url)
    try:
        engine = create_async_engine(
            url,
            hide_parameters=True,
            pool_reset_on_return=None,  # every transaction here ends itself
            pool_pre_ping=not is_sqlite,  # a server may have been restarted since
            connect_args={"timeout": _LOCKED, "isolation_level": "IMMEDIATE"} if is_sqlite else {},
        )
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(url.drivername, error.name)
        raise _refuse(f"one whose driver {error.name} is not installed: pip install '{package}'") from None
    except SQLAlchemyError as error:
        raise _refuse(f"{url.drivername}, of which SQLAlchemy says: {error}") from None
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _make_durable)
    return engine


def _make_durable_file(arguments: ConnectArgsType) -> None:
    """See that the file can be opened, and give it a write-ahead log, which it keeps."""
    (file,), options = arguments
    options["timeout"] = 0
    deadline = time.monotonic() + _LOCKED
    while True:
        try:
            with closing(sqlite3.connect(file, **options)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # SQLite itself does not wait here for another process that does the same. The low byte of its extended
            # codes is the code (SQLite's manual on result codes).
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _make_durable(connection: DBAPIConnection, _: object) -> None:
    connection.cursor().execute("PRAGMA synchronous=FULL")  # a commit survives a power cut (SQLite's manual on WAL)


def _refuse(found: str) -> ConfigurationError:
    message = (
        f"journal: expected the path of a file, or the URL of a database such as postgresql://host/name, found {found}"
    )
    return ConfigurationError(message=message)
