"""The database of a journal, on SQLAlchemy Core. It holds no rule: what is written is what the ledger decides.

All of it blocks: the open journal calls it in a thread of its own. SQLite and PostgreSQL differ here, and nowhere else.
"""

import operator
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs
import sqlalchemy as sql
from sqlalchemy import event as hooks
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from suno_persona.errors import ConfigurationError, JournalError
from suno_persona.journal._states import (
    PENDING,
    Bind,
    Binding,
    Claim,
    Decision,
    Event,
    Record,
    Refusal,
    State,
    bind,
    decide,
)

VERSION = 2
_LOCKED = 30  # seconds to wait for another process's transaction on an SQLite file
_ATTEMPTS = 20  # of a transaction that others interfere with
PAGE = 1000  # records
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_PACKAGES = {"postgresql+psycopg": "suno-persona[postgres]"}

_metadata = sql.MetaData()
_schema = sql.Table(
    "suno_persona_schema",
    _metadata,
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("salt", sql.String(32)),
    sql.Column("endpoint", sql.Text),
    sql.Column("fingerprint", sql.Text),
)
_requests = sql.Table(
    "suno_persona_requests",
    _metadata,
    sql.Column("key", sql.String(80), primary_key=True),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("claimed_at", sql.String(32), nullable=False),
    sql.Column("claimed_by", sql.String(300), nullable=False),
    sql.Column("holder", sql.String(32), nullable=False),
    sql.Column("settled_at", sql.String(32)),
    sql.Column("persona", sql.Text),
    sql.Column("persona_id", sql.Text),
    sql.Column("request_id", sql.Text),
    sql.Column("reason", sql.Text),
    sql.Column("index", sql.Integer),
)
_FROM_VERSION_1 = (
    "ALTER TABLE suno_persona_schema ADD COLUMN salt VARCHAR(32)",
    "ALTER TABLE suno_persona_schema ADD COLUMN endpoint TEXT",
    "ALTER TABLE suno_persona_schema ADD COLUMN fingerprint TEXT",
    "ALTER TABLE suno_persona_requests ADD COLUMN request_id TEXT",
    'ALTER TABLE suno_persona_requests RENAME COLUMN place TO "index"',
)
_COLUMNS = [field.name for field in attrs.fields(Record)]

_INSERTS = {
    "sqlite": sqlite.insert(_requests).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_requests).on_conflict_do_nothing(),
}
_LOCK = (
    sql.select(_requests)
    .where(_requests.c.key.in_(sql.bindparam("keys", expanding=True)))
    .order_by(_requests.c.key)
    .with_for_update()
)
_UPDATE = (
    sql.update(_requests)
    .where(_requests.c.key == sql.bindparam("its_key"))
    .values({name: sql.bindparam(name) for name in _COLUMNS if name not in ("key", "body")})
)

_T = TypeVar("_T")
Decisions: TypeAlias = Sequence[Decision]


