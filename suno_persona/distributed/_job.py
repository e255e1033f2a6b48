"""What a job does: send a request that the journal gives free, record what came of it, or come again later."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from procrastinate import BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.job_context import AbortReason
from procrastinate.jobs import Job

from suno_persona._client import PersonaAPI
from suno_persona._engine import Call
from suno_persona._retry import RetryPolicy, wait_after
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import (
    ConnectionFailedError,
    JournalError,
    NotCreatedError,
    OutcomeUnknownError,
    RateLimitedError,
    ServiceUnavailableError,
)
from suno_persona.journal import Run
from suno_persona.models import Persona

_AT_WORK = timedelta(minutes=10)  # for so long a claim may be that of a process that is at work
_RECORD_AGAIN = (1, 2, 4, 8, 16, 32)  # seconds: a database that restarts loses no outcome
_REDELIVERY = RetryPolicy(wait_initial=1, wait_max=300)
_log = logging.getLogger("suno_persona")


@attrs.frozen
class Deliveries:
    """What the jobs of a worker process share."""

    client: PersonaAPI
    run: Run

    async def deliver(self, context: JobContext, key: str, body: str) -> None:
        """Create what a request asks for, unless the journal says that it must not be sent."""
        call = Call(to_request(parse_json(body)))
        call.key = key
        call.comes_again = lambda error: _wait(error, context) is not None
        failure: BaseException | None = None
        try:
            async with self.client._pacing.turns:
                await self._send(call, context)
        except (NotCreatedError, OutcomeUnknownError, asyncio.CancelledError) as error:
            failure = error
        finally:
            await self._recorded(call)
        if (wait := _wait(failure, context)) is not None:
            raise _GivenBackError(wait) from failure
        if isinstance(failure, asyncio.CancelledError):
            raise failure

    async def _send(self, call: Call, context: JobContext) -> None:
        claiming = asyncio.ensure_future(self.run.claim(call))
        is_cancelled = await _ended(claiming)
        entry = claiming.result()
        if entry is None:
            await self.run.send_claimed(call, _cancelled if is_cancelled else self.client._sender.send)
        elif entry.state == "claimed":
            # At its first delivery this job knows nothing of the claim: a batch on the same journal may be at work.
            left = (entry.claimed_at + _AT_WORK - datetime.now(UTC)).total_seconds()
            if not context.job.attempts and left > 0:
                raise _GivenBackError(left)
            await self.run.give_up(entry)

    async def _recorded(self, call: Call) -> None:
        recording = asyncio.ensure_future(self.run.recorded(call, _RECORD_AGAIN))
        await _ended(recording)
        try:
            recording.result()
        except JournalError as error:
            _log.error("what became of %s is not recorded: %s", call.key, error)
            raise


def _wait(error: BaseException | None, context: JobContext) -> float | None:
    """Seconds after which a job is to be delivered again; `None` where it is at its end."""
    if isinstance(error, asyncio.CancelledError):
        return 0 if context.abort_reason() is AbortReason.SHUTDOWN else None
    if isinstance(error, ConnectionFailedError | RateLimitedError | ServiceUnavailableError):
        return wait_after(_REDELIVERY, error, context.job.attempts + 1)
    return None


async def _ended(task: "asyncio.Future[Any]") -> bool:
    """Wait for the end of a task, also where this one is cancelled meanwhile; tell whether it was."""
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled


async def _cancelled(_: Call) -> Persona:
    raise asyncio.CancelledError


class _GivenBackError(Exception):
    """A job is to be delivered again after so many seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"given back to the queue for {wait:.1f} s")
        self.wait = wait


class GiveBack(BaseRetryStrategy):
    """Tells procrastinate which jobs it is to deliver again, and when."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Procrastinate asks this after every failed job."""
        if isinstance(exception, _GivenBackError):
            return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=exception.wait))
        if isinstance(exception, JournalError):
            return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=10))
        return None
