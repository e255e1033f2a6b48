"""Many requests through one client: read lazily, sent as the window allows, yielded as they complete.

It knows a journal only by the protocols below, and nothing of HTTP.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Protocol, Self, TypeAlias, runtime_checkable

from suno_persona._engine import Account, Call, Engine, not_sent
from suno_persona._response import Ended
from suno_persona._retry import window_after
from suno_persona.conversion import dump_request
from suno_persona.errors import InvalidRequestError, NotCreatedError
from suno_persona.models import CreatePersonaRequest, Outcome, Persona

Requests: TypeAlias = Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest]

_log = logging.getLogger("suno_persona")


class BatchRun(Protocol):
    """One run of a batch over a journal. Cancelling a caller undoes no commit: the returned value says so."""

    def key(self, body: bytes) -> str:
        """Return the key of the next request, by its wire body."""
        ...

    async def claim(self, key: str, body: bytes) -> Ended | None:
        """Commit that a request is about to be sent. Returns how its call ended if it must not be sent."""
        ...

    async def settle(self, key: str, ended: Ended) -> Ended:
        """Commit how a claimed call ended. Returns that, or the recorded outcome if there may be a persona."""
        ...


@runtime_checkable
class BatchJournal(Protocol):
    """A journal, as `create_many` uses it: `suno_persona.journal.Journal` is one."""

    async def __aenter__(self) -> object:
        """Open it."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""

    async def begin(self, account: Account) -> BatchRun:
        """Begin a run over a batch. Raises `JournalError` if it belongs to another service or account."""
        ...


class _Gate:
    """Lets calls in while fewer than `limit` are inside; first come, first served."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit, self._inside = limit, 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait until there is room."""
        self._waiting.append(admitted := asyncio.get_running_loop().create_future())
        self.wake()
        try:
            await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled():  # admitted at the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Make room."""
        self._inside -= 1
        self.wake()

    def wake(self) -> None:
        """Let in whoever may enter now."""
        while self._waiting and self._inside < self._limit():
            if not (admitted := self._waiting.popleft()).done():
                self._inside += 1
                admitted.set_result(None)


