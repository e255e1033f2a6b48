"""One delivery of a job: send its request as a batch does, or leave it to a later delivery. It knows no queue."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from suno_persona import errors
from suno_persona._batch import Sent, send_recorded, settle
from suno_persona._engine import Call, Engine
from suno_persona._retry import RetryPolicy, backoff
from suno_persona._shield import until_done
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError, OutcomeUnknownError
from suno_persona.journal import Entry
from suno_persona.journal._writer import Run
from suno_persona.models import Persona

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
    engine: Engine,
    run: Run,
    key: str,
    body: str,
    *,
    attempts: int,
    is_shutdown: Callable[[], bool],
) -> None:
    """Create what a job asks for, unless the journal says that it must not be sent.

    `attempts` is how many deliveries came before; `is_shutdown` says whether a cancellation comes from the shutdown of
    the worker. Raises `Redeliver`, also where the journal fails.
    """
    began = run.now()

    fresh: Entry | None = None

    def redelivery(result: object) -> float | None:
        match result:
            case asyncio.CancelledError():
                return 0 if is_shutdown() else None
            case errors.ConnectionFailedError() | errors.RateLimitedError() | errors.ServiceUnavailableError():
                return min(backoff(REDELIVERY, result, attempts + 1), LOOK_AGAIN)
            case _:
                return None

    def on_recorded(entry: Entry) -> None:
        nonlocal fresh
        fresh = entry if entry.state == "claimed" else None

    # At the first delivery, a claim may be that of a batch at work on the same journal. At a later one, its process was
    # stopped.
    stale_before = MAX if attempts else began - STALE_AFTER
    run = run.delivery(stale_before, on_recorded, requeues=lambda error: redelivery(error) is not None)
    call = Call(to_request(parse_json(body)))
    try:
        sent = await send_recorded(engine, run, key, call)
        recording = asyncio.create_task(_record(run, key, call, sent))
        await until_done(recording)  # also where this task is cancelled meanwhile
        recording.result()
    except JournalError as error:
        raise Redeliver(JOURNAL_WAIT) from error
    if fresh is not None:
        raise Redeliver(min((fresh.claimed_at + STALE_AFTER - began).total_seconds(), LOOK_AGAIN))
    if (wait := redelivery(sent.result)) is not None:
        raise Redeliver(wait) from cast("BaseException", sent.result)
    if not isinstance(sent.result, Persona | NotCreatedError | OutcomeUnknownError):
        raise sent.result


async def _record(run: Run, key: str, call: Call, sent: Sent) -> None:
    """Wait for the commit of an outcome, and retry it for about a minute."""
    committed, waits = sent.committed, iter(RECORD_WAITS)
    while committed is not None:
        try:
            await committed
        except JournalError as error:
            if (wait := next(waits, None)) is None:
                _log.error("the outcome of %s is not recorded: %s", key, error)
                raise
            await asyncio.sleep(wait)
            committed = settle(run, key, call, sent.result, sent.request_id)
        else:
            committed = None
