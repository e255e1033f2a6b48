"""A run over the requests of a batch, and the group commit of what runs claim and settle.

What is due together shares one transaction; while it is being committed, the next one gathers.
"""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import attrs

from suno_persona._response import Ended
from suno_persona.errors import JournalError
from suno_persona.journal import _states as ledger
from suno_persona.journal._entry import Entry
from suno_persona.journal._states import Decision, Event, Record
from suno_persona.journal._storage import Storage

_log = logging.getLogger("suno_persona")
_P = ParamSpec("_P")
_T = TypeVar("_T")

MOST_AT_ONCE = 1000  # events in a transaction


def here() -> str:
    """Name this process, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"


class Uncancelled(asyncio.Future[_T]):
    """A future that is never cut off: a task that is cancelled while it awaits one is cancelled when it is done."""

    def cancel(self, msg: object = None) -> bool:
        """Leave it to asyncio to cancel the task later."""
        return False


class Writer:
    """Calls a storage in the one thread that owns it, and commits events in groups, in their order."""

    def __init__(self, storage: Storage) -> None:
        self.storage: Storage = storage
        self._thread = ThreadPoolExecutor(1, "suno-persona-journal")
        self._due: list[tuple[Event, Uncancelled[Decision]]] = []
        self._idle: Uncancelled[None] | None = None

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Uncancelled[_T]:
        """Call a function in the thread, after those that were called before. A transaction that hangs fails."""
        loop = asyncio.get_running_loop()
        done: Uncancelled[_T] = Uncancelled(loop=loop)

        watch: asyncio.TimerHandle

        def look() -> None:
            nonlocal watch
            watch = loop.call_later(self.storage.break_off(), look)

        def tell(called: Future[_T]) -> None:
            watch.cancel()
            error = called.exception()
            done.set_exception(error) if error is not None else done.set_result(called.result())

        look()
        called = self._thread.submit(function, *args, **kwargs)
        called.add_done_callback(lambda called: loop.call_soon_threadsafe(tell, called))
        return done

    def submit(self, event: Event) -> Uncancelled[Decision]:
        """Commit an event, also if nobody waits for the future. It raises `JournalError`."""
        loop = asyncio.get_running_loop()
        decided: Uncancelled[Decision] = Uncancelled(loop=loop)
        self._due.append((event, decided))
        if self._idle is None:
            self._idle = Uncancelled(loop=loop)
            loop.call_soon(self._gather, 0)
        return decided

    async def close(self) -> None:
        """Finish what is due, and close the storage."""
        try:
            while self._idle is not None:
                await self._idle
        finally:
            try:
                await self.call(self.storage.close)
            finally:
                self._thread.shutdown(wait=False)

    def _gather(self, known: int) -> None:
        """Let the loop turn as long as each turn brings more: a commit costs the same for one as for many."""
        if len(self._due) > known:
            asyncio.get_running_loop().call_soon(self._gather, len(self._due))
            return
        group, self._due = self._due[:MOST_AT_ONCE], self._due[MOST_AT_ONCE:]
        committing = self.call(self.storage.commit, [event for event, _ in group])
        committing.add_done_callback(partial(self._tell, [decided for _, decided in group]))

    def _tell(self, waiting: Sequence[Uncancelled[Decision]], committed: "asyncio.Future[Sequence[Decision]]") -> None:
        if (error := committed.exception()) is None:
            for decided, decision in zip(waiting, committed.result(), strict=True):
                decided.set_result(decision)
        else:
            for decided in waiting:
                decided.set_exception(error)
                decided.exception()  # whoever waits gets it, and asyncio does not complain where nobody does
        if self._due:
            self._gather(0)
        else:
            cast("Uncancelled[None]", self._idle).set_result(None)
            self._idle = None


@attrs.frozen(kw_only=True, eq=False)
class Run:
    """One run over the requests of a batch, or one delivery of a job: it claims a request once, and settles it once."""

    writer: Writer
    terms: Mapping[str, Any]
    """What its claims have in common: members of `Claim`."""

    on_recorded: Callable[[Entry], None] = lambda _: None
    """Called with what is recorded of a request that must not be sent."""

    requeues: Callable[[Ended], bool] = lambda _: False
    """Whether a request whose call ended so, and which was not created, is left to a later delivery."""

    holder: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    keys: ledger.Keys = attrs.field(factory=ledger.Keys)

    def delivery(
        self, stale_before: datetime, on_recorded: Callable[[Entry], None], requeues: Callable[[Ended], bool]
    ) -> "Run":
        """Return a run for one delivery of a job, which takes nothing that another one did for its own."""
        terms = {**self.terms, "stale_before": ledger.text(stale_before)}
        return Run(writer=self.writer, terms=terms, on_recorded=on_recorded, requeues=requeues)

    def now(self) -> datetime:
        """Return the time by the journal's clock."""
        return self.writer.storage.now()

    def key(self, body: bytes) -> str:
        """Return the key of the next request, by its wire body."""
        return self.keys.next(body)

    async def claim(self, key: str, body: bytes) -> Entry | None:
        """Commit that a request is about to be sent. Returns what is recorded of it, if it must not be sent.

        Raises `JournalError` if nothing could be committed.
        """
        claim = ledger.Claim(key=key, body=body.decode(), holder=self.holder, **self.terms)
        decision = await self.writer.submit(claim)
        if ledger.is_granted(decision):
            return None
        if isinstance(decision, ledger.Refusal) and decision.record is None:
            raise JournalError(message=f"{self.writer.storage.name}: {decision.reason}")
        entry = Entry.of(cast("Record", decision.record if isinstance(decision, ledger.Refusal) else decision))
        self.on_recorded(entry)
        return entry

    async def settle(self, key: str, ended: Ended) -> Entry | None:
        """Commit how the call of a claim ended. Returns what is recorded instead, if the outcome is no persona.

        Raises `JournalError`.
        """
        members = ledger.settlement(ended, requeue=self.requeues(ended))
        _log.debug("%s: %s, request id %s", key, members["state"], members["request_id"])
        event = ledger.Settle(key=key, holder=self.holder, **members)
        record = ledger.recorded_instead(event, await self.writer.submit(event))
        return None if record is None else Entry.of(record)
