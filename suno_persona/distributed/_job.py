"""One delivery of a job: send its request as a batch does, or leave it to a later delivery. It knows no queue."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import attrs

from suno_persona._batch import send_recorded
from suno_persona._engine import Call, Engine
from suno_persona._retry import RetryPolicy, backoff
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import (
    ConnectionFailedError,
    JournalError,
    NotCreatedError,
    OutcomeUnknownError,
    RateLimitedError,
    ServiceUnavailableError,
)
from suno_persona.journal import Entry
from suno_persona.journal._writer import Run
from suno_persona.models import Persona

CLAIM_IS_FRESH = timedelta(minutes=10)  # for so long its process may be at work
RECORD_WAITS = (1, 2, 4, 8, 16, 32)  # seconds: a database that restarts loses no outcome
REDELIVERY = RetryPolicy(wait_initial=1, wait_max=300)
_log = logging.getLogger("suno_persona")


class Redeliver(Exception):  # noqa: N818 - no error, but how a job is left to a later delivery
    """A job is to be delivered again after so many seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"to be delivered again in {wait:.1f} s")
        self.wait = wait


@attrs.define(kw_only=True, eq=False)
class Delivery:
    """One delivery of a job, and its run over the journal."""

    run: Run
    """The journal's run for this delivery alone."""

    job_key: str

    attempts: int
    """How many deliveries came before."""

    is_shutdown: Callable[[], bool]
    """Whether a cancellation comes from the shutdown of the worker."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _recording: "asyncio.Task[None] | None" = None

    async def deliver(self, engine: Engine, body: str) -> None:
        """Create what a job asks for, unless the journal says that it must not be sent.

        Raises `Redeliver`, and `JournalError` where the journal fails.
        """
        sent = await send_recorded(engine, self, self.job_key, Call(to_request(parse_json(body))))
        if self._recording is not None:
            await _finish(self._recording)
            try:
                self._recording.result()
            except JournalError as error:
                _log.error("the outcome of %s is not recorded: %s", self.job_key, error)
                raise
        if (wait := self._wait(sent.result)) is not None:
            raise Redeliver(wait) from cast("BaseException", sent.result)
        if not isinstance(sent.result, Persona | NotCreatedError | OutcomeUnknownError):
            raise sent.result

    def key(self, body: bytes) -> str:
        """Return the key of the job's request."""
        return self.job_key

    async def claim(self, key: str, body: bytes) -> Entry | None:
        """Commit that the request is about to be sent, or return what is recorded.

        A claim of another run is waited for at the first delivery: a batch on the same journal may be at work. At a
        later one, its process was stopped: its outcome is unknown.
        """
        claiming = asyncio.ensure_future(self.run.claim(key, body))
        is_cancelled = await _finish(claiming)
        entry: Entry | None = claiming.result()
        if is_cancelled:
            cancelled = asyncio.CancelledError()
            if entry is None:
                self.settle(key, cancelled, may_have_created=False, request_id=None)
            raise cancelled
        if entry is not None and entry.state == "claimed":
            remaining = (entry.claimed_at + CLAIM_IS_FRESH - self.now()).total_seconds()
            if not self.attempts and remaining > 0:
                raise Redeliver(remaining)
            await self.run.give_up(entry)
        return entry

    def settle(
        self, key: str, result: Persona | BaseException, *, may_have_created: bool, request_id: str | None
    ) -> "asyncio.Task[None]":
        """Commit the outcome, and retry that for about a minute. What is to be delivered again is queued."""
        requeue = self._wait(result) is not None

        def settle() -> "asyncio.Future[Any]":
            return self.run.settle(
                key, result, may_have_created=may_have_created, request_id=request_id, requeue=requeue
            )

        self._recording = asyncio.create_task(_record(settle(), settle))
        return self._recording

    def _wait(self, result: Persona | BaseException) -> float | None:
        """Return the seconds until the next delivery; `None` where there is none."""
        match result:
            case Redeliver():
                return result.wait
            case asyncio.CancelledError():
                return 0 if self.is_shutdown() else None
            case ConnectionFailedError() | RateLimitedError() | ServiceUnavailableError():
                return backoff(REDELIVERY, result, self.attempts + 1)
            case _:
                return None


async def _record(settled: "asyncio.Future[Any]", settle: Callable[[], "asyncio.Future[Any]"]) -> None:
    for wait in RECORD_WAITS:
        try:
            await settled
        except JournalError:
            await asyncio.sleep(wait)
            settled = settle()
        else:
            return
    await settled


async def _finish(task: "asyncio.Future[Any]") -> bool:
    """Wait for the end of a task, also where this one is cancelled meanwhile. Returns whether it was."""
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled
