"""The transactions of a journal, on SQLAlchemy Core. They hold no rule: they write what the ledger decides.

All of it blocks: the open journal calls it in a thread of its own.
"""

import operator
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
import sqlalchemy as sql
from sqlalchemy import event as hooks
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from suno_persona.errors import JournalError
from suno_persona.journal import _database as database
from suno_persona.journal import _states as ledger
from suno_persona.journal._database import requests, schema
from suno_persona.journal._states import Binding, Claim, Decision, Event, Record, Refusal, State

if TYPE_CHECKING:
    from suno_persona._engine import Account

PAGE = 1000  # records
_MAX_KEYS = 500  # in a statement: SQLite before 3.32 has at most 999 parameters
_LOCK = (
    sql.select(requests)
    .where(requests.c.key.in_(sql.bindparam("keys", expanding=True)))
    .order_by(requests.c.key)
    .with_for_update()
)
_LATEST = (
    sql.select(sql.func.max(column)).scalar_subquery() for column in (requests.c.claimed_at, requests.c.settled_at)
)
_BEGIN = sql.select(schema, *_LATEST)

_T = TypeVar("_T")
Decisions: TypeAlias = list[Decision]


class Storage:
    """An open database that holds a journal's tables. Every method blocks, and raises `JournalError`."""

    def __init__(self, url: sql.URL) -> None:
        self.name: str = database.shown(url)
        self._engine = database.make_engine(url)
        self._insert, self._settle, self._update = database.writes(self._engine.dialect)
        self._claimed: dict[str, Record] = {}  # claimed here and not settled: very likely unchanged in the database
        self._file: database.SQLiteFile | None = None
        self._bound: set[Binding | None] = {None}  # known to be committed
        self._clock = datetime.max.replace(tzinfo=UTC)  # its time when `time.monotonic` was 0
        self._connection: Any = None  # the driver's; there is one, as there is one thread
        self._began: float | None = None  # when the current transaction did
        self._is_broken_off = False
        hooks.listen(self._engine, "connect", self._connected)

    def open(self, *, create: bool) -> None:
        """Connect, and `create` the tables if there are none."""
        is_sqlite = self._engine.dialect.name == "sqlite"
        if is_sqlite:
            database.check_file(self._engine.url, create=create)

        def work(connection: sql.Connection) -> None:
            database.prepare(connection, create=create)
            self._clock = database.clock(connection) - timedelta(seconds=time.monotonic())

        self._transaction(work)
        if is_sqlite:
            self._file = self._attempt(lambda: database.SQLiteFile(self._connection))

    def now(self) -> datetime:
        """Return the time in UTC, by the database's clock when this was opened: hosts' clocks differ, and jump."""
        return self._clock + timedelta(seconds=time.monotonic())

    def close(self) -> None:
        """Disconnect."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.clear(self._connection)
        self._engine.dispose()

    def begin(self, account: "Account", *, accept_new_key: bool) -> tuple[Binding, str]:
        """Return the binding of a run, and when it begins: after everything that is recorded, whatever clocks say.

        Raises `JournalError` if the journal belongs to another account.
        """
        row = self._transaction(lambda connection: connection.execute(_BEGIN).one(), write=False)
        binding = Binding(account.endpoint, account.fingerprint(bytes.fromhex(row.salt)))
        if row.endpoint is not None:  # otherwise its first claim binds it
            refused = self._transaction(lambda one: self._bind(one, {binding}, accept_new_key=accept_new_key))
            if refused:
                raise JournalError(message=f"{self.name}: {refused[binding].reason}")
        return binding, max(ledger.text(self.now()), *(time or "" for time in row[-2:]))

    def commit(self, events: Sequence[Event], then: Callable[[Any, Decisions], None] | None = None) -> Decisions:
        """Let the ledger decide on events, and write its decisions in one transaction. Returns them.

        `then` is called within the transaction, with the driver's connection and the decisions.
        """

        def work(connection: sql.Connection) -> Decisions:
            decisions = self._decide(connection, events)
            if then is not None:
                then(connection.connection.driver_connection, decisions)
            return decisions

        decisions = self._transaction(work)
        for event, decision in zip(events, decisions, strict=True):
            if ledger.is_granted(decision):
                self._claimed[event.key] = decision
            else:
                self._claimed.pop(event.key, None)
        return decisions

    def counts(self, *, enqueued: bool = False) -> dict[State, int]:
        """Count the records in each state: all of them, or those that were enqueued."""
        query = sql.select(requests.c.state, sql.func.count()).group_by(requests.c.state)
        if enqueued:
            query = query.where(requests.c.index.is_not(None))
        return self._transaction(lambda connection: {row[0]: row[1] for row in connection.execute(query)}, write=False)

    def page(
        self, after: str, states: Sequence[State], *, prefix: str = "", settled_since: str | None = None
    ) -> list[Record]:
        """Return the next records after this key, in the order of the keys."""
        query = sql.select(requests).where(requests.c.key > after).order_by(requests.c.key).limit(PAGE)
        if states:
            query = query.where(requests.c.state.in_(states))
        if prefix:
            query = query.where(requests.c.key.startswith(prefix, autoescape=True))
        if settled_since is not None:
            query = query.where(requests.c.index.is_not(None), requests.c.settled_at > settled_since)
        return self._transaction(lambda connection: list(_records(connection, query)), write=False)

    def break_off(self) -> float:
        """Break off a transaction that takes too long. Return the seconds until the next look. Does not block."""
        began = self._began
        left = database.TRANSACTION if began is None else began + database.TRANSACTION - time.monotonic()
        if left > 0:
            return left
        self._is_broken_off = True
        database.break_off(self._connection)
        return database.TRANSACTION

    def _connected(self, connection: DBAPIConnection, _: object) -> None:
        self._connection = connection

    def _transaction(self, work: Callable[[sql.Connection], _T], *, write: bool = True) -> _T:
        """Do work in a transaction."""

        def attempt() -> _T:
            if write and self._file is not None:
                self._file.checkpoint(self._connection)
            with self._engine.begin() as connection:
                if write:
                    database.begin_write(connection)
                result = work(connection)
                if write and self._file is not None:
                    self._file.check()
                return result

        return self._attempt(attempt)

    def _attempt(self, work: Callable[[], _T]) -> _T:
        """Do work, again if it failed because of another transaction: nothing of it was committed then."""
        began = self._began = time.monotonic()
        self._is_broken_off = False
        try:
            while True:
                try:
                    return work()
                except (SQLAlchemyError, sqlite3.Error, OSError, UnicodeError) as error:
                    if time.monotonic() > began + database.LOCKED or not database.comes_of_others(error):
                        raise self._failure(error) from error
                time.sleep(0.01)
        finally:
            self._began = None

    def _failure(self, error: BaseException) -> JournalError:
        words = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        if self._is_broken_off:
            words = f"it took longer than {database.TRANSACTION} s ({words})"
        return JournalError(message=f"{self.name}: the journal cannot be read or written: {words}")

    def _decide(self, connection: sql.Connection, events: Sequence[Event]) -> Decisions:
        """Decide on events in their order, and write the changes.

        The first decision is optimistic: claims of this process are unchanged, and everything else is new. If
        another process was faster, so that not all of that can be written, read the records, and decide again.
        """
        refused = self._bind(connection, {e.binding for e in events if isinstance(e, Claim)} - self._bound)
        now = self.now()
        expected = {event.key: self._claimed.get(event.key) for event in events}
        decisions, drafts = ledger.decide_all(expected, events, now, refused)
        new = [record for key, record in drafts.items() if expected[key] is None]
        outcomes = [record for key, record in drafts.items() if expected[key] is not None]
        if _written(self._insert, connection, new) + _written(self._settle, connection, outcomes) == len(expected):
            return decisions
        # Lock in key order, as everybody does, to avoid deadlocks.
        stored = {record.key: record for record in self._locked(connection, sorted(expected))}
        if lost := drafts.keys() - stored.keys():
            raise JournalError(message=f"{self.name}: the database did not keep the record of {min(lost)}")
        # A record that equals its draft was written just now: each run has a holder of its own.
        current = {key: expected[key] if record == drafts.get(key) else record for key, record in stored.items()}
        decisions, changes = ledger.decide_all(current, events, now, refused)
        _written(self._update, connection, [record for key, record in changes.items() if record != stored.get(key)])
        return decisions

    def _locked(self, connection: sql.Connection, keys: Sequence[str]) -> Iterator[Record]:
        for start in range(0, len(keys), _MAX_KEYS):
            yield from _records(connection, _LOCK, {"keys": keys[start : start + _MAX_KEYS]})

    def _bind(
        self, connection: sql.Connection, bindings: Iterable[Binding | None], *, accept_new_key: bool = False
    ) -> dict[Binding | None, Refusal]:
        """Bind the journal, unless it belongs to another account. Return the refusals."""
        refused: dict[Binding | None, Refusal] = {}
        for binding in filter(None, bindings):
            row = connection.execute(sql.select(schema).with_for_update()).one()
            bound = None if row.endpoint is None else Binding(row.endpoint, row.fingerprint)
            decision = ledger.bind(bound, binding, accept_new_key=accept_new_key)
            if isinstance(decision, Refusal):
                refused[binding] = decision
            elif decision == bound:
                self._bound.add(binding)
            else:
                connection.execute(sql.update(schema).values(attrs.asdict(decision)))
        return refused


def _written(write: database.Write, connection: sql.Connection, records: list[Record]) -> int:
    """Write in key order, as everybody does, to avoid deadlocks. Returns how many records were written."""
    return write(connection, sorted(records, key=operator.attrgetter("key"))) if records else 0


def _records(connection: sql.Connection, query: "sql.Select[Any]", parameters: Any = None) -> Iterator[Record]:
    return (Record(**row) for row in connection.execute(query, parameters).mappings())
