"""Processes that enqueue a batch, workers that run its jobs, and processes that wait for the outcomes."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from simulation.invariants import named
from simulation.processes import Client, engine
from simulation.queue import Job, QueueError
from simulation.world import Process, World
from suno_persona import CreatePersonaRequest, NotCreatedError, distributed
from suno_persona._engine import Engine
from suno_persona.distributed._job import Redeliver, deliver
from suno_persona.journal import Journal
from suno_persona.journal._writer import Run


def _app(world: World) -> Any:
    return SimpleNamespace(journal_url="journal", defer_requests=lambda _, *records: world.store.queue.defer(*records))


class Enqueuer(Process):
    """A process that enqueues a batch."""

    def __init__(
        self, world: World, name: str, requests: Sequence[CreatePersonaRequest], *, retry_not_created: bool
    ) -> None:
        super().__init__(world, name)
        self._requests = requests
        self._retry_not_created = retry_not_created
        self.start(self._run())

    async def _run(self) -> None:
        await distributed.enqueue(_app(self.world), self._requests, retry_not_created=self._retry_not_created)


class Results(Process):
    """A process that waits for the outcomes."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.yielded = 0
        self.start(self._run())

    async def _run(self) -> None:
        async for outcome in distributed.outcomes(_app(self.world), poll_interval=1000.0):
            self.yielded += 1
            self.world.checks.outcome(self, outcome)


class Worker(Process):
    """A worker process: it runs jobs until there are none."""

    def __init__(self, world: World, name: str, client: Client, *, ahead: float = 0.0) -> None:
        super().__init__(world, name, ahead=ahead)
        self._client = client
        self._deliveries: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[None], None] = {}  # the deliveries that have started
        self._is_shutdown = False
        self._is_misplaced = False
        self.start(self._run())

    def stop(self) -> None:
        """Shut down, and cancel the running jobs."""
        self.world.note(self, "shuts down")
        self._is_shutdown = True
        for task in list(self._running):
            task.cancel()

    def cancel(self) -> None:
        """Abort one job."""
        if self._running:
            task = min(self._running, key=lambda task: self.keys[task])
            self.world.note(self, "aborts the job of {}", named(self.keys[task]))
            self.world.store.queue.overlooked.add(self.keys[task])
            task.cancel()

    async def _run(self) -> None:
        client, queue = self._client, self.world.store.queue
        sender = engine(client)
        async with Journal("journal", accept_new_key=client.accept_new_key) as journal:
            run = await journal.begin(sender.account, retry_not_created=False)
            while queue.jobs and not self._is_shutdown and not self._is_misplaced:
                job = None
                try:
                    if len(self._deliveries) < client.max_connections:
                        job = await queue.call(self, lambda: queue.fetch(self))
                except QueueError:
                    await self._lose()
                    continue
                if job is not None and not self._is_shutdown:
                    self._deliver(run, sender, job)
                elif self._deliveries:
                    await asyncio.wait(self._deliveries, timeout=queue.wait(), return_when="FIRST_COMPLETED")
                elif not self._is_misplaced:
                    await asyncio.sleep(queue.wait())
            while self._deliveries:
                await asyncio.wait(self._deliveries)

    def _check(self, key: str, redeliver: Redeliver) -> None:
        """Check that a job to be delivered again may be sent then."""
        record, fate = self.world.store.records[key], self.world.checks.fate(key)
        is_mine = fate.holders.get(record.holder) is self and not fate.was_given_up
        if record.state == "not_created" and is_mine and isinstance(redeliver.__cause__, NotCreatedError):
            self.world.checks.fail(f"{self}: {named(key)} is to be delivered again, and is not created")

    async def _lose(self) -> None:
        """Restart procrastinate's worker: it sends no more heartbeats for the jobs that it had fetched."""
        self.world.note(self, "lost the queue's database, and restarts")
        for job in self.world.store.queue.jobs:
            if job.worker is self and job.lost is None:
                job.lost = self.world.now
        await asyncio.sleep(1)

    def _deliver(self, run: Run, sender: Engine, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(self._run_job(run, sender, job, job.attempts))
        self.keys[task] = job.key
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _run_job(self, run: Run, sender: Engine, job: Job, attempts: int) -> None:
        task: Any = asyncio.current_task()
        self._running[task] = None
        wait: float | None = None
        try:
            await deliver(sender.send, run, job.key, job.body, attempts=attempts, is_shutdown=lambda: self._is_shutdown)
        except Redeliver as redeliver:
            wait = redeliver.wait
            # It began before any claim, and so it could not fail at once: its operator stops it.
            self._is_misplaced = "belongs to" in str(redeliver.__cause__)
            self._check(job.key, redeliver)
        except asyncio.CancelledError:
            if self._is_shutdown:
                self.world.checks.fail(f"{self}: a shutdown ends the job of {named(job.key)}")
        del self._running[task]
        queue = self.world.store.queue
        end = asyncio.ensure_future(
            queue.call(self, (lambda: queue.finish(job)) if wait is None else lambda: queue.retry(job, wait))
        )
        await asyncio.wait([end])
        if end.exception() is not None and job.worker is self and job.lost is None:
            job.lost = self.world.now
