"""Batches on many machines: a procrastinate job for each request, guarded by a journal in the same database.

The queue delivers a job at least once; the journal sees to it that its request is sent once. The workers are
procrastinate's own: `procrastinate --app=suno_persona.distributed.app worker`.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Unpack, cast

import attrs
from aiolimiter import AsyncLimiter

from suno_persona import options
from suno_persona.batch import Outcome
from suno_persona.client import PersonaAPI
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import ConfigurationError, JournalError, NotCreatedError, OutcomeUnknownError
from suno_persona.journal import Journal, Keys, Run
from suno_persona.journal.database import postgresql_conninfo
from suno_persona.models import CreatePersonaRequest
from suno_persona.retry import RetryPolicy, is_repeated, wait_after
from suno_persona.sending import Call

try:
    from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
    from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
    from procrastinate.job_context import AbortReason
    from procrastinate.jobs import Job
    from procrastinate.signals import on_stop
except ModuleNotFoundError as _error:
    _message = "batches on many machines need the distributed extra: pip install 'suno-persona[distributed]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

if TYPE_CHECKING:
    from procrastinate.app import WorkerOptions
    from psycopg import AsyncConnection

    app: "PersonaApp"
    """The app that `SUNO_JOURNAL_URL` and the other variables of the environment name; made when it is first used."""

_QUEUE = "suno_persona"
_AT_ONCE = 1000  # requests in a transaction
_RECORD_AGAIN = (1, 2, 4, 8, 16, 32)  # seconds: a database that restarts loses no outcome
_BEGIN_AGAIN = 1  # seconds
_log = logging.getLogger("suno_persona")


async def enqueue(
    app: "PersonaApp",
    requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
    *,
    retry_refused: bool = False,
) -> int:
    """Give a batch to the workers. Returns how many jobs that made.

    `requests` is any iterable or async iterable; it is read lazily and written in parts. What the journal has already
    is not enqueued again, so that a batch that broke off can be enqueued again; with `retry_refused`, what was settled
    as not created is. Raises `JournalError` where the database fails, and `InvalidRequestError` for what is no request:
    the parts before it are enqueued then.
    """
    keys, count, place = Keys(), 0, 0
    part: dict[str, tuple[int, str]] = {}

    async def defer(connection: object, new: Sequence[str]) -> None:
        await app.defer_requests(connection, {key: part[key][1] for key in new})

    async with Journal(app.journal_url) as journal:
        async for request in _each(requests):
            body = Call(request).body
            part[keys.next(body)] = place, body.decode()
            place += 1
            if len(part) == _AT_ONCE:
                count += await journal.enqueue(part, defer, retry_refused=retry_refused)
                part.clear()
        return count + await journal.enqueue(part, defer, retry_refused=retry_refused)


async def outcomes(app: "PersonaApp", *, every: float = 1.0) -> AsyncGenerator[Outcome, None]:
    """Yield an outcome for each request that was enqueued: those that are there, and others as they come.

    It ends when every request has one, and looks `every` so many seconds until then. An error in an outcome is a
    `NotCreatedError` or an `OutcomeUnknownError` that says what the journal has. Raises `JournalError`.
    """
    async with Journal(app.journal_url) as journal:
        async for entry in journal.settled(every=every):
            yield entry.outcome(cast("int", entry.place))


def make_app(
    journal_url: str,
    *,
    make_client: Callable[[], PersonaAPI] = PersonaAPI,
    concurrency: int = 32,
    redelivery: RetryPolicy = RetryPolicy(attempts=20, first_wait=1.0, longest_wait=3600.0),
    dead_after: int = 30,
) -> "PersonaApp":
    """Make a procrastinate app with the task `create_persona`: for `enqueue`, `outcomes` and procrastinate's workers.

    - `journal_url`: the PostgreSQL database that holds both the journal and the queue.
    - `make_client`: makes the one `PersonaAPI` of a worker process, when the worker starts.
    - `concurrency`: how many jobs a worker has under way, unless its `--concurrency` says otherwise.
    - `redelivery`: how often, and after what wait, a job is given back to the queue whose request was refused in a way
      that is worth another try. That is after the client's own attempts.
    - `dead_after`: whole seconds without a sign of life after which a worker's jobs are given to others.

    Raises `ConfigurationError` for an argument that cannot be used.
    """
    return PersonaApp(
        journal_url,
        make_client,
        concurrency=options.count("concurrency", concurrency),
        redelivery=options.instance("redelivery", redelivery, RetryPolicy),
        dead_after=options.count("dead_after", dead_after),
    )


class PersonaApp(App):
    """A procrastinate app whose task creates personas; `make_app` makes one."""

    _deliveries: "_Deliveries"  # while a worker runs

    def __init__(
        self,
        journal_url: str,
        make_client: Callable[[], PersonaAPI],
        *,
        concurrency: int,
        redelivery: RetryPolicy,
        dead_after: int,
    ) -> None:
        self.journal_url: str = journal_url
        self._make_client = make_client
        self._redelivery = redelivery
        self._dead_after = dead_after
        super().__init__(
            connector=PsycopgConnector(conninfo=postgresql_conninfo(journal_url), min_size=1, max_size=4),
            worker_defaults={
                "concurrency": concurrency,
                "queues": [_QUEUE],
                "delete_jobs": "successful",  # the journal has what came of them
                "update_heartbeat_interval": dead_after / 3,
                "stalled_worker_timeout": dead_after,
            },
        )
        task = self.task(name=f"{_QUEUE}.create_persona", queue=_QUEUE, pass_context=True, retry=_GiveBack())
        self._task = task(self._create_persona).name
        # Procrastinate takes up the jobs of dead workers where a task asks it to, as its manual describes.
        lock = f"{_QUEUE}.retry_stalled"
        retry_stalled = self.task(name=lock, queue=_QUEUE, lock=lock, queueing_lock=lock, priority=1)
        self.periodic(cron="* * * * * */10")(retry_stalled(self._retry_stalled))

    async def run_worker_async(self, **kwargs: "Unpack[WorkerOptions]") -> None:
        """Run a worker with a client of its own, until it is told to stop; a database that is away is waited for."""
        async with self._make_client() as client, Journal(self.journal_url) as journal:
            self._deliveries = _Deliveries(client, journal.run(resend_refused=False), self._redelivery)
            while not await self._work(kwargs):
                _log.error("the worker lost its database, and begins again")
                await asyncio.sleep(_BEGIN_AGAIN)

    async def _work(self, options: "WorkerOptions") -> bool:
        """Run procrastinate's worker. False: it lost its database."""
        # It then ends as one that was told to stop, and so we tell it by cancelling it, which lets its jobs finish.
        own_signals: WorkerOptions = {**options, "install_signal_handlers": False}
        worker = asyncio.create_task(super().run_worker_async(**own_signals))

        def stop() -> None:
            worker.cancel()

        try:
            with on_stop(stop) if options.get("install_signal_handlers", True) else nullcontext():
                await worker
        except ConnectorException:
            return False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return True
        return not options.get("wait", True)

    async def defer_requests(self, connection: object, bodies: Mapping[str, str]) -> None:
        """Make the jobs for these keys and wire bodies, in the transaction of psycopg's connection."""
        psycopg = cast("AsyncConnection", connection)
        job = Job(task_name=self._task, queue=_QUEUE, lock=None, queueing_lock=None)
        jobs = [job.evolve(queueing_lock=key, task_kwargs={"key": key, "body": body}) for key, body in bodies.items()]
        try:
            try:
                async with psycopg.transaction():
                    await self.job_manager.batch_defer_jobs_async(jobs, connection=psycopg)
            except AlreadyEnqueued:  # somebody emptied the journal, and not the queue
                for job in jobs:
                    with suppress(AlreadyEnqueued):
                        async with psycopg.transaction():
                            await self.job_manager.defer_job_async(job, connection=psycopg)
        except ConnectorException as error:
            message = (
                f"the queue cannot be written: {str(error.__cause__).splitlines()[0]}; its schema is made by "
                "`procrastinate --app=suno_persona.distributed.app schema --apply`"
            )
            raise JournalError(message=message) from error

    async def _create_persona(self, context: JobContext, key: str, body: str) -> None:
        await self._deliveries.deliver(context, key, body)

    async def _retry_stalled(self, timestamp: int) -> None:
        stalled = await self.job_manager.get_stalled_jobs(queue=_QUEUE, seconds_since_heartbeat=self._dead_after)
        for job in stalled:
            with suppress(ConnectorException):  # it has ended meanwhile
                await self.job_manager.retry_job(job)


