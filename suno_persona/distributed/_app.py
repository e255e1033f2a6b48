"""The procrastinate app: its jobs, its worker, and what the worker does when the database goes away."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Unpack, cast

import psycopg
from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.signals import on_stop

from suno_persona._client import PersonaAPI
from suno_persona.distributed._job import Deliveries, GiveBack
from suno_persona.errors import JournalError
from suno_persona.journal import Journal
from suno_persona.journal.database import postgresql_conninfo

if TYPE_CHECKING:
    from procrastinate.app import WorkerOptions

_QUEUE = "suno_persona"
_BEGIN_AGAIN = 1  # seconds
_LIVE = """
    SELECT queueing_lock FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = ANY(%(keys)s)
    UNION ALL
    SELECT queueing_lock FROM procrastinate_jobs WHERE status = 'doing' AND queueing_lock = ANY(%(keys)s)
"""
_log = logging.getLogger("suno_persona")


class PersonaApp(App):
    """A procrastinate app whose task creates personas; `make_app` makes one."""

    _deliveries: "Deliveries"  # while a worker runs

    def __init__(
        self,
        journal_url: str,
        make_client: Callable[[], PersonaAPI],
        *,
        concurrency: int,
        stalled_worker_timeout: int,
    ) -> None:
        self.journal_url: str = journal_url
        """The database that holds both the journal and the queue."""
        self._make_client = make_client
        self._dead_after = stalled_worker_timeout
        super().__init__(
            connector=PsycopgConnector(conninfo=postgresql_conninfo(journal_url), min_size=1, max_size=4, timeout=10),
            worker_defaults={
                "concurrency": concurrency,
                "queues": [_QUEUE],
                "delete_jobs": "successful",  # the journal has what came of them
                "update_heartbeat_interval": min(10, stalled_worker_timeout / 3),
                "stalled_worker_timeout": stalled_worker_timeout,
            },
        )
        task = self.task(name=f"{_QUEUE}.create_persona", queue=_QUEUE, pass_context=True, retry=GiveBack())
        self._task = task(self._create_persona).name
        # Procrastinate takes up the jobs of dead workers where a task asks it to, as its manual describes.
        lock = f"{_QUEUE}.retry_stalled"
        retry_stalled = self.task(name=lock, queue=_QUEUE, queueing_lock=lock, priority=1)
        self.periodic(cron="* * * * * */10")(retry_stalled(self._retry_stalled))

    async def run_worker_async(self, **kwargs: "Unpack[WorkerOptions]") -> None:
        """Run a worker with a client of its own, until it is told to stop; a database that is away is waited for."""
        async with self._make_client() as client, Journal(self.journal_url) as journal:
            self._deliveries = Deliveries(client, journal.run(resend_refused=False))
            while not await self._work(kwargs):
                _log.error("the worker lost its database, and begins again")
                await asyncio.sleep(_BEGIN_AGAIN)

    async def _work(self, options: "WorkerOptions") -> bool:
        """Run procrastinate's worker. False: it lost its database."""
        # It then ends as one that was told to stop, and so we tell it by cancelling it, which lets its jobs finish.
        own_signals: WorkerOptions = {**options, "install_signal_handlers": False}
        worker = asyncio.create_task(super().run_worker_async(**own_signals))
        is_told = False

        def stop() -> None:
            nonlocal is_told
            is_told = True
            worker.cancel()

        try:
            with on_stop(stop) if options.get("install_signal_handlers", True) else nullcontext():
                await worker
        except (ConnectorException, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            if is_told:
                return True  # pragma: no cover (a process that is told to stop; not each lives to write its coverage)
            if not isinstance(error.__cause__, psycopg.OperationalError):
                raise _queue_failure(error) from error
            return False
        return not options.get("wait", True)

    async def defer_requests(self, connection: object, bodies: Mapping[str, str]) -> int:
        """Make jobs for these keys and wire bodies, where they have none, in the transaction of psycopg's connection.

        Gives how many. Raises `JournalError` where there is no queue.
        """
        job = Job(task_name=self._task, queue=_QUEUE, lock=None, queueing_lock=None)
        transaction = cast("psycopg.AsyncConnection", connection)
        try:
            rows = await transaction.execute(_LIVE, {"keys": list(bodies)})
            live = {key for (key,) in await rows.fetchall()}
            jobs = [
                job.evolve(queueing_lock=key, task_kwargs={"key": key, "body": body})
                for key, body in bodies.items()
                if key not in live
            ]
            if jobs:
                await self.job_manager.batch_defer_jobs_async(jobs, connection=transaction)
        except (ConnectorException, psycopg.Error) as error:
            raise _queue_failure(error) from error
        return len(jobs)

    async def _create_persona(self, context: JobContext, key: str, body: str) -> None:
        await self._deliveries.deliver(context, key, body)

    async def _retry_stalled(self, timestamp: int) -> None:
        stalled = await self.job_manager.get_stalled_jobs(queue=_QUEUE, seconds_since_heartbeat=self._dead_after)
        for job in stalled:
            with suppress(ConnectorException):  # it has ended meanwhile
                await self.job_manager.retry_job(job)


def _queue_failure(error: BaseException) -> JournalError:
    words = str(error.__cause__ or error).partition("\n")[0]
    hint = "; its tables are made by `procrastinate --app=suno_persona.distributed.app schema --apply`"
    is_missing = isinstance(error.__cause__ or error, psycopg.ProgrammingError)
    return JournalError(message=f"the queue cannot be read or written: {words}{hint if is_missing else ''}")
