"""One delivery of a job: send its request as a batch does, or leave it to a later delivery. It knows no queue."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from suno_persona import errors
from suno_persona._engine import Call
from suno_persona._response import Ended
from suno_persona._retry import RetryPolicy, backoff
from suno_persona._shield import uncancelled
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError
from suno_persona.journal._writer import HeldError, Run

MAX = datetime.max.replace(tzinfo=UTC)
STALE_AFTER = timedelta(minutes=10)  # until then, a batch that claimed a request may be running
JOURNAL_WAIT = 10  # seconds
MAX_WAIT = 300  # seconds: nothing postpones a job by more, whatever a service or a clock says
RECORD_WAITS = (1, 2, 4, 8, 16, 32)  # seconds: a database that restarts loses no outcome
REDELIVERY = RetryPolicy(wait_initial=1, wait_max=MAX_WAIT)
_log = logging.getLogger("suno_persona")


class Redeliver(Exception):  # noqa: N818 - no error, but how a job is left to a later delivery
    """A job is to be delivered again after this many seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"to be delivered again in {wait:.1f} s")
        self.wait = wait


async def deliver(
    send: Callable[[Call], Awaitable[Ended]],
    run: Run,
    key: str,
    body: str,
    *,
    attempts: int,
    is_shutdown: Callable[[], bool],
) -> None:
    """Create what a job asks for, unless the journal says that it must not be sent.

    `attempts` is how many deliveries came before; `is_shutdown` returns whether a cancellation comes from the shutdown
    of the worker. Raises `Redeliver`, also if the journal fails.
    """
    call, began = Call(to_request(parse_json(body))), run.now()
    # At the first delivery, a batch that runs on the same journal may hold the claim. At a later one, its process was
    # stopped.
    run = run.delivery(MAX if attempts else began - STALE_AFTER)
    wait: float | None = None
    try:
        ended = await run.claim(key, body.encode()) or await send(call)
        if not ended.is_recorded:
            wait = _wait_after(ended, attempts, is_shutdown=is_shutdown)
            ended = await _settle(run, key, ended, requeue=wait is not None)
    except HeldError as held:
        (claimed_at,) = held.args
        raise Redeliver(min((STALE_AFTER - (began - claimed_at)).total_seconds(), MAX_WAIT)) from None
    except JournalError as error:
        raise Redeliver(JOURNAL_WAIT) from error
    if wait is not None and isinstance(ended.result, NotCreatedError):
        raise Redeliver(wait) from ended.result
    if ended.cancellation is not None and not is_shutdown():
        raise ended.cancellation


def _wait_after(ended: Ended, attempts: int, *, is_shutdown: Callable[[], bool]) -> float | None:
    """Return the seconds until the next delivery, if a call that ended so is to be made again."""
    match ended.result:
        case NotCreatedError() if ended.cancellation is not None:
            return 0 if is_shutdown() else None
        case errors.ConnectionFailedError() | errors.RateLimitedError() | errors.ServiceUnavailableError():
            return min(backoff(REDELIVERY, ended.result, attempts + 1), MAX_WAIT)
        case _:
            return None


async def _settle(run: Run, key: str, ended: Ended, *, requeue: bool) -> Ended:
    """Settle a claim, and retry that for about a minute: a database that restarts loses no outcome."""
    for pause in RECORD_WAITS:
        try:
            return await run.settle(key, ended, requeue=requeue)
        except JournalError:
            _, cancellation = await uncancelled(asyncio.sleep(pause))
            ended.cancellation = ended.cancellation or cancellation
    try:
        return await run.settle(key, ended, requeue=requeue)
    except JournalError as error:
        _log.error("the outcome of %s is not recorded: %s", key, error)
        raise
