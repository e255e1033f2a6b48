"""The procrastinate app: its task, and its worker, which survives a restart of the database."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack, cast

import psycopg
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import AbortReason
from procrastinate.jobs import Job
from procrastinate.signals import on_stop

from suno_persona._client import PersonaAPI
from suno_persona.distributed import _queue as queue
from suno_persona.distributed._job import Redeliver, deliver
from suno_persona.journal import Journal
from suno_persona.journal._database import postgresql_conninfo

if TYPE_CHECKING:
    from procrastinate.app import WorkerOptions

    from suno_persona.journal._states import Record
    from suno_persona.journal._writer import Run

_QUEUE = "suno_persona"
_RESTART_WAIT = 1  # seconds
_log = logging.getLogger("suno_persona")


class PersonaApp(App):
    """A procrastinate app whose task creates personas; `make_app` makes one."""

    _api: PersonaAPI  # while a worker runs
    _run: "Run"

    def __init__(
        self, journal_url: str, make_client: Callable[[], PersonaAPI], *, concurrency: int, stalled_worker_timeout: int
    ) -> None:
        self.journal_url: str = journal_url
        """The database that holds both the journal and the queue."""
        self.in_flight: set[asyncio.Task[Any]] = set()
        """The jobs of its worker that are in flight."""
        self._is_cut_off = False
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
        # Procrastinate leaves retrying the jobs of stalled workers to a task such as this one, from its manual.
        lock = f"{_QUEUE}.retry_stalled"
        retry_stalled = self.task(name=lock, queue=_QUEUE, queueing_lock=lock, priority=1)
        self.periodic(cron="* * * * * */10")(retry_stalled(self._retry_stalled))

    async def run_worker_async(self, **kwargs: "Unpack[WorkerOptions]") -> None:
        """Run a worker with a client of its own, until it is stopped. It waits for a database that is away.

        Raises `JournalError` if the journal belongs to another endpoint or key than the client's.
        """
        async with self._make_client() as client, Journal(self.journal_url) as journal:
            self._api = client
            self._run = await journal.begin(client.account, retry_not_created=False)
            while not await self._work(kwargs):
                _log.error("the worker lost its database, and restarts")
                await asyncio.sleep(_RESTART_WAIT)

    async def _work(self, options: "WorkerOptions") -> bool:
        """Run procrastinate's worker. Returns `False` if it lost its database."""
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
                raise queue.failure(error) from error
            return False
        return not options.get("wait", True)

    def defer_requests(self, connection: object, queued: "Sequence[Record]", pending: "Sequence[Record]") -> int:
        """Make jobs for records that have none, in the transaction of psycopg's connection.

        Returns how many. Raises `JournalError`.
        """
        job = Job(task_name=self._task, queue=_QUEUE, lock=None, queueing_lock=None)
        return queue.defer(connection, job, queued, pending)

    async def count_workers(self) -> int:
        """Count the workers with a heartbeat in the last 30 s. Raises `JournalError`, also if there is no queue."""
        return await asyncio.to_thread(queue.count_workers, postgresql_conninfo(self.journal_url))

    def cancel_in_flight(self) -> None:
        """Cancel the jobs in flight: requests that were sent become unknown, all others are queued again."""
        self._is_cut_off = True
        for task in self.in_flight:
            task.cancel()

    async def _create_persona(self, context: JobContext, key: str, body: str) -> None:
        def is_shutdown() -> bool:
            return self._is_cut_off or context.abort_reason() is AbortReason.SHUTDOWN

        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.in_flight.add(task)
        try:
            await deliver(self._api.send, self._run, key, body, attempts=context.job.attempts, is_shutdown=is_shutdown)
        finally:
            self.in_flight.discard(task)

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
