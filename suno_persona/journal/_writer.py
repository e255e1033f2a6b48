"""A run over the requests of a batch, and the group commit of what runs claim and settle.

What is due together shares one transaction; while it is being committed, the next one gathers.
"""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias, cast

import attrs

from suno_persona.errors import JournalError
from suno_persona.journal._entry import Entry
from suno_persona.journal._states import (
    Bind,
    Claim,
    Decision,
    Event,
    GiveUp,
    Keys,
    Record,
    Settle,
    settlement_of,
)
from suno_persona.models import Persona

_log = logging.getLogger("suno_persona")

MOST_AT_ONCE = 1000  # events in a transaction

_Due: TypeAlias = "tuple[Event, asyncio.Future[Decision], Callable[[], None] | None]"
Commit: TypeAlias = "Callable[[Sequence[Event]], asyncio.Future[Sequence[Decision]]]"


def now() -> str:
    """Return the time in UTC, as records have it: text that sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def here() -> str:
    """Name this process, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"


class Writer:
    """Commits events in groups, in their order. `commit` is called with one group at a time."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._due: list[_Due] = []
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, event: Event, abandoned: Callable[[], None] | None = None) -> "asyncio.Future[Decision]":
        """Commit an event, also if nobody waits for the future. It raises `JournalError`.

        `abandoned` is called where the future was cancelled, and the event is committed all the same.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Decision] = loop.create_future()
        self._due.append((event, done, abandoned))
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._gather, 0)
        return done

    async def close(self) -> None:
        """Wait until nothing is due."""
        while not self._idle.is_set():
            await self._idle.wait()

    def _gather(self, known: int) -> None:
        """Let the loop turn as long as each turn brings more: a commit costs the same for one as for many."""
        if len(self._due) > known:
            asyncio.get_running_loop().call_soon(self._gather, len(self._due))
            return
        group, self._due = self._due[:MOST_AT_ONCE], self._due[MOST_AT_ONCE:]
        self._commit([event for event, *_ in group]).add_done_callback(partial(self._tell, group))

    def _tell(self, group: "Sequence[_Due]", committed: "asyncio.Future[Sequence[Decision]]") -> None:
        error = committed.exception()
        decisions = [None] * len(group) if error else committed.result()
        for (_, done, abandoned), decision in zip(group, decisions, strict=True):
            if done.cancelled():
                if abandoned is not None and isinstance(decision, Record):
                    abandoned()
            elif decision is not None:
                done.set_result(decision)
            else:
                done.set_exception(cast("BaseException", error))
                done.exception()  # whoever waits gets it, and asyncio does not complain where nobody does
        if self._due:
            self._gather(0)
        else:
            self._idle.set()


@attrs.frozen(kw_only=True, eq=False)
class Run:
    """One run over the requests of a batch: each is claimed once, and settled once."""

    writer: Writer
    name: str
    """The journal's."""

    bind: Bind
    since: str
    """When it began; empty where nothing that was not created is retried."""

    retry_unknown: bool = False
    now: Callable[[], str] = now
    claimed_by: str = attrs.field(factory=here)
    holder: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    keys: Keys = attrs.field(factory=Keys)

    def delivery(self) -> "Run":
        """Return a run of its own for one delivery of a job: nothing that another delivery does counts as its own."""
        return attrs.evolve(self, holder=uuid.uuid4().hex)

    def key(self, body: bytes) -> str:
        """Return the key of the next request, by its wire body."""
        return self.keys.next(body)

    async def claim(self, key: str, body: bytes) -> Entry | None:
        """Commit that a request is about to be sent. Returns what is recorded of it where it must not be sent.

        Raises `JournalError` where nothing could be committed. Where the caller is cancelled meanwhile, the claim is
        settled as not created.
        """
        claim = Claim(
            key=key,
            body=body.decode(),
            holder=self.holder,
            at=self.now(),
            by=self.claimed_by,
            since=self.since,
            retry_unknown=self.retry_unknown,
            bind=self.bind,
        )

        def release() -> None:
            self.settle(key, asyncio.CancelledError(), may_have_created=False, request_id=None)

        claimed = self.writer.submit(claim, release)
        try:
            decision = await claimed
        except asyncio.CancelledError:
            # Committed just before: the writer cannot know that the caller was cancelled.
            if not claimed.cancelled() and claimed.exception() is None and isinstance(claimed.result(), Record):
                release()
            raise
        if isinstance(decision, Record):
            return None
        if decision.record is None:
            raise JournalError(message=f"{self.name}: {decision.reason}")
        return Entry.of(decision.record)

    def settle(
        self,
        key: str,
        result: Persona | BaseException,
        *,
        may_have_created: bool,
        request_id: str | None,
        requeue: bool = False,
    ) -> "asyncio.Future[Any]":
        """Commit what became of a claim, also if nobody waits for it. The future raises `JournalError`.

        With `requeue`, what was not created is left to a later delivery.
        """
        settlement = settlement_of(result, may_have_created=may_have_created, request_id=request_id, requeue=requeue)
        _log.debug("%s: %s, request id %s", key, settlement.state, settlement.request_id)
        return self.writer.submit(Settle(key=key, holder=self.holder, at=self.now(), settlement=settlement))

    def give_up(self, entry: Entry) -> "asyncio.Future[Any]":
        """Commit that no outcome is expected of another run's claim. If one comes after all, it is recorded."""
        return self.writer.submit(GiveUp(key=entry.key, holder=entry.holder, at=self.now()))
