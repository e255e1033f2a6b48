"""The journal's table and the transactions on it, on SQLAlchemy Core. It knows neither personas nor HTTP.

What is due together shares a transaction: while one is being committed, the next one gathers.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import attrs
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from suno_persona.database import Database, requests
from suno_persona.errors import JournalError

State: TypeAlias = Literal["claimed", "created", "not_created", "unknown"]

_MOST_AT_ONCE = 1000  # requests in a transaction


@attrs.frozen
class Row:
    """What the table holds of a request; times in UTC, as `now` writes them."""

    key: str
    body: str
    state: State
    claimed_at: str
    claimed_by: str
    settled_at: str | None = None
    persona: str | None = None
    persona_id: str | None = None
    reason: str | None = None
    holder: str = attrs.field(default="", repr=False)


@attrs.frozen
class Settled:
    """What became of a request."""

    state: State
    persona: str | None = None
    persona_id: str | None = None
    reason: str | None = None


@attrs.define(eq=False)
class _Claim:
    key: str
    body: str
    since: str
    resend_unknown: bool
    done: "asyncio.Future[Row | None]"


@attrs.define(eq=False)
class _Settlement:
    key: str
    settled: Settled
    done: "asyncio.Future[None]"


def now() -> str:
    """The time in UTC, as the table has it: later is greater."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Store:
    """An open journal."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._holder = uuid.uuid4().hex
        self._claimed_by = f"{socket.gethostname()}, process {os.getpid()}"
        self._due: list[_Claim | _Settlement] = []
        self._writer: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Finish what is due, and disconnect."""
        while self._writer is not None:
            await asyncio.wait([self._writer])
        await self._database.close()

    async def claim(self, key: str, body: str, *, since: str, resend_unknown: bool) -> Row | None:
        """Commit that a request is about to be sent; or give what is known of it, and it must not be sent.

        It may be sent where it is new, and where before the time `since` it was settled as not created. With
        `resend_unknown` also where it was claimed before and nobody knows what came of it.
        """
        claim = _Claim(key, body, since, resend_unknown, asyncio.get_running_loop().create_future())
        self._add(claim)
        try:
            return await claim.done
        except asyncio.CancelledError:
            if claim.done.done() and not claim.done.cancelled() and claim.done.result() is None:
                self._release(claim)  # it was committed at the same moment
            raise

    def settle(self, key: str, settled: Settled) -> "asyncio.Future[None]":
        """Commit what became of a claim; this happens also if nobody waits for it."""
        settlement = _Settlement(key, settled, asyncio.get_running_loop().create_future())
        settlement.done.add_done_callback(_look_at)
        self._add(settlement)
        return settlement.done

    async def resolve(self, key: str, settled: Settled) -> None:
        """Settle a request whose outcome is not known, whoever holds it."""
        async with self._database.transaction() as connection:
            row = (await _known(connection, [key])).get(key)
            if row is None:
                raise JournalError(
                    message=f"{self._database.name}: expected the key of a request, found {key!r}, which is none"
                )
            if row.state not in ("claimed", "unknown"):
                message = f"{self._database.name}: expected a request that needs a look, found it {row.state}"
                raise JournalError(message=message)
            values = {**attrs.asdict(settled), "settled_at": now(), "holder": self._holder}
            await connection.execute(sql.update(requests).where(requests.c.key == key).values(values))

    async def counts(self) -> dict[State, int]:
        """How many requests are in which state."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sql.select(requests.c.state, sql.func.count().label("number")).group_by(requests.c.state)
            )
            return {row.state: row.number for row in rows}

    async def rows(self, states: Sequence[State]) -> AsyncIterator[Row]:
        """Give the requests in these states, in the order of their keys; those in all states where none is named."""
        last = ""
        while True:
            page = sql.select(requests).where(requests.c.key > last).order_by(requests.c.key).limit(_MOST_AT_ONCE)
            async with self._database.transaction() as connection:
                found = await connection.execute(page.where(requests.c.state.in_(states)) if states else page)
                rows = [Row(*row) for row in found]
            for row in rows:
                yield row
            if len(rows) < _MOST_AT_ONCE:
                return
            last = rows[-1].key

    def _add(self, operation: _Claim | _Settlement) -> None:
        self._due.append(operation)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Commit what is due until nothing is."""
        try:
            while self._due:
                due, self._due = self._due[:_MOST_AT_ONCE], self._due[_MOST_AT_ONCE:]
                claims = [one for one in due if isinstance(one, _Claim) and not one.done.cancelled()]
                settlements = [one for one in due if isinstance(one, _Settlement)]
                try:
                    known = await self._commit(claims, settlements)
                except JournalError as error:
                    for one in due:
                        if not one.done.done():
                            one.done.set_exception(error)
                    continue
                for claim, row in zip(claims, known, strict=True):
                    if not claim.done.done():
                        claim.done.set_result(row)
                    elif row is None:
                        self._release(claim)  # its caller was cancelled meanwhile
                for settlement in settlements:
                    if not settlement.done.done():
                        settlement.done.set_result(None)
        finally:
            self._writer = None

    async def _commit(self, claims: list[_Claim], settlements: list[_Settlement]) -> list[Row | None]:
        """Write them in one transaction; gives what was known of each claim that is not granted."""
        # Another process may insert the same keys at the same moment. Each time, at least one more of ours is there.
        for _ in claims:
            try:
                return await self._try_to_commit(claims, settlements)
            except JournalError as error:
                if not isinstance(error.__cause__, IntegrityError):
                    raise
        return await self._try_to_commit(claims, settlements)

    async def _try_to_commit(self, claims: list[_Claim], settlements: list[_Settlement]) -> list[Row | None]:
        time = now()
        answers: list[Row | None] = []
        new: list[Row] = []
        again: list[Row] = []
        async with self._database.transaction() as connection:
            if settlements:
                await connection.execute(
                    sql.update(requests).where(
                        requests.c.key == sql.bindparam("its_key"), requests.c.holder == self._holder
                    ),
                    [
                        {"its_key": one.key, "settled_at": time, **attrs.asdict(one.settled)}
                        for one in sorted(settlements, key=_by_key)
                    ],
                )
            known = await _known(connection, [claim.key for claim in claims])
            for claim in claims:
                row = known.get(claim.key)
                granted = Row(claim.key, claim.body, "claimed", time, self._claimed_by, holder=self._holder)
                if row is None:
                    new.append(granted)
                elif _may_be_sent(row, claim):
                    again.append(granted)
                else:
                    answers.append(row)
                    continue
                answers.append(None)
                known[claim.key] = granted
            # In the order of the keys, so that processes wait for each other and never in a circle.
            if new:
                await connection.execute(sql.insert(requests), [attrs.asdict(row) for row in sorted(new, key=_by_key)])
            if again:
                await connection.execute(
                    sql.update(requests).where(requests.c.key == sql.bindparam("its_key")),
                    [{"its_key": row.key, **attrs.asdict(row)} for row in sorted(again, key=_by_key)],
                )
        return answers

    def _release(self, claim: _Claim) -> None:
        self.settle(claim.key, Settled("not_created", reason="cancelled before it was sent"))


async def _known(connection: AsyncConnection, keys: Sequence[str]) -> dict[str, Row]:
    """What the table holds under these keys; nobody else changes it until the transaction ends."""
    if not keys:
        return {}
    rows = await connection.execute(
        sql.select(requests).where(requests.c.key.in_(keys)).order_by(requests.c.key).with_for_update()
    )
    return {row.key: Row(*row) for row in rows}


def _may_be_sent(row: Row, claim: _Claim) -> bool:
    if row.state == "not_created":
        return row.settled_at is not None and row.settled_at <= claim.since
    return claim.resend_unknown and row.state != "created" and row.claimed_at <= claim.since


def _by_key(one: _Settlement | Row) -> str:
    return one.key


def _look_at(done: "asyncio.Future[None]") -> None:
    """Let an error that nobody waits for be no complaint of asyncio."""
    if not done.cancelled():
        done.exception()
