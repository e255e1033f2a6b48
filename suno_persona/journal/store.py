"""The journal's table: what it holds, on SQLAlchemy Core. It knows neither personas nor HTTP."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import attrs
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from suno_persona.errors import JournalError
from suno_persona.journal.database import Database, requests

State: TypeAlias = Literal["queued", "claimed", "created", "not_created", "unknown"]

MOST_AT_ONCE = 1000  # requests in a transaction

UPDATE: sql.Update = sql.update(requests).where(requests.c.key == sql.bindparam("its_key"))


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
    holder: str = ""
    place: int | None = None


@attrs.frozen
class Settled:
    """What became of a request."""

    state: State
    persona: str | None = None
    persona_id: str | None = None
    reason: str | None = None


def now() -> str:
    """The time in UTC, as the table has it: later is greater."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def here() -> str:
    """Name this process, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"


class Store:
    """What an open journal holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def close(self) -> None:
        """Disconnect."""
        await self._database.close()

    async def resolve(self, key: str, settled: Settled) -> None:
        """Settle a request whose outcome is not known, whoever holds it."""

        async def work(connection: AsyncConnection) -> None:
            await self._database.lock(connection)
            row = (await select(connection, [key], lock=True)).get(key)
            if row is None:
                message = f"{self._database.name}: expected the key of a request, found {key!r}, which is none"
                raise JournalError(message=message)
            if row.state not in ("queued", "claimed", "unknown"):
                message = f"{self._database.name}: expected a request that needs a look, found it {row.state}"
                raise JournalError(message=message)
            values = {"its_key": key, "settled_at": now(), "holder": "", **attrs.asdict(settled)}
            await connection.execute(UPDATE, values)

        await self._database.transaction(work)

    async def counts(self) -> dict[State, int]:
        """How many requests are in which state."""
        query = sql.select(requests.c.state, sql.func.count().label("number")).group_by(requests.c.state)
        rows = await self._database.transaction(lambda connection: connection.execute(query))
        return {row.state: row.number for row in rows}

    async def find(self, key: str) -> Row | None:
        """The request with this key."""
        return (await self._database.transaction(lambda connection: select(connection, [key]))).get(key)

    def rows(self, states: Sequence[State]) -> AsyncIterator[Row]:
        """Give the requests in these states, in the order of their keys; those in all states where none is named."""
        query = sql.select(requests)
        return self._pages(query.where(requests.c.state.in_(states)) if states else query)

    def settled(self, since: str) -> AsyncIterator[Row]:
        """Give the requests that were enqueued, and settled after this time."""
        ended = requests.c.state.in_(("created", "not_created", "unknown"))
        query = sql.select(requests).where(ended, requests.c.place.is_not(None), requests.c.settled_at > since)
        return self._pages(query)

    async def _pages(self, query: "sql.Select[Any]") -> AsyncIterator[Row]:
        query = query.order_by(requests.c.key).limit(MOST_AT_ONCE)
        page = query
        while True:
            found = await self._database.transaction(lambda connection: connection.execute(page))  # noqa: B023
            rows = [Row(*row) for row in found]
            for row in rows:
                yield row
            if len(rows) < MOST_AT_ONCE:
                return
            page = query.where(requests.c.key > rows[-1].key)

    async def waiting(self) -> int:
        """How many requests were enqueued and have no outcome yet."""
        waits = requests.c.state.in_(("queued", "claimed"))
        query = sql.select(sql.func.count()).where(waits, requests.c.place.is_not(None))
        return (await self._database.transaction(lambda connection: connection.execute(query))).scalar_one()

    async def enqueue(
        self,
        batch: Mapping[str, tuple[int, str]],
        defer: Callable[[object, Sequence[str]], Awaitable[int]],
        *,
        retry_not_created: bool,
    ) -> int:
        """Record places and bodies under their keys, and `defer` those without an outcome in the same transaction.

        `defer` is called with the database driver's connection and the keys, and gives how many jobs it made. With
        `retry_not_created` what was settled as not created is queued again.
        """

        async def work(connection: AsyncConnection) -> int:
            known = await select(connection, batch, lock=True)
            waiting = [row.key for row in known.values() if row.state in ("queued", "claimed")]
            refused = [row.key for row in known.values() if row.state == "not_created" and retry_not_created]
            new = [key for key in batch if key not in known]
            time = now()
            if new:
                by = {"state": "queued", "claimed_at": time, "claimed_by": here(), "holder": ""}
                rows = [{"key": key, "place": batch[key][0], "body": batch[key][1], **by} for key in new]
                await connection.execute(sql.insert(requests), rows)
            if unplaced := [key for key, row in known.items() if row.place is None]:
                await connection.execute(UPDATE, [{"its_key": key, "place": batch[key][0]} for key in unplaced])
            if refused:
                await connection.execute(UPDATE, [{"its_key": key, "state": "queued"} for key in refused])
            due = sorted([*new, *waiting, *refused], key=lambda key: batch[key][0])
            return await defer((await connection.get_raw_connection()).driver_connection, due)

        return await self._database.transaction(work, attempts=len(batch) + 1)


async def select(connection: AsyncConnection, keys: Collection[str], *, lock: bool = False) -> dict[str, Row]:
    """What the table holds under these keys; with `lock`, nobody else changes it until the transaction ends."""
    query = sql.select(requests).where(requests.c.key.in_(keys)).order_by(requests.c.key)
    return {row.key: Row(*row) for row in await connection.execute(query.with_for_update() if lock else query)}
