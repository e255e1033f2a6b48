"""The runs that claim and settle requests, and the group commit of their events.

Events that are due together share one transaction; while it is being committed, the next group gathers.
"""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import attrs

from suno_persona._engine import not_sent
from suno_persona._response import Ended, Failure
from suno_persona._shield import Cancellation, finish
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import JournalError
from suno_persona.journal import _states as ledger
from suno_persona.journal._states import Decision, Event, Record, Refusal
from suno_persona.journal._storage import Storage
from suno_persona.models import Persona

_log = logging.getLogger("suno_persona")
_P = ParamSpec("_P")
_T = TypeVar("_T")

MAX_GROUP = 1000  # events in a transaction


def here() -> str:
    """Name this process, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"


@attrs.define(eq=False)
class _Due:
    """An event to be committed, and the decision on it."""

    event: Event
    _decision: asyncio.Future[Decision]

    @property
    def decision(self) -> "asyncio.Future[Decision]":
        """The decision; a new future once the caller was cancelled, which cancelled the one that it awaited."""
        if self._decision.cancelled():
            self._decision = asyncio.get_running_loop().create_future()
        return self._decision


class Writer:
    """Calls a storage in the one thread that owns it, and commits events in groups, in their order."""

    def __init__(self, storage: Storage) -> None:
        self.storage: Storage = storage
        self._thread = ThreadPoolExecutor(1, "suno-persona-journal")
        self._due: list[_Due] = []
        self._idle: asyncio.Future[None] | None = None
        """Done once nothing is due; `None` if nothing is."""

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> "asyncio.Future[_T]":
        """Call a function in the thread, after those that were called before. A transaction that hangs fails."""
        loop = asyncio.get_running_loop()
        future = asyncio.wrap_future(self._thread.submit(function, *args, **kwargs), loop=loop)
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            timer = loop.call_later(self.storage.break_off(), look)

        look()
        future.add_done_callback(lambda _: timer.cancel())
        return future

    async def commit(self, event: Event) -> tuple[Decision, Cancellation]:
        """Commit an event, and return the decision. Raises `JournalError`.

        Cancelling the caller neither undoes nor hides that: the cancellation is returned.
        """
        loop = asyncio.get_running_loop()
        due = _Due(event, loop.create_future())
        self._due.append(due)
        if self._idle is None:
            self._idle = loop.create_future()
            loop.call_soon(self._gather, 0)
        cancellation: Cancellation = None
        while True:
            try:
                return await due.decision, cancellation
            except asyncio.CancelledError as error:
                cancellation = error

    async def close(self) -> None:
        """Commit the events that are due, and close the storage."""
        try:
            while self._idle is not None:
                await finish(self._idle)
        finally:
            try:
                await finish(self.call(self.storage.close))
            finally:
                self._thread.shutdown(wait=False)

    # These are callbacks rather than a task: `asyncio.run` cancels all tasks, and events are committed all the same.

    def _gather(self, known: int) -> None:
        """Let the loop turn as long as each turn brings more: a commit costs the same for one as for many."""
        if len(self._due) > known:
            asyncio.get_running_loop().call_soon(self._gather, len(self._due))
            return
        group, self._due = self._due[:MAX_GROUP], self._due[MAX_GROUP:]
        committed = self.call(self.storage.commit, [due.event for due in group])
        committed.add_done_callback(partial(self._decide, group))

    def _decide(self, group: "list[_Due]", committed: "asyncio.Future[list[Decision]]") -> None:
        if (error := committed.exception()) is None:
            for due, decision in zip(group, committed.result(), strict=True):
                due.decision.set_result(decision)
        else:
            for due in group:
                due.decision.set_exception(error)
                due.decision.exception()  # or asyncio would complain if nobody awaits it
        if self._due:
            self._gather(0)
        elif self._idle is not None:
            self._idle.set_result(None)
            self._idle = None


class HeldError(Exception):
    """Another run, which may be at work, claimed the request of a job at this time."""


@attrs.frozen(kw_only=True, eq=False)
class Run:
    """One run over the requests of a batch, or one delivery of a job: it claims a request once, and settles it once."""

    writer: Writer
    terms: Mapping[str, Any]
    """Members that all its claims share: those of `Claim`."""

    holder: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    keys: ledger.Keys = attrs.field(factory=ledger.Keys)

    is_delivery: bool = False

    def delivery(self, stale_before: datetime) -> "Run":
        """Return a run for one delivery of a job, which takes nothing that another one did for its own."""
        terms = {**self.terms, "stale_before": ledger.text(stale_before)}
        return Run(writer=self.writer, terms=terms, is_delivery=True)

    def now(self) -> datetime:
        """Return the time by the journal's clock."""
        return self.writer.storage.now()

    def key(self, body: bytes) -> str:
        """Return the key of the next request, by its wire body."""
        return self.keys.next(body)

    async def claim(self, key: str, body: bytes) -> Ended | None:
        """Commit that a request is about to be sent. Returns how its call ended if it must not be sent.

        It is recorded, or the caller was cancelled meanwhile, which does not undo the claim. Raises `JournalError` if
        nothing could be committed, and `HeldError` for a delivery of a job whose request is claimed.
        """
        claim = ledger.Claim(key=key, body=body.decode(), holder=self.holder, **self.terms)
        decision, cancellation = await self.writer.commit(claim)
        if ledger.is_granted(decision):
            return None if cancellation is None else not_sent(to_request(parse_json(body)), cancellation)
        record = decision if isinstance(decision, Record) else decision.record
        if record is None:
            raise JournalError(message=f"{self.writer.storage.name}: {cast('Refusal', decision).reason}")
        if self.is_delivery and record.state == "claimed":
            raise HeldError(datetime.fromisoformat(record.claimed_at))
        return record.ended(cancellation)

    async def settle(self, key: str, ended: Ended, *, requeue: bool = False) -> Ended:
        """Commit how the call of a claim ended. Returns that, or the recorded outcome if there may be a persona.

        With `requeue`, a request that was not created is left to a later delivery. Cancelling the caller does not undo
        the commit. Raises `JournalError`.
        """
        event = ledger.settlement(key, self.holder, ended, requeue=requeue)
        _log.debug("%s: %s, request id %s", key, event.state, event.request_id)
        decision, cancellation = await self.writer.commit(event)
        cancellation = cancellation or ended.cancellation
        record = ledger.recorded_instead(event, decision)
        if record is None:
            ended.cancellation = cancellation
            return ended
        recorded = record.ended(cancellation)
        if not isinstance(recorded.result, Persona):
            recorded.result.__cause__ = cast("Failure", ended.result)
        return recorded
