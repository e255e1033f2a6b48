"""One delivery of a job: send its request as a batch does, or leave it to a later delivery. It knows no queue."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import attrs

from suno_persona import errors
from suno_persona._batch import claim_and_send, record
from suno_persona._engine import Call
from suno_persona._response import Ended
from suno_persona._retry import RetryPolicy, backoff
from suno_persona._shield import uncancelled
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError
from suno_persona.journal import Entry
from suno_persona.journal._writer import Run

MAX = datetime.max.replace(tzinfo=UTC)
STALE_AFTER = timedelta(minutes=10)  # until then a claim of a batch may be at work
JOURNAL_WAIT = 10  # seconds
LOOK_AGAIN = 300  # seconds: nothing postpones a job by more, whatever a service or a clock says
RECORD_WAITS = (1, 2, 4, 8, 16, 32)  # seconds: a database that restarts loses no outcome
REDELIVERY = RetryPolicy(wait_initial=1, wait_max=LOOK_AGAIN)
_log = logging.getLogger("suno_persona")


class Redeliver(Exception):  # noqa: N818 - no error, but how a job is left to a later delivery
    """A job is to be delivered again after so many seconds."""

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

    `attempts` is how many deliveries came before; `is_shutdown` says whether a cancellation comes from the shutdown of
    the worker. Raises `Redeliver`, also if the journal fails.
    """
    began = run.now()
    fresh: Entry | None = None

    def redelivery(ended: Ended) -> float | None:
        match ended.result:
            case NotCreatedError() if ended.cancellation is not None:
                return 0 if is_shutdown() else None
            case errors.ConnectionFailedError() | errors.RateLimitedError() | errors.ServiceUnavailableError():
                return min(backoff(REDELIVERY, ended.result, attempts + 1), LOOK_AGAIN)
            case _:
                return None

    def on_recorded(entry: Entry) -> None:
        nonlocal fresh
        fresh = entry if entry.state == "claimed" else None

    # At the first delivery, a claim may be that of a batch at work on the same journal. At a later one, its process was
    # stopped.
    stale_before = MAX if attempts else began - STALE_AFTER
    run = run.delivery(stale_before, on_recorded, requeues=lambda ended: redelivery(ended) is not None)
    try:
        ended = await claim_and_send(run, key, Call(to_request(parse_json(body))), send)
        wait = redelivery(ended)  # before a cancellation may come that changes nothing of what is recorded
        if not ended.is_recorded:
            recorded, cancellation = await uncancelled(_record(run, key, ended))
            wait = wait if recorded.result is ended.result else None  # another claim settled the request
            ended = attrs.evolve(recorded, cancellation=recorded.cancellation or cancellation)
    except JournalError as error:
        raise Redeliver(JOURNAL_WAIT) from error
    if fresh is not None:
        raise Redeliver(min((fresh.claimed_at + STALE_AFTER - began).total_seconds(), LOOK_AGAIN))
    if wait is not None:
        raise Redeliver(wait) from cast("BaseException", ended.result)
    if ended.cancellation is not None and not is_shutdown():
        raise ended.cancellation


async def _record(run: Run, key: str, ended: Ended) -> Ended:
    """Commit how a call ended, and retry that for about a minute: a database that restarts loses no outcome."""
    for wait in (*RECORD_WAITS, None):
        try:
            return await record(run, key, ended)
        except JournalError as error:
            if wait is None:
                _log.error("the outcome of %s is not recorded: %s", key, error)
                raise
            await asyncio.sleep(wait)
    raise AssertionError