class Storage:
    """An open database that holds a journal's tables. Every method blocks, and raises `JournalError`."""

    def __init__(self, url: sql.URL) -> None:
        self.name: str = shown(url)
        self._engine = _engine(url)
        self._bound: set[Bind] = set()  # what this process knows to be so
        self._insert = _Write(_INSERTS[self._engine.dialect.name], self._engine.dialect)
        self._update = _Write(_UPDATE, self._engine.dialect)

    def open(self, *, create: bool) -> None:
        """Connect, and `create` the tables where there are none."""
        if _is_sqlite(self._engine.url):
            self._open_file(str(self._engine.url.database), create=create)
        self._transaction(lambda connection: self._prepare(connection, create=create))

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    def commit(self, events: Sequence[Event], then: Callable[[Any, Decisions], None] | None = None) -> Decisions:
        """Let the ledger decide on events, and write what it decides, in one transaction. Returns its decisions.

        `then` is called within the transaction, with the driver's connection and the decisions.
        """

        def work(connection: sql.Connection) -> tuple[Decisions, dict[Bind, Refusal]]:
            refused = _bind(connection, wanted)
            decisions = _apply(connection, events, refused, self._insert, self._update)
            if then is not None:
                then(connection.connection.driver_connection, decisions)
            return decisions, refused

        wanted = {event.bind for event in events if isinstance(event, Claim) and event.bind} - self._bound
        decisions, refused = self._transaction(work)
        self._bound |= wanted - refused.keys()
        return decisions

    def begin(self, endpoint: str, fingerprint: Callable[[bytes], str], *, accept_new_key: bool) -> Bind:
        """Check that a run belongs to the journal's account. Returns what its claims bind the journal to."""
        schema = self._transaction(lambda connection: connection.execute(sql.select(_schema)).one(), write=False)
        wanted = Bind(Binding(endpoint, fingerprint(bytes.fromhex(schema.salt))), accept_new_key)
        if schema.endpoint is not None:
            refused = self._transaction(lambda connection: _bind(connection, {wanted}))
            if wanted in refused:
                raise JournalError(message=f"{self.name}: {refused[wanted].reason}")
            self._bound.add(wanted)
        return wanted

    def find(self, key: str) -> Record | None:
        """Return the record with this key."""
        query = sql.select(_requests).where(_requests.c.key == key)
        return self._transaction(lambda connection: _records(connection, query).get(key), write=False)

    def counts(self) -> dict[State, int]:
        """Count the requests in each state."""
        query = sql.select(_requests.c.state, sql.func.count()).group_by(_requests.c.state)
        return self._transaction(lambda connection: dict(connection.execute(query).all()), write=False)

    def pending(self) -> int:
        """Count the requests that were enqueued and are not settled."""
        query = sql.select(sql.func.count()).where(_requests.c.state.in_(PENDING), _requests.c.index.is_not(None))
        return self._transaction(lambda connection: connection.execute(query).scalar_one(), write=False)

    def page(
        self, after: str, states: Sequence[State], *, prefix: str = "", settled_since: str | None = None
    ) -> list[Record]:
        """Return records in the order of their keys, from the first one `after` a key, in some states or in all.

        With `settled_since`, only those that were enqueued, and settled after this time.
        """
        query = sql.select(_requests).where(_requests.c.key > after).order_by(_requests.c.key).limit(PAGE)
        if prefix:
            query = query.where(_requests.c.key.startswith(prefix, autoescape=True))
        if states:
            query = query.where(_requests.c.state.in_(states))
        if settled_since is not None:
            query = query.where(_requests.c.index.is_not(None), _requests.c.settled_at > settled_since)
        return self._transaction(lambda connection: list(_records(connection, query).values()), write=False)

    def _transaction(self, work: Callable[[sql.Connection], _T], *, write: bool = True) -> _T:
        attempts = _ATTEMPTS
        while True:
            attempts -= 1
            try:
                with self._engine.begin() as connection:
                    if write and connection.dialect.name == "sqlite":
                        # Otherwise two processes read at once, and then one of them is refused to write.
                        connection.exec_driver_sql("BEGIN IMMEDIATE")
                    return work(connection)
            except (SQLAlchemyError, OSError, UnicodeError) as error:
                if not attempts or not _comes_of_others(error):
                    raise self._failure(error) from error

    def _failure(self, error: BaseException) -> JournalError:
        words = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        return JournalError(message=f"{self.name}: the journal cannot be read or written: {words}")

    def _open_file(self, file: str, *, create: bool) -> None:
        """See that the file can be opened, and give it a write-ahead log, which it keeps."""
        if os.path.isdir(file):
            raise JournalError(message=f"{file}: the journal must be a file; got a folder")
        if not create and not os.path.exists(file):
            raise JournalError(message=f"{file}: the journal must exist; got no such file")
        deadline = time.monotonic() + _LOCKED
        while True:
            try:
                with self._engine.connect() as connection:
                    for pragma in ("busy_timeout=0", "journal_mode=WAL", f"busy_timeout={_LOCKED * 1000}"):
                        connection.exec_driver_sql(f"PRAGMA {pragma}")
            except SQLAlchemyError as error:
                # SQLite does not always wait here for another process that does the same.
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise self._failure(error) from error
                time.sleep(0.01)
            else:
                return

    def _prepare(self, connection: sql.Connection, *, create: bool) -> None:
        """Create the tables, or upgrade them, or see that they are known here."""
        tables = sql.inspect(connection).get_table_names()
        salt = secrets.token_hex(16)
        if _schema.name not in tables:
            if not create:
                raise JournalError(message=f"{self.name}: the journal must exist; got a database without one")
            if tables and connection.dialect.name == "sqlite":
                message = f"{self.name}: must be a journal or a new file; got a database with the table {tables[0]!r}"
                raise JournalError(message=message)
            _metadata.create_all(connection)
            connection.execute(sql.insert(_schema).values(version=VERSION, salt=salt))
            return
        version = connection.scalar(sql.select(_schema.c.version).with_for_update())
        if version == 1:
            for statement in _FROM_VERSION_1:
                connection.exec_driver_sql(statement)
            connection.execute(sql.update(_schema).values(version=VERSION, salt=salt))
        elif version != VERSION:
            hint = "use the suno_persona that wrote it, or a newer one"
            raise JournalError(
                message=f"{self.name}: the journal must have version 1 to {VERSION}; got {version}: {hint}"
            )


