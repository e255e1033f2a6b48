"""Many requests through one client: read lazily, sent as slots are free, returned as they complete, one outcome each.

It knows a journal only by the protocols below, and nothing of HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import NotRequired, Protocol, Self, TypedDict, Unpack, cast, runtime_checkable

import attrs

from suno_persona._engine import Account, Call, Engine
from suno_persona.errors import InvalidRequestError, JournalError, OutcomeUnknownError, PersonaError
from suno_persona.models import CreatePersonaRequest, Outcome, Persona


class Recorded(Protocol):
    """What a journal holds of a request."""

    @property
    def request_id(self) -> str | None:
        """The service's id of the exchange."""

    def result(self) -> Persona:
        """Return the recorded persona, or raise the recorded error."""
        ...


class Ending(TypedDict):
    """How a call ended, beside its result."""

    may_have_created: bool
    """Whether a persona may exist, where the result itself does not say."""

    request_id: str | None
    """The service's id of the exchange."""

    document: NotRequired[bytes | None]
    """The persona's document as received, where it need not be written anew."""


class Run(Protocol):
    """One run of a batch over a journal."""

    def key(self, body: bytes) -> str:
        """Return the key of the next request, by its wire body."""
        ...

    async def claim(self, key: str, body: bytes) -> Recorded | None:
        """Commit that a request is about to be sent; or return what is recorded, and it must not be sent.

        Where the caller is cancelled meanwhile, the claim is settled as not created.
        """

    def settle(self, key: str, result: Persona | BaseException, **ending: Unpack[Ending]) -> Awaitable[Recorded | None]:
        """Commit the outcome of a claimed request, also where nobody awaits that.

        What it returns is recorded instead, where the outcome is no persona: another claim may have created one.
        """
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

    async def begin(self, account: Account) -> Run:
        """Begin a run over a batch. Raises `JournalError` where it belongs to another service or account."""
        ...


@attrs.frozen(eq=False)
class Sent:
    """How a call ended, and the commit of that."""

    result: Persona | BaseException
    """The persona, or the error or cancellation."""

    request_id: str | None
    committed: Awaitable[Recorded | None] | None
    """What `Run.settle` returned; `None` where there is nothing new to commit."""


async def send_recorded(engine: Engine, run: Run | None, key: str | None, call: Call) -> Sent:
    """Claim a request, send it, and begin to commit its outcome, unless its outcome is recorded already.

    Raises `JournalError` where the claim cannot be committed: nothing was sent.
    """
    recorded: Recorded | None = None
    is_claimed = False

    async def claim() -> Persona | None:
        nonlocal recorded, is_claimed
        if run is None or key is None:
            return None
        recorded = await run.claim(key, call.body)
        is_claimed = recorded is None
        return None if recorded is None else recorded.result()

    result: Persona | BaseException
    try:
        result = await engine.create(call, claim)
    except JournalError:
        raise
    except BaseException as error:  # a cancellation too: what was in flight is recorded
        result = error
    ident = recorded.request_id if recorded is not None else engine.request_id(call)
    if run is None or key is None or not is_claimed:
        return Sent(result, ident, None)
    return Sent(result, ident, settle(run, key, call, result, ident))


def settle(
    run: Run, key: str, call: Call, result: Persona | BaseException, request_id: str | None
) -> Awaitable[Recorded | None]:
    """Commit how a call ended."""
    return run.settle(
        key,
        result,
        may_have_created=call.may_have_created,
        request_id=request_id,
        document=call.document,
    )


