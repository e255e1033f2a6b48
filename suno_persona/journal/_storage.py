"""The transactions of a journal, on SQLAlchemy Core. They hold no rule: what is written is what the ledger decides.

All of it blocks: the open journal calls it in a thread of its own.
"""

import operator
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, TypeAlias, TypeVar

import attrs
import sqlalchemy as sql
from sqlalchemy import event as hooks
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from suno_persona.errors import JournalError, PersonaError
from suno_persona.journal import _database as database
from suno_persona.journal import _states as ledger
from suno_persona.journal._database import requests, schema
from suno_persona.journal._states import Account, Decision, Event, Record, Refusal, State

PAGE = 1000  # records
_ROWS = 64  # in a statement: SQLite before 3.32 has at most 999 parameters
_LOCK = (
    sql.select(requests)
    .where(requests.c.key.in_(sql.bindparam("keys", expanding=True)))
    .order_by(requests.c.key)
    .with_for_update()
)
_CHANGING = [column.name for column in requests.c if column.name not in ("key", "body")]

_T = TypeVar("_T")
Decisions: TypeAlias = Sequence[ledger.Decision]


class Storage:
    """An open database that holds a journal's tables. Every method blocks, and raises `JournalError`."""

    def __init__(self, url: sql.URL) -> None:
        self.name: str = database.shown(url)
        self._engine = database.make_engine(url)
        self._bound: set[Account] = set()  # what is known to be committed
        dialect = self._engine.dialect
        insert = database.insert(dialect)
        changes = {name: insert.excluded[name] for name in _CHANGING}
        self._insert = _Write(insert.on_conflict_do_nothing(), dialect)
        self._upsert = _Write(insert.on_conflict_do_update(index_elements=["key"], set_=changes), dialect)
        mine, own = requests.c, insert.excluded
        as_claimed = (mine.state == sql.literal_column("'claimed'")) & (mine.holder == own.holder)
        as_claimed &= mine.index.is_not_distinct_from(own.index)  # nothing else of a claimed record changes
        self._update = _Write(
            insert.on_conflict_do_update(index_elements=["key"], set_=changes, where=as_claimed), dialect
        )
        self._claimed: dict[str, Record] = {}  # what was claimed here, and not settled: very likely still as it was
        self._clock = datetime.max.replace(tzinfo=UTC)  # what it showed when `time.monotonic` was 0
        self._connection: Any = None  # the driver's; there is one, as there is one thread
        self._began: float | None = None  # when the transaction that runs did
        self._is_broken_off = False
        hooks.listen(self._engine, "connect", self._connected)

    def open(self, *, create: bool) -> None:
        """Connect, and `create` the tables where there are none."""
        if self._engine.dialect.name == "sqlite":
            database.check_file(str(self._engine.url.database), create=create)

        def work(connection: sql.Connection) -> None:
            database.prepare(connection, create=create)
            self._clock = database.clock(connection) - timedelta(seconds=time.monotonic())

        self._transaction(work)

    def now(self) -> datetime:
        """Return the time in UTC, by the database's clock when this was opened: hosts' clocks differ, and jump."""
        return self._clock + timedelta(seconds=time.monotonic())

    def latest(self) -> str:
        """Return the latest time in any record; empty without records."""
        query = sql.select(sql.func.max(requests.c.claimed_at), sql.func.max(requests.c.settled_at))
        times = self._transaction(lambda connection: connection.execute(query).one(), write=False)
        return max(time or "" for time in times)

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    def begin(self, endpoint: str, fingerprint: Callable[[bytes], str], *, accept_new_key: bool) -> Account:
        """Return a run's account. Raises `JournalError` where the journal belongs to another one."""
        row = self._transaction(lambda connection: connection.execute(sql.select(schema)).all()[0], write=False)
        account = Account(endpoint, fingerprint(bytes.fromhex(row.salt)))
        if row.endpoint is not None:  # otherwise its first claim binds it
            refused = self._transaction(lambda one: self._bind(one, {account}, accept_new_key=accept_new_key))
            if account in refused:
                raise JournalError(message=f"{self.name}: {refused[account].reason}")
        return account

    def commit(self, events: Sequence[Event], then: Callable[[Any, Decisions], None] | None = None) -> Decisions:
        """Let the ledger decide on events, and write what it decides, in one transaction. Returns its decisions.

        `then` is called within the transaction, with the driver's connection and the decisions.
        """

        def work(connection: sql.Connection) -> Decisions:
            decisions = self._decide(connection, events)
            if then is not None:
                then(connection.connection.driver_connection, decisions)
            return decisions

        decisions = self._transaction(work)
        for event, decision in zip(events, decisions, strict=True):
            if isinstance(event, ledger.Settle):
                self._claimed.pop(event.key, None)
            elif isinstance(event, ledger.Claim) and isinstance(decision, Record) and ledger.is_granted(decision):
                self._claimed[event.key] = decision
        return decisions

    def counts(self, *, enqueued: bool) -> dict[State, int]:
        """Count the requests in each state: all of them, or those that were enqueued."""
        query = sql.select(requests.c.state, sql.func.count()).group_by(requests.c.state)
        if enqueued:
            query = query.where(requests.c.index.is_not(None))
        return self._transaction(lambda connection: dict(connection.execute(query).all()), write=False)

    def pending(self) -> int:
        """Count the requests that were enqueued and are not settled."""
        query = sql.select(sql.func.count()).where(requests.c.state.in_(ledger.PENDING), requests.c.index.is_not(None))
        return self._transaction(lambda connection: connection.execute(query).scalar_one(), write=False)

    def page(
        self, after: str, states: Sequence[State], *, prefix: str = "", settled_since: str | None = None
    ) -> list[Record]:
        """Return records in the order of their keys, from the first one `after` a key, in some states or in all.

        With `settled_since`, only those that were enqueued, and settled after this time.
        """
        query = sql.select(requests).where(requests.c.key > after).order_by(requests.c.key).limit(PAGE)
        if prefix:
            query = query.where(requests.c.key.startswith(prefix, autoescape=True))
        if states:
            query = query.where(requests.c.state.in_(states))
        if settled_since is not None:
            query = query.where(requests.c.index.is_not(None), requests.c.settled_at > settled_since)
        return self._transaction(lambda connection: list(_records(connection, query).values()), write=False)

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
        """Do work in a transaction, again where it failed because of another one: nothing of it was committed then."""
        began = self._began = time.monotonic()
        self._is_broken_off = False
        try:
            while True:
                try:
                    with self._engine.begin() as connection:
                        if write and connection.dialect.name == "sqlite":
                            # Otherwise two processes read at once, and then one of them cannot write.
                            connection.exec_driver_sql("BEGIN IMMEDIATE")
                        return work(connection)
                except (SQLAlchemyError, sqlite3.Error, OSError, UnicodeError) as error:
                    if time.monotonic() > began + database.LOCKED or not database.comes_of_others(error):
                        raise self._failure(error) from error
                time.sleep(0.01)
        finally:
            self._began = None

    def _failure(self, error: BaseException) -> PersonaError:
        if (refused := database.option_error(error)) is not None:
            return refused
        words = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        if self._is_broken_off:
            words = f"it took longer than {database.TRANSACTION} s ({words})"
        return JournalError(message=f"{self.name}: the journal cannot be read or written: {words}")

    def _decide(self, connection: sql.Connection, events: Sequence[Event]) -> Decisions:
        """Decide on events in their order, and write what they change.

        Optimistic: what is claimed or enqueued is most likely new, and what is settled is as it was claimed here.
        Decisions on that are written where it is so. Otherwise, records are locked and read first.
        """
        accounts = {event.account for event in events if isinstance(event, ledger.Claim) and event.account}
        refused = self._bind(connection, accounts - self._bound)
        times = list(islice(ledger.times(self.now()), len(events)))

        def decided(records: Mapping[str, Record]) -> tuple[dict[str, Record], Decisions]:
            """Return the records after all events, and the decision on each."""
            after, decisions = dict(records), list[Decision]()
            for event, at in zip(events, times, strict=True):
                made: Decision
                if refused and isinstance(event, ledger.Claim) and event.account in refused:
                    made = refused[event.account]
                else:
                    made = ledger.decide(after.get(event.key), event, at)
                decisions.append(made)
                if isinstance(made, Record):
                    after[event.key] = made
            return after, decisions

        keys = {event.key for event in events}
        settling = {event.key for event in events if isinstance(event, ledger.Settle)}
        expected = {key: self._claimed[key] for key in settling & self._claimed.keys()}
        drafts, decisions = decided(expected)
        new = [draft for key, draft in drafts.items() if key not in expected]
        changed = [drafts[key] for key, record in expected.items() if drafts[key] is not record]
        # Nothing is updated before the inserts have locked the rest of the keys, or a lock below might be a deadlock.
        are_new = self._insert(connection, new) == len(new) and len(new) + len(changed) == len(keys)
        if are_new and self._update(connection, changed) == len(changed):
            return decisions
        stored = _records(connection, _LOCK, {"keys": list(keys)})
        if lost := {draft.key for draft in new} - stored.keys():
            raise JournalError(message=f"{self.name}: the database did not keep the record of {min(lost)}")
        # A draft that is there was written now: no other run has its holder.
        before = {key: record for key, record in stored.items() if record != drafts.get(key)}
        before |= {key: expected[key] for key in stored.keys() & expected.keys() - before.keys()}
        after, decisions = decided(before)
        self._upsert(connection, [record for key, record in after.items() if record != stored.get(key)])
        return decisions

    def _bind(
        self, connection: sql.Connection, accounts: Collection[Account], *, accept_new_key: bool = False
    ) -> dict[Account, Refusal]:
        """Bind the journal, unless it belongs to another account. Return the refusals."""
        refused: dict[Account, Refusal] = {}
        for account in accounts:
            row = connection.execute(sql.select(schema).with_for_update()).all()[0]
            bound = None if row.endpoint is None else Account(row.endpoint, row.fingerprint)
            made = ledger.bind(bound, account, accept_new_key=accept_new_key)
            if isinstance(made, Refusal):
                refused[account] = made
            elif made == bound:
                self._bound.add(account)
            else:
                connection.execute(sql.update(schema).values(attrs.asdict(made)))
        return refused


class _Write:
    """A statement that writes many records, compiled once: SQLAlchemy's own way costs more than the database.

    A statement for each record would wait for Python's global lock each time, which takes longer than to write it.
    """

    def __init__(self, statement: sql.Insert, dialect: sql.Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self._head, self._row, self._tail = re.split(r"(?<= VALUES )(\([^()]*\))", str(compiled))
        self._values = operator.attrgetter(*(compiled.positiontup or ()))

    def __call__(self, connection: sql.Connection, records: Collection[Record]) -> int:
        """Write records in the order of their keys, as all do, to avoid deadlocks. Returns how many were written."""
        written = 0
        rows = sorted(map(self._values, records))  # the key comes first
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            text = f"{self._head}{', '.join([self._row] * len(part))}{self._tail}"
            options = {"preserve_rowcount": True}
            values = tuple(chain.from_iterable(part))
            written += connection.exec_driver_sql(text, values, execution_options=options).rowcount
        return written


def _records(connection: sql.Connection, query: "sql.Select[Any]", parameters: Any = None) -> dict[str, Record]:
    result = connection.execute(query, parameters)
    names = list(result.keys())
    records = [Record(**dict(zip(names, row, strict=True))) for row in result.all()]
    return {record.key: record for record in records}
