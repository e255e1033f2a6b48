"""Claims and outcomes, committed to the journal's table: those that are due together share a transaction.

While one transaction is being committed, the next one gathers. It knows neither personas nor HTTP.
"""

import asyncio
from collections.abc import Sequence
from operator import attrgetter

import attrs
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from suno_persona.journal.database import Database, requests
from suno_persona.journal.store import MOST_AT_ONCE, UPDATE, Row, Settled, here, now, select

_INSERT = sql.insert(requests)
_INSERT_AT_ONCE = _INSERT.returning(requests.c.key)
_NOT_SETTLED = dict.fromkeys(("settled_at", "persona", "persona_id", "reason"))
_IS_FINAL = sql.bindparam("is_final", type_=sql.Boolean)
_SETTLE = UPDATE.where(
    requests.c.state != "created",
    sql.or_(
        sql.and_(requests.c.holder == sql.bindparam("its_holder"), requests.c.state == "claimed"),
        sql.and_(requests.c.holder == sql.bindparam("its_holder"), requests.c.state == "unknown", _IS_FINAL),
        sql.bindparam("is_created", type_=sql.Boolean),
    ),
)


@attrs.define(eq=False)
class _Claim:
    key: str
    body: str
    holder: str
    since: str
    retry_unknown: bool
    done: "asyncio.Future[Row | None]"


@attrs.define(eq=False)
class _Settlement:
    key: str
    holder: str
    settled: Settled
    done: "asyncio.Future[None]"