@attrs.frozen
class _Deliveries:
    """What the jobs of a worker process share."""

    client: PersonaAPI
    run: Run
    redelivery: RetryPolicy

    async def deliver(self, context: JobContext, key: str, body: str) -> None:
        """Create what a request asks for, unless the journal says that it must not be sent."""
        call = Call(to_request(parse_json(body)))
        call.key = key
        call.comes_again = lambda error: self._wait(error, context) is not None
        try:
            async with self.client._pacing.turns:
                entry = await self.run.claim(call)
                if entry is None:
                    await self.run.send_claimed(call, self.client._sender.send)
                elif entry.state == "claimed":  # by a worker that died, or else this job would not be here
                    await self.run.give_up(entry)
        except (NotCreatedError, OutcomeUnknownError, asyncio.CancelledError) as error:
            await self._recorded(call)
            if (wait := self._wait(error, context)) is not None:
                raise _GivenBackError(wait) from error
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            await self._recorded(call)

    async def _recorded(self, call: Call) -> None:
        try:
            await self.run.recorded(call, _RECORD_AGAIN)
        except JournalError as error:
            _log.error("what became of %s is not recorded: %s", call.key, error)
            raise

    def _wait(self, error: BaseException, context: JobContext) -> float | None:
        """Seconds after which the job is to be delivered again; `None` where it is at its end."""
        if isinstance(error, asyncio.CancelledError):
            return 0 if context.abort_reason() is AbortReason.SHUTDOWN else None
        attempt = context.job.attempts + 1
        if isinstance(error, NotCreatedError) and is_repeated(self.redelivery, error, attempt):
            return wait_after(self.redelivery, error, attempt)
        return None