class Batch:
    """One run over many requests: inside `async with`, an async iterator over their outcomes.

    At most `2 * max_connections` requests are read from the source and not yet returned as outcomes. One call is in
    flight at first, and more as personas are created: see `window_after`.
    """

    def __init__(
        self, requests: Requests, engine: Engine, *, max_connections: int, journal: BatchJournal | None
    ) -> None:
        if not isinstance(requests, Iterable | AsyncIterable):
            message = f"requests must be an iterable of CreatePersonaRequest; got a {type(requests).__name__}"
            raise InvalidRequestError(message=message)
        self._requests, self._engine, self._journal = requests, engine, journal
        self._run: BatchRun | None = None
        self._max_connections, self._window = max_connections, 1
        self._buffer = asyncio.Semaphore(2 * max_connections)
        # A quarter more calls are claimed than are in flight, so that a free slot finds one whose claim is committed.
        # Not many more: the outcome of each is unknown once the process is killed.
        self._claims = _Gate(lambda: self._window + self._window // 4)
        self._flights = _Gate(lambda: self._window)
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue()
        self._is_fed = self._is_stopped = False
        self._failure: BaseException | None = None
        self._cancellations = 0  # of the reader, before it asked for the next outcome

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._journal is not None:
                await stack.enter_async_context(self._journal)
                self._run = await self._journal.begin(self._engine.account)
            self._opened = stack.pop_all()
        self._feeder = asyncio.create_task(self._feed())
        self._feeder.add_done_callback(self._note_end)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        self._cancellations = _cancellations()
        outcome = await self._outcomes.get()
        if outcome is None:
            raise self._failure or StopAsyncIteration
        self._buffer.release()
        return outcome

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait for the calls in flight; if the reader was cancelled, cancel them first."""
        if _cancellations() > self._cancellations:
            self.cancel()
        else:
            self.stop()
        interrupted: asyncio.CancelledError | None = None
        while running := [task for task in (self._feeder, *self._calls) if not task.done()]:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as cancellation:
                interrupted = cancellation
                self.cancel()
        await self._opened.aclose()
        while not self._outcomes.empty():
            outcome = self._outcomes.get_nowait()
            # A journal has the outcomes, unless it failed.
            if outcome is not None and (self._journal is None or self._failure is not None):
                _warn(outcome)
        if interrupted is not None:
            raise interrupted

    def stop(self) -> None:
        """Start no more requests. Calls in flight finish and have their outcomes."""
        self._is_stopped = True
        self._feeder.cancel()
        for task, call in self._calls.items():
            call.may_retry = False
            if call.is_waiting:
                task.cancel()

    def cancel(self) -> None:
        """Start no more requests, and cancel the calls in flight. Their outcomes are unknown."""
        self.stop()
        for task in self._calls:
            task.cancel()

    @property
    def in_flight(self) -> int:
        """How many requests are being sent."""
        return sum(not call.is_waiting for call in self._calls.values())

    async def _feed(self) -> None:
        async with aclosing(each(self._requests)) as requests:
            index = 0
            async for request in requests:
                await self._buffer.acquire()
                await self._claims.enter()
                if self._is_stopped:  # a source may go on although it was cancelled
                    break
                try:
                    call = Call(request)
                except InvalidRequestError as error:
                    self._claims.leave()
                    self._outcomes.put_nowait(Outcome(index, request, None, error))
                else:
                    key = None if self._run is None else self._run.key(dump_request(request))
                    task = asyncio.create_task(self._create(index, call, key))
                    self._calls[task] = call
                    task.add_done_callback(self._note_end)
                index += 1

    async def _create(self, index: int, call: Call, key: str | None) -> None:
        """Claim, send and record. Raises `JournalError`, which ends the batch."""
        run, recorded = self._run, None
        try:
            if run is not None and key is not None:
                recorded = await run.claim(key, dump_request(call.request))
            ended = recorded or await self._send(call)
            if ended.is_recorded and isinstance(ended.result, Persona):
                self._window = window_after(self._window, self._max_connections, ended.result)
                self._flights.wake()
        finally:
            self._claims.leave()
        try:
            if run is not None and key is not None and not ended.is_recorded:
                ended = await run.settle(key, ended)
        finally:  # an outcome that cannot be recorded is returned all the same
            if ended.cancellation is None or not isinstance(ended.result, NotCreatedError):
                self._outcomes.put_nowait(ended.outcome(index, call.request, key))

    async def _send(self, call: Call) -> Ended:
        try:
            await self._flights.enter()
        except asyncio.CancelledError as cancellation:
            return not_sent(call.request, cancellation)
        try:
            ended = await self._engine.send(call)
            # Before the slot is free, or the next call would start by the old window.
            self._window = window_after(self._window, self._max_connections, ended.result)
            return ended
        finally:
            self._flights.leave()

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        """Note that a call or the feeder ended. The first failure stops the feeder, and is raised after the others."""
        self._calls.pop(task, None)
        failure: BaseException | None = None
        if not task.cancelled():
            failure = task.exception()
        elif not self._is_stopped:
            failure = asyncio.CancelledError()  # the source raised it
        if task is self._feeder:
            self._is_fed = True
            if self._is_stopped:  # how a source ends that was cancelled is of no interest
                failure = None
        if self._failure is None and failure is not None:
            self._failure, self._is_stopped = failure, True
            self._feeder.cancel()
        if self._is_fed and not self._calls:
            self._outcomes.put_nowait(None)


async def each(requests: Requests) -> AsyncGenerator[CreatePersonaRequest, None]:
    """Yield from either kind of iterable; a source that is an async generator is closed at the end."""
    if not isinstance(requests, AsyncIterable):
        for request in requests:
            yield request
        return
    try:
        async for request in requests:
            yield request
    finally:
        if isinstance(requests, AsyncGenerator):
            await requests.aclose()


def _warn(outcome: Outcome) -> None:
    """Log the id of a persona that nobody else will see."""
    found = outcome.persona.id if outcome.persona else getattr(outcome.error, "persona_id", None)
    if found is not None:
        _log.warning("persona %s was created, and its outcome was not read", found)


def _cancellations() -> int:
    """Return how often the current task was cancelled; a cancellation that it swallowed counts for ever."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