class Batch:
    """One run over many requests: inside `async with`, an async iterator over their outcomes.

    At most `max_buffered` requests are read from the source and not yet returned as outcomes.
    """

    def __init__(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        engine: Engine,
        *,
        max_buffered: int,
        journal: BatchJournal | None,
    ) -> None:
        if not isinstance(requests, Iterable | AsyncIterable):
            message = f"requests must be an iterable of CreatePersonaRequest; got a {type(requests).__name__}"
            raise InvalidRequestError(message=message)
        self._requests = requests
        self._engine = engine
        self._buffer = asyncio.Semaphore(max_buffered)
        self._journal = journal
        self._run: Run | None = None
        self._calls: dict[asyncio.Task[None], Call | None] = {}  # `None`: it has a result, which is being committed
        self._outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue()
        self._is_fed = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._cancellations = 0  # of the reader, before it asked for the next outcome

    async def __aenter__(self) -> Self:
        if self._journal is not None:
            await self._journal.__aenter__()
            try:
                self._run = await self._journal.begin(self._engine.account)
            except BaseException as error:
                await self._journal.__aexit__(type(error), error, error.__traceback__)
                raise
        self._feeder = asyncio.create_task(self._feed())
        self._feeder.add_done_callback(self._ended)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        self._cancellations = _cancellations()
        outcome = await self._outcomes.get()
        if outcome is not None:
            self._buffer.release()
            return outcome
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait for the calls in flight; where the reader was cancelled, cancel them first."""
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
        if self._journal is not None:
            await self._journal.__aexit__(kind, error, traceback)
        if interrupted is not None:
            raise interrupted

    def stop(self) -> None:
        """Send nothing more. Calls in flight finish and have their outcomes."""
        self._stopped = True
        self._feeder.cancel()
        for task, call in self._calls.items():
            if call is not None:
                call.may_retry = False
                if not call.may_have_created:
                    task.cancel()

    def cancel(self) -> None:
        """Send nothing more, and cancel the calls in flight. Their outcomes are unknown."""
        self.stop()
        for task, call in self._calls.items():
            if call is not None:
                task.cancel()

    async def _feed(self) -> None:
        index = 0
        async with aclosing(each(self._requests)) as requests:
            async for request in requests:
                await self._buffer.acquire()
                if self._stopped:  # a source may go on although it was cancelled
                    break
                self._start(index, request)
                index += 1

    def _start(self, index: int, request: CreatePersonaRequest) -> None:
        try:
            call = Call(request)
        except InvalidRequestError as error:
            self._outcomes.put_nowait(Outcome(index, request, None, error))
            return
        key = None if self._run is None else self._run.key(call.body)
        task = asyncio.create_task(self._create(index, key, call))
        self._calls[task] = call
        task.add_done_callback(self._ended)

    async def _create(self, index: int, key: str | None, call: Call) -> None:
        """Take a call to its outcome. What no outcome can express is raised: it ends the batch."""
        sent = await send_recorded(self._engine, self._run, key, call)
        self._calls[cast("asyncio.Task[None]", asyncio.current_task())] = None
        result = sent.result
        if isinstance(result, asyncio.CancelledError) and call.may_have_created:
            result = OutcomeUnknownError(
                message="cancelled while in flight", request=call.request, attempts=call.attempts
            )
        ident = sent.request_id
        try:
            if sent.committed is not None and (recorded := await sent.committed) is not None:
                result, ident = _result(recorded, result), recorded.request_id
        finally:  # an outcome that cannot be recorded is returned all the same
            if isinstance(result, Persona):
                self._outcomes.put_nowait(Outcome(index, call.request, result, None, key, ident))
            elif isinstance(result, PersonaError):
                ident = getattr(result, "request_id", None)
                self._outcomes.put_nowait(Outcome(index, call.request, None, result, key, ident))
        if not isinstance(result, Persona | PersonaError):
            raise result

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Note that a call or the feeder ended. The first failure stops the feeder, and is raised after the others."""
        self._calls.pop(task, None)
        failure: BaseException | None = None
        if not task.cancelled():
            failure = task.exception()
        elif not self._stopped:
            failure = asyncio.CancelledError()  # the source raised it
        if task is self._feeder:
            self._is_fed = True
            if self._stopped:  # how a source ends that was cancelled is of no interest
                failure = None
        if self._failure is None and failure is not None:
            self._failure = failure
            self._stopped = True
            self._feeder.cancel()
        if self._is_fed and not self._calls:
            self._outcomes.put_nowait(None)


def _result(recorded: Recorded, own: Persona | BaseException) -> Persona | PersonaError:
    """Return what is recorded instead of a call's own result."""
    try:
        return recorded.result()
    except PersonaError as error:
        error.__cause__ = own if isinstance(own, BaseException) else None
        return error


async def each(
    requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
) -> AsyncGenerator[CreatePersonaRequest, None]:
    """Yield from either kind of iterable; a source that is an async generator is closed at the end."""
    if isinstance(requests, AsyncIterable):
        try:
            async for request in requests:
                yield request
        finally:
            if isinstance(requests, AsyncGenerator):
                await requests.aclose()
    else:
        for request in requests:
            yield request


def _cancellations() -> int:
    """Return how often the current task was cancelled; a cancellation that it swallowed counts for ever."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