class _GivenBackError(Exception):
    """A job is to be delivered again after so many seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"given back to the queue for {wait:.1f} s")
        self.wait = wait


class _GiveBack(BaseRetryStrategy):
    """Tells procrastinate which jobs it is to deliver again, and when."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, _GivenBackError):
            return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=exception.wait))
        if isinstance(exception, JournalError):
            return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=10))
        return None


async def _each(
    requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
) -> AsyncGenerator[CreatePersonaRequest, None]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


def _app_of_environment() -> PersonaApp:
    url = os.environ.get("SUNO_JOURNAL_URL")
    if not url:
        raise ConfigurationError(message="SUNO_JOURNAL_URL: expected the URL of a PostgreSQL database, found none")
    connections = os.environ.get("SUNO_MAX_CONNECTIONS", "32")
    if not re.fullmatch(r"[1-9]\d{0,5}", connections):
        message = f"SUNO_MAX_CONNECTIONS: expected a whole number from 1 on, found {connections!r}"
        raise ConfigurationError(message=message)
    rate = os.environ.get("SUNO_RATE_LIMIT", "")
    if rate and not re.fullmatch(r"[1-9]\d*/[1-9]\d*", rate):
        message = f"SUNO_RATE_LIMIT: expected requests/seconds, such as 60/60, found {rate!r}"
        raise ConfigurationError(message=message)

    def make_client() -> PersonaAPI:
        limit = AsyncLimiter(*map(int, rate.split("/"))) if rate else None
        return PersonaAPI(max_connections=int(connections), rate_limit=limit)

    return make_app(url, make_client=make_client, concurrency=int(connections))


def __getattr__(name: str) -> PersonaApp:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()["app"] = _app_of_environment()
    return made
