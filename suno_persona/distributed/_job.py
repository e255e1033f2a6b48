"""One delivery of a job: send its request as a batch does, or leave it to a later delivery. It knows no queue."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import attrs

from suno_persona import errors
from suno_persona._batch import claim_and_send, record
from suno_persona._engine import Call
from suno_persona._response import Ended
from suno_persona._retry import RetryPolicy, backoff
from suno_persona._shield import Cancellation, uncancelled
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError
from suno_persona.journal._writer import Run

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


@attrs.define(eq=False)
class _Delivery:
    """The journal's run of one delivery, as `claim_and_send` and `record` use it."""

    run: Run
    attempts: int
    """How many deliveries came before."""

    is_shutdown: Callable[[], bool]
    """Return whether a cancellation comes from the shutdown of the worker."""

    began: datetime
    wait: float | None = None
    """The seconds until the next delivery, if the request was not created and is queued again."""

    def key(self, body: bytes) -> str:
        """Return the key of the next request."""
        return self.run.key(body)

    async def claim(self, key: str, body: bytes) -> tuple[Ended | None, Cancellation]:
        """Claim the request. Raises `Redeliver` while a batch may be sending it."""
        found, cancellation = await self.run.try_claim(key, body)
        if found is not None and found.state == "claimed":
            age = self.began - datetime.fromisoformat(found.claimed_at)
            raise Redeliver(min((STALE_AFTER - age).total_seconds(), MAX_WAIT))
        return None if found is None else found.ended(), cancellation

    async def settle(self, key: str, ended: Ended) -> tuple[Ended | None, Cancellation]:
        """Settle the claim, and retry that for about a minute: a database that restarts loses no outcome."""
        self.wait = self._wait_after(ended)
        cancellation: Cancellation = None
        for pause in (*RECORD_WAITS, None):
            try:
                found, last = await self.run.settle(key, ended, requeue=self.wait is not None)
            except JournalError as error:
                if pause is None:
                    _log.error("the outcome of %s is not recorded: %s", key, error)
                    raise
                _, last = await uncancelled(asyncio.sleep(pause))
                cancellation = last or cancellation
            else:
                return found, last or cancellation
        raise AssertionError

    def _wait_after(self, ended: Ended) -> float | None:
        match ended.result:
            case NotCreatedError() if ended.cancellation is not None:
                return 0 if self.is_shutdown() else None
            case errors.ConnectionFailedError() | errors.RateLimitedError() | errors.ServiceUnavailableError():
                return min(backoff(REDELIVERY, ended.result, self.attempts + 1), MAX_WAIT)
            case _:
                return None


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
    began = run.now()
    # At the first delivery, a batch that runs on the same journal may hold the claim. At a later one, its process was
    # stopped.
    stale_before = MAX if attempts else began - STALE_AFTER
    delivery = _Delivery(run.delivery(stale_before), attempts, is_shutdown, began)
    try:
        ended = await claim_and_send(delivery, key, Call(to_request(parse_json(body))), send)
        if not ended.is_recorded:
            ended = await record(delivery, key, ended)
    except JournalError as error:
        raise Redeliver(JOURNAL_WAIT) from error
    if delivery.wait is not None and isinstance(ended.result, NotCreatedError):
        raise Redeliver(delivery.wait) from ended.result
    if ended.cancellation is not None and not is_shutdown():
        raise ended.cancellation
