"""The simulated queue: like procrastinate, it delivers a job at least once, and again if its worker stalls."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from simulation.invariants import named
from suno_persona.journal._states import Record

if TYPE_CHECKING:
    from simulation.world import Process, World

STALLED_AFTER = 300.0  # seconds without a heartbeat


class QueueError(Exception):
    """The queue cannot be read or written, or a job no longer exists."""


@attrs.define(eq=False)
class Job:
    """One job."""

    key: str
    body: str
    due: float
    attempts: int = 0
    worker: "Process | None" = None
    """The worker that has fetched it."""
    lost: float | None = None
    """When its worker restarted, which made it another worker."""

    def silent_since(self) -> float | None:
        """Return the time of its worker's last heartbeat, or None while heartbeats continue."""
        return None if self.worker is None else self.lost if self.lost is not None else self.worker.silent_since


class Queue:
    """The unfinished jobs."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.jobs: list[Job] = []
        self.overlooked: set[str] = set()
        """Requests that may be pending without a job until they are enqueued again: the job was aborted by hand, or was
        about to end when a batch had claimed the request."""

    def defer(self, queued: Sequence[Record], pending: Sequence[Record]) -> int:
        """Create jobs for records that have none, within the journal's transaction."""
        todo = {job.key for job in self.jobs if job.worker is None}
        doing = {job.key for job in self.jobs if job.worker is not None}
        new = [record for record in queued if record.key not in todo]
        new += [record for record in pending if record.key not in todo | doing]
        self.overlooked |= {record.key for record in pending if record.key in doing}
        self.jobs += [Job(record.key, record.body, self.world.now) for record in new]
        return len(new)

    def fetch(self, worker: "Process") -> Job | None:
        """Return a job that is due; first, requeue the jobs of stalled workers."""
        self._retry_stalled()
        now = self.world.now
        for job in self.jobs:
            if job.worker is None and job.due <= now:
                job.worker = worker
                self.world.note(worker, "fetches {}, delivery {}", named(job.key), job.attempts + 1)
                return job
        return None

    def finish(self, job: Job) -> None:
        """End a job, whichever worker has it by now."""
        if job not in self.jobs:
            raise QueueError
        self.jobs.remove(job)

    def retry(self, job: Job, wait: float) -> None:
        """Deliver a job again after this many seconds, whichever worker has it by now."""
        if job not in self.jobs or job.worker is None:
            raise QueueError
        job.worker = job.lost = None
        job.attempts += 1
        job.due = self.world.now + wait

    def _retry_stalled(self) -> None:
        for job in self.jobs:
            since = job.silent_since()
            if since is not None and self.world.now - since >= STALLED_AFTER:
                self.world.note("queue", "takes {} from {}", named(job.key), job.worker)
                self.retry(job, 0)

    def wait(self) -> float:
        """Return the seconds until there may be something to do if no other process acts."""
        now, waits = self.world.now, [60.0]
        for job in self.jobs:
            since = job.silent_since()
            if job.worker is None:
                waits.append(job.due - now)
            elif since is not None:
                waits.append(since + STALLED_AFTER - now)
        return max(min(waits), 0.01)

    async def call(self, process: "Process", function: Callable[[], Any]) -> Any:
        """Call a function of the queue's database for a process; it may fail before and after its commit."""
        future = process.loop.create_future()
        world = self.world

        def work() -> None:
            if not process.is_alive and world.random() < 0.5:
                return
            fails, is_early = world.random() < world.store.failing, world.random() < 0.5
            result: Any = QueueError()
            if not (fails and is_early):
                try:
                    result = function()
                except QueueError as error:
                    result = error
                if fails:
                    result = QueueError()
            world.actions.append(lambda: deliver(result))

        def deliver(result: Any) -> None:
            if process.is_alive and not future.done():
                if isinstance(result, QueueError):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        world.actions.append(work)
        return await future