class Claims:
    """Writes what is claimed and settled to an open journal."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claimed_by = here()
        self._look = False
        self._due: list[_Claim | _Settlement] = []
        self._writer: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Finish what is due."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def claim(
        self,
        key: str,
        body: str,
        *,
        holder: str,
        since: str,
        retry_unknown: bool,
    ) -> Row | None:
        """Commit that a request is about to be sent; or give what is known of it, and it must not be sent.

        It may be sent where it is new or queued, and where before the time `since` it was settled as not created. With
        `retry_unknown` also where it was claimed before and nobody knows what came of it.
        """
        claim = _Claim(key, body, holder, since, retry_unknown, asyncio.get_running_loop().create_future())
        self._add(claim)
        try:
            return await asyncio.shield(claim.done)
        except asyncio.CancelledError:
            claim.done.add_done_callback(lambda _: self._release(claim))
            raise

    def settle(self, key: str, settled: Settled, *, holder: str) -> "asyncio.Future[None]":
        """Commit what became of a claim; this happens also if nobody waits for it. Do not cancel the future.

        Where another holder claimed the request since, only a persona is recorded; and nothing is written over one.
        What was given up as unknown is not queued again.
        """
        settlement = _Settlement(key, holder, settled, asyncio.get_running_loop().create_future())
        settlement.done.add_done_callback(_look_at)
        self._add(settlement)
        return settlement.done

    def _add(self, operation: _Claim | _Settlement) -> None:
        self._due.append(operation)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Commit what is due until nothing is."""
        try:
            while self._due:
                await self._until_no_more_come()
                due, self._due = self._due[:MOST_AT_ONCE], self._due[MOST_AT_ONCE:]
                claims: dict[str, _Claim] = {}
                settlements: list[_Settlement] = []
                for one in due:
                    if isinstance(one, _Settlement):
                        settlements.append(one)
                    elif one.key in claims:
                        self._due.append(one)  # the next transaction finds it claimed
                    else:
                        claims[one.key] = one
                await self._commit(claims, settlements)
        finally:
            self._writer = None

    async def _until_no_more_come(self) -> None:
        """Let the loop turn as long as each turn brings more: a commit costs the same for one as for many."""
        known = 0
        while len(self._due) > known:
            known = len(self._due)
            await asyncio.sleep(0)

    async def _commit(self, claims: dict[str, _Claim], settlements: list[_Settlement]) -> None:
        """Write them in one transaction, and tell those who wait."""
        try:
            known = await self._write_all(claims, settlements)
        except Exception as error:  # whatever it is, nobody must wait for ever
            for claim in claims.values():
                claim.done.set_exception(error)
            for settlement in settlements:
                settlement.done.set_exception(error)
            return
        for key, claim in claims.items():
            claim.done.set_result(known.get(key))
        for settlement in settlements:
            settlement.done.set_result(None)

    async def _write_all(self, claims: dict[str, _Claim], settlements: list[_Settlement]) -> dict[str, Row]:
        """Write them in one transaction. Gives what the table holds of the claims that are not granted."""
        # Most requests are new, and so they are looked up only where the table has some already. Another process may
        # insert some of them after that look, but each time there is one less that it can.
        look = self._look

        async def work(connection: AsyncConnection) -> dict[str, Row]:
            nonlocal look
            looks, look = look, True
            settling = sorted(settlements, key=attrgetter("key"))
            known = await self._claim(connection, claims, look=looks, also_locked=[one.key for one in settling])
            await self._settle(connection, settling)
            return known

        return await self._database.transaction(work, attempts=len(claims) + 2)

    async def _claim(
        self, connection: AsyncConnection, claims: dict[str, _Claim], *, look: bool, also_locked: Sequence[str]
    ) -> dict[str, Row]:
        # What others may hold is waited for in the order of the keys, new ones first, so that no circle forms.
        if look:
            await self._database.lock(connection)
        known = await select(connection, claims) if look else {}
        self._look = bool(known)
        time = now()

        def claimed(key: str) -> dict[str, str]:
            by = {"claimed_at": time, "claimed_by": self._claimed_by, "holder": claims[key].holder}
            return {"key": key, "body": claims[key].body, "state": "claimed", **by}

        if new := sorted(claims.keys() - known.keys()):
            # Where there is RETURNING, SQLAlchemy asks once for all rows, and not once for each.
            at_once = connection.dialect.insert_executemany_returning
            await connection.execute(_INSERT_AT_ONCE if at_once else _INSERT, [claimed(key) for key in new])
        if maybe := [key for key, row in known.items() if _may_be_sent(row, claims[key])]:
            locked = await select(connection, [*maybe, *also_locked], lock=True)
            granted = [key for key in maybe if _may_be_sent(locked[key], claims[key])]
            known = {key: row for key, row in (known | locked).items() if key in claims and key not in granted}
            if granted:  # pragma: no branch - another process is first only by chance
                await connection.execute(UPDATE, [{"its_key": key, **_NOT_SETTLED, **claimed(key)} for key in granted])
        return known

    async def _settle(self, connection: AsyncConnection, settlements: list[_Settlement]) -> None:
        time = now()
        values = [
            {
                "its_key": one.key,
                "its_holder": one.holder,
                "is_created": one.settled.state == "created",
                "is_final": one.settled.state != "queued",
                "settled_at": time,
                "state": one.settled.state,
                "persona": one.settled.persona,
                "persona_id": one.settled.persona_id,
                "reason": one.settled.reason,
            }
            for one in settlements
        ]
        if values:
            await connection.execute(_SETTLE, values)

    def _release(self, claim: _Claim) -> None:
        """Settle a claim whose caller was cancelled before it could send, if it was granted."""
        if claim.done.exception() is not None or claim.done.result() is not None:
            return
        settled = Settled("not_created", reason="cancelled before it was sent")
        self.settle(claim.key, settled, holder=claim.holder)


def _may_be_sent(row: Row, claim: _Claim) -> bool:
    if row.state == "queued":
        return True
    if row.state == "not_created":
        return row.settled_at is not None and row.settled_at <= claim.since
    return claim.retry_unknown and row.state != "created" and row.claimed_at <= claim.since


def _look_at(done: "asyncio.Future[None]") -> None:
    """Let an error that nobody waits for be no complaint of asyncio."""
    done.exception()