class _Write:
    """A statement that writes records, compiled once: SQLAlchemy's own way costs more than the database."""

    def __init__(self, statement: sql.Insert | sql.Update, dialect: sql.Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        names: list[str] = compiled.positiontup or []
        self._text = str(compiled)
        self._row = operator.attrgetter(*(name.removeprefix("its_") for name in names))

    def __call__(self, connection: sql.Connection, records: Iterable[Record]) -> int:
        """Write records. Returns how many were written."""
        rows = [self._row(record) for record in records]
        options = {"preserve_rowcount": True}
        return connection.exec_driver_sql(self._text, rows, execution_options=options).rowcount if rows else 0


def _apply(
    connection: sql.Connection, events: Sequence[Event], refused: dict[Bind, Refusal], insert: _Write, update: _Write
) -> Decisions:
    """Decide on events in their order, and write what they change.

    Records are inserted before others are locked, and both in the order of their keys, to avoid deadlocks.
    """

    def decision(record: Record | None, event: Event) -> Decision:
        if refused and isinstance(event, Claim) and event.bind in refused:
            return refused[event.bind]
        return decide(record, event)

    firsts = [decision(None, event) for event in events]
    new = {first.key: first for first in firsts if isinstance(first, Record)}
    are_all_new = insert(connection, [new[key] for key in sorted(new)]) == len(new)
    asked = {event.key for event in events}
    stored = _locked(connection, asked - new.keys() if are_all_new else asked)
    if not are_all_new:
        if lost := new.keys() - stored.keys():
            raise JournalError(message=f"the database did not keep the record of {min(lost)}")
        # A draft that is there as it was made is new: no other run has its holder.
        new = {key: draft for key, draft in new.items() if stored[key] == draft}
    records = {key: record for key, record in stored.items() if key not in new}
    decisions: list[Decision] = []
    for event, first in zip(events, firsts, strict=True):
        record = records.get(event.key)
        decisions.append(made := first if record is None else decision(record, event))
        if isinstance(made, Record):
            records[event.key] = made
    stored |= new
    update(connection, (record for key, record in records.items() if record is not stored[key]))
    return decisions


def _locked(connection: sql.Connection, keys: Collection[str]) -> dict[str, Record]:
    return _records(connection, _LOCK, {"keys": list(keys)}) if keys else {}


def _bind(connection: sql.Connection, wanted: Collection[Bind]) -> dict[Bind, Refusal]:
    """Bind the journal, unless it is bound to another account. Returns what is refused."""
    refused: dict[Bind, Refusal] = {}
    for one in wanted:
        schema = connection.execute(sql.select(_schema).with_for_update()).one()
        bound = None if schema.endpoint is None else Binding(schema.endpoint, schema.fingerprint)
        made = bind(bound, one)
        if isinstance(made, Refusal):
            refused[one] = made
        elif made != bound:
            connection.execute(sql.update(_schema).values(attrs.asdict(made)))
    return refused


def _records(connection: sql.Connection, query: "sql.Select[Any]", parameters: Any = None) -> dict[str, Record]:
    result = connection.execute(query, parameters)
    names = list(result.keys())
    records = [Record(**dict(zip(names, row, strict=True))) for row in result.all()]
    return {record.key: record for record in records}


def database_url(url: str | os.PathLike[str]) -> sql.URL:
    """Read the path of an SQLite file, or the URL of a database. Raises `ConfigurationError`."""
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


def postgresql_conninfo(url: str) -> str:
    """Return the same database for psycopg alone. Raises `ConfigurationError` where it is no PostgreSQL."""
    parsed = database_url(url)
    if parsed.get_backend_name() != "postgresql":
        message = f"journal must be the URL of a PostgreSQL database; got {shown(parsed)}"
        raise ConfigurationError(message=message)
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def shown(url: sql.URL) -> str:
    """Name a database in messages, without passwords."""
    if _is_sqlite(url):
        return str(url.database)
    secrets = {name: "***" for name in url.query if "pass" in name}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def _is_sqlite(url: sql.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: sql.URL) -> sql.Engine:
    is_sqlite = _is_sqlite(url)
    try:
        engine = sql.create_engine(
            url,
            paramstyle="qmark" if is_sqlite else "format",
            hide_parameters=True,
            pool_reset_on_return=None,  # every transaction here ends itself
            pool_pre_ping=not is_sqlite,  # a server may have been restarted since
            connect_args={"timeout": _LOCKED, "isolation_level": None} if is_sqlite else {},
        )
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(url.drivername, error.name)
        raise _refuse(f"one whose driver {error.name} is not installed: pip install '{package}'") from None
    except SQLAlchemyError as error:
        raise _refuse(f"{url.drivername}, of which SQLAlchemy says: {error}") from None
    if engine.dialect.name not in _INSERTS:
        raise _refuse(f"one of {engine.dialect.name}, whose INSERT knows no ON CONFLICT")
    if is_sqlite:
        hooks.listen(engine, "connect", _make_durable)
    return engine


def _make_durable(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut (SQLite's manual on WAL)


def _is_busy(error: SQLAlchemyError) -> bool:
    # The low byte of SQLite's extended codes is the code (SQLite's manual on result codes).
    return getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _comes_of_others(error: BaseException) -> bool:
    """Whether a transaction failed because of another one, so that nothing of it was committed and a retry helps."""
    # A serialization failure or a deadlock (PostgreSQL's manual, appendix A); or both create the tables.
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, IntegrityError) or state in ("40001", "40P01", "42P07")


def _refuse(found: str) -> ConfigurationError:
    hint = "the path of a file, or the URL of a database such as postgresql://host/name"
    return ConfigurationError(message=f"journal must be {hint}; got {found}")
