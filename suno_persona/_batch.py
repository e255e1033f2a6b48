"""Many requests through one client: fed lazily, reported in completion order, one outcome each.

It knows neither how a request is sent nor how a journal keeps its record.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

import attrs

from suno_persona._engine import Call
from suno_persona.errors import InvalidRequestError, JournalError, PersonaError, UsageError
from suno_persona.models import CreatePersonaRequest, Persona

if TYPE_CHECKING:
    from suno_persona.journal import Journal, Run


@attrs.frozen
class Outcome:
    """What became of one request of a batch: a persona, or the error that `create` would have raised."""

    index: int
    """The place of the request in the batch, from 0 on."""

    request: CreatePersonaRequest
    """The request as it was given."""

    persona: Persona | None = None
    """The persona; `None` where there is an error."""

    error: PersonaError | None = None
    """What went wrong; `None` where there is a persona."""

    def __attrs_post_init__(self) -> None:
        if (self.persona is None) is (self.error is None):
            raise UsageError(message="an Outcome has either a persona or an error")

    def result(self) -> Persona:
        """Give the persona, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.persona is not None  # noqa: S101 - for type checkers
        return self.persona


Send: TypeAlias = Callable[[Call], Awaitable[Persona]]
"""Sends one request, and gives the persona or raises."""


class Batch:
    """One run over many requests: inside `async with`, an async iterator over their outcomes.

    Each call holds one of the client's `turns`. `ahead` bounds the calls under way and the outcomes not yet read,
    taken together.
    """

    def __init__(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        send: Send,
        *,
        turns: asyncio.Semaphore,
        ahead: int,
        journal: "Journal | None",
    ) -> None:
        if not isinstance(requests, Iterable | AsyncIterable):
            message = f"requests: expected an iterable of CreatePersonaRequest, found a {type(requests).__name__}"
            raise InvalidRequestError(message=message)
        self._requests = requests
        self._send = send
        self._turns = turns
        self._room = asyncio.Semaphore(ahead)
        self._journal = journal
        self._run: Run | None = None
        self._count = 0
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._finished: asyncio.Queue[Outcome | None] = asyncio.Queue()
        self._holding: set[Call] = set()  # calls that have a turn
        self._fed = False
        self._stopped = False
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        if self._journal is not None:
            await self._journal.__aenter__()
            self._run = self._journal.run()
        self._feeder = asyncio.create_task(self._feed())
        self._feeder.add_done_callback(self._ended)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        outcome = await self._finished.get()
        if outcome is not None:
            self._room.release()
            return outcome
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait for the requests that are out, unless the reader was cancelled."""
        task = asyncio.current_task()
        try:
            self.stop(hurry=task is not None and task.cancelling() > 0)
            await asyncio.wait([self._feeder, *self._calls])
        except asyncio.CancelledError:
            self.stop(hurry=True)
            await asyncio.wait([self._feeder, *self._calls])
            raise
        finally:
            if self._journal is not None:
                await self._journal.__aexit__(kind, error, traceback)

    def stop(self, *, hurry: bool = False) -> None:
        """Send nothing more. Requests that are out are finished and have their outcomes, unless in a hurry."""
        self._stopped = True
        self._feeder.cancel()
        for task, call in self._calls.items():
            call.may_repeat = False
            if hurry or not call.may_have_created:
                task.cancel()

    async def _feed(self) -> None:
        if isinstance(self._requests, AsyncIterable):
            async for request in self._requests:
                await self._start(request)
        else:
            for request in self._requests:
                await self._start(request)

    async def _start(self, request: CreatePersonaRequest) -> None:
        """Start a call when there is room and a turn for it."""
        index = self._count
        self._count += 1
        await self._room.acquire()
        try:
            call = Call(request)
        except InvalidRequestError as error:
            self._finished.put_nowait(Outcome(index, request, None, error))
            return
        if self._run is not None:
            call.key = self._run.key(call)
        await self._turns.acquire()
        self._holding.add(call)
        task = asyncio.create_task(self._take(index, call))
        self._calls[task] = call
        task.add_done_callback(self._ended)

    async def _take(self, index: int, call: Call) -> None:
        """See a call through to its outcome. What no outcome can tell is raised: it ends the batch."""
        try:
            persona = await (self._send(call) if self._run is None else self._run.send(call, self._send))
            outcome = Outcome(index, call.request, persona, None)
        except JournalError:
            raise
        except PersonaError as error:
            error.request = call.request
            outcome = Outcome(index, call.request, None, error)
        finally:
            self._give_turn_back(call)
        try:
            if self._run is not None:
                await self._run.recorded(call)
        finally:
            self._finished.put_nowait(outcome)  # also where it cannot be recorded, so that it is not lost

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A call or the feeder ended. The first failure stops the feeder; the end is told when all are through."""
        failure: BaseException | None = None
        if not task.cancelled():
            failure = task.exception()
        elif not self._stopped and self._failure is None:
            failure = asyncio.CancelledError()  # the source raised it
        if self._failure is None and failure is not None:
            self._failure = failure
            self._feeder.cancel()
        if task is self._feeder:
            self._fed = True
        else:
            self._give_turn_back(self._calls.pop(task))
        if self._fed and not self._calls:
            self._finished.put_nowait(None)

    def _give_turn_back(self, call: Call) -> None:
        """Free a call's turn, once: a task that is cancelled before it begins does nothing itself."""
        if call in self._holding:
            self._holding.remove(call)
            self._turns.release()
