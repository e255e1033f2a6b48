"""The procrastinate app: its task, its worker, and what the worker does when the database goes away."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Unpack, cast

import psycopg
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import AbortReason
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.signals import on_stop

from suno_persona._client import PersonaAPI, engine_of
from suno_persona._engine import Engine
from suno_persona.distributed._job import Redeliver, deliver
from suno_persona.errors import JournalError
from suno_persona.journal import Journal
from suno_persona.journal._database import postgresql_conninfo

if TYPE_CHECKING:
    from procrastinate.app import WorkerOptions

    from suno_persona.journal._states import Record
    from suno_persona.journal._writer import Run

_QUEUE = "suno_persona"
_RESTART_WAIT = 1  # seconds
_LIVE = """
    SELECT queueing_lock, status FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = ANY(%(keys)s)
    UNION ALL
    SELECT queueing_lock, status FROM procrastinate_jobs WHERE status = 'doing' AND queueing_lock = ANY(%(keys)s)
"""
_log = logging.getLogger("suno_persona")


class PersonaApp(App):
    """A procrastinate app whose task creates personas; `make_app` makes one."""

    _engine: Engine  # while a worker runs
    _run: "Run"

    def __init__(
        self, journal_url: str, make_client: Callable[[], PersonaAPI], *, concurrency: int, stalled_worker_timeout: int
    ) -> None:
        self.journal_url: str = journal_url
        """The database that holds both the journal and the queue."""
        self._make_client = make_client
        self._stalled_worker_timeout = stalled_worker_timeout
        super().__init__(
            connector=PsycopgConnector(conninfo=postgresql_conninfo(journal_url), min_size=1, max_size=4, timeout=10),
            worker_defaults={
                "concurrency": concurrency,
                "queues": [_QUEUE],
                "delete_jobs": "successful",  # the journal has their outcomes
                "update_heartbeat_interval": min(10, stalled_worker_timeout / 3),
                "stalled_worker_timeout": stalled_worker_timeout,
            },
        )
        redelivery = _Redelivery(lambda: self._run.now())
        task = self.task(name=f"{_QUEUE}.create_persona", queue=_QUEUE, pass_context=True, retry=redelivery)
        self._task = task(self._create_persona).name
        # Procrastinate retries the jobs of stalled workers where a task asks it to, as its manual describes.
        lock = f"{_QUEUE}.retry_stalled"
        retry_stalled = self.task(name=lock, queue=_QUEUE, queueing_lock=lock, priority=1)
        self.periodic(cron="* * * * * */10")(retry_stalled(self._retry_stalled))

    async def run_worker_async(self, **kwargs: "Unpack[WorkerOptions]") -> None:
        """Run a worker with a client of its own, until it is stopped. It waits for a database that is away.

        Raises `JournalError` where the journal belongs to another endpoint or key than the client's.
        """
        async with self._make_client() as client, Journal(self.journal_url) as journal:
            self._engine = engine_of(client)
            self._run = await journal.begin(self._engine.account, retry_not_created=False)
            while not await self._work(kwargs):
                _log.error("the worker lost its database, and restarts")
                await asyncio.sleep(_RESTART_WAIT)

    async def _work(self, options: "WorkerOptions") -> bool:
        """Run procrastinate's worker. Returns `False` where it lost its database."""
        # It then ends as if it were stopped, so we stop it ourselves, by cancelling it, which lets its jobs finish.
        own_signals: WorkerOptions = {**options, "install_signal_handlers": False}
        worker = asyncio.create_task(super().run_worker_async(**own_signals))
        is_stopped = False

        def stop() -> None:
            nonlocal is_stopped
            is_stopped = True
            worker.cancel()

        try:
            with on_stop(stop) if options.get("install_signal_handlers", True) else nullcontext():
                await worker
        except (ConnectorException, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            if is_stopped:
                return True  # pragma: no cover (a process that is stopped; not each lives to write its coverage)
            if not isinstance(error.__cause__, psycopg.OperationalError):
                raise _queue_failure(error) from error
            return False
        return not options.get("wait", True)

    def defer_requests(self, connection: object, queued: "Sequence[Record]", pending: "Sequence[Record]") -> int:
        """Make jobs for records, where they have none, in the transaction of psycopg's connection.

        For those that are `queued` in this transaction, a job that a worker has fetched does not count: it is about to
        end. Returns how many. Raises `JournalError` where there is no queue.
        """
        job = Job(task_name=self._task, queue=_QUEUE, lock=None, queueing_lock=None)
        transaction = cast("psycopg.Connection", connection)
        try:
            live = set(transaction.execute(_LIVE, {"keys": [record.key for record in (*queued, *pending)]}))
            missing = [record for record in queued if (record.key, "todo") not in live]
            missing += [record for record in pending if not live & {(record.key, "todo"), (record.key, "doing")}]
            jobs = [
                job.evolve(queueing_lock=record.key, task_kwargs={"key": record.key, "body": record.body})
                for record in missing
            ]
            if jobs:
                JobManager(SyncPsycopgConnector()).batch_defer_jobs(jobs, connection=transaction)
        except (ConnectorException, psycopg.Error) as error:
            raise _queue_failure(error) from error
        return len(jobs)

    async def _create_persona(self, context: JobContext, key: str, body: str) -> None:
        def is_shutdown() -> bool:
            return context.abort_reason() is AbortReason.SHUTDOWN

        await deliver(self._engine, self._run, key, body, attempts=context.job.attempts, is_shutdown=is_shutdown)

    async def _retry_stalled(self, timestamp: int) -> None:
        stalled = await self.job_manager.get_stalled_jobs(
            queue=_QUEUE, seconds_since_heartbeat=self._stalled_worker_timeout
        )
        for job in stalled:
            with suppress(ConnectorException):  # it has ended meanwhile
                await self.job_manager.retry_job(job)


class _Redelivery(BaseRetryStrategy):
    """Decide which jobs procrastinate delivers again, and when: by the clock of the database, as it compares."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Decide on a job that raised."""
        if not isinstance(exception, Redeliver):
            return None
        return RetryDecision(retry_at=self._now() + timedelta(seconds=exception.wait))


def _queue_failure(error: BaseException) -> JournalError:
    words = str(error.__cause__ or error).partition("\n")[0]
    hint = "; its tables are made by `procrastinate --app=suno_persona.distributed.app schema --apply`"
    is_missing = isinstance(error.__cause__ or error, psycopg.ProgrammingError)
    return JournalError(message=f"the queue cannot be read or written: {words}{hint if is_missing else ''}")
