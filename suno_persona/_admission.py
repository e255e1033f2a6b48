"""When a call may send: its slot, the shared cool-down, and the rate limit. Knows nothing of HTTP.

While the service accepts everything and a slot is free, nothing here waits.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import attrs

from suno_persona._retry import RetryPolicy, backoff, cools_down_all
from suno_persona.errors import RateLimitedError, ServiceUnavailableError, UsageError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

Rejection: TypeAlias = RateLimitedError | ServiceUnavailableError

_STALE = -1
"""Instead of a generation: nothing was granted, check again."""


class Admission:
    """Admits the calls of one client.

    A call holds a slot from its first attempt to its last: `async with admission.slots`. Each attempt is admitted
    on its own: `async with admission.attempt(number)`, and how it ends decides what others may do.

    After a 429, or a 503 with `Retry-After`, no attempt starts until the cool-down is over. Then one attempt
    starts, and each response that is no such rejection doubles the limit: no stampede, and nobody starves.
    """

    __slots__ = (
        "_closed",
        "_cool_down_ends",
        "_policy",
        "_rate_limit",
        "_reopening",
        "_sleeping",
        "_waiting",
        "claims",
        "generation",
        "in_flight",
        "limit",
        "max_limit",
        "rejection",
        "slots",
    )

    def __init__(self, max_connections: int, policy: RetryPolicy, rate_limit: "AsyncLimiter | None") -> None:
        self.slots: asyncio.Semaphore = asyncio.Semaphore(max_connections)
        """One for each call in flight; first come, first served."""
        self.claims: asyncio.Semaphore = asyncio.Semaphore(max_connections + max_connections // 4)
        """One for each claim without a result: a quarter more than the slots, so that a free slot finds a call whose
        claim is committed. Not many more: the outcome of each is unknown once the process is killed."""
        self.max_limit: int = max_connections
        """`limit` where no cool-down is in effect."""
        self.limit: int = max_connections
        """How many attempts may be in flight; 0 during a cool-down."""
        self.in_flight: int = 0
        """How many attempts of this generation are; never more than `limit`."""
        self.generation: int = 0
        """Counts the cool-downs: an attempt that was admitted before the last one is stale, and not in `in_flight`."""
        self.rejection: Rejection | None = None
        """The one that began the cool-down in effect; `None` where there is none."""
        self._policy = policy
        self._rate_limit = rate_limit
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._sleeping: set[asyncio.Task[None]] = set()
        self._closed = False
        self._cool_down_ends = 0.0  # by the loop's clock
        self._reopening: asyncio.TimerHandle | None = None

    def attempt(self, number: int) -> "_Attempt":
        """Admit one attempt of a call, the first being 1, while the block runs.

        Raises `UsageError` once closed. Where the cool-down is longer than `wait_max`, raises its rejection again,
        with the seconds that are left: nobody waits that long, and nobody sends.
        """
        return _Attempt(self, number)

    async def acquire(self) -> int:
        """Wait until an attempt may start. Return its generation, for `release`."""
        while True:
            if self._closed:
                raise UsageError(message="the client is closed: make a new PersonaAPI")
            if self.in_flight < self.limit and not self._waiting:
                self.in_flight += 1
                generation = self.generation
            elif (generation := await self._queue()) == _STALE:
                continue
            if self._rate_limit is not None and generation == self.generation:
                try:
                    await self._take_from(self._rate_limit)
                except BaseException:
                    self.release(generation)
                    raise
                if self._closed:
                    self.release(generation)
                    continue
            # A cool-down may have begun meanwhile. What was taken from the rate limit is not saved up for the time
            # after it: all would be sent at once then.
            if generation == self.generation:
                return generation

    def release(self, generation: int, *, responded: bool = False) -> None:
        """End an attempt; `responded` says that the service is up and did not ask to slow down."""
        if generation != self.generation:
            return
        self.in_flight -= 1
        if responded and self.limit < self.max_limit:
            self.limit = min(2 * self.limit, self.max_limit)
        if self._waiting:
            self._admit()

    def cool_down(self, rejection: Rejection, number: int) -> None:
        """Admit no attempt until the backoff after this one is over, as a new generation.

        A cool-down that ends later stays.
        """
        loop = asyncio.get_running_loop()
        wait = backoff(self._policy, rejection, number)
        ends = loop.time() + wait
        self.generation += 1
        self.in_flight = self.limit = 0
        if self._reopening is not None:
            if self._cool_down_ends >= ends:
                return
            self._reopening.cancel()
        self._cool_down_ends = ends
        self.rejection = rejection
        self._reopening = loop.call_at(ends, self._reopen)
        if wait > self._policy.wait_max:
            self._wake_all()

    def remaining(self) -> float:
        """Return the seconds until the cool-down ends; 0 where there is none."""
        return max(0.0, self._cool_down_ends - asyncio.get_running_loop().time())

    async def sleep(self, seconds: float) -> None:
        """Wait before the next attempt of one call; `close` ends it early."""
        await self._until_closed(asyncio.sleep(seconds))

    def close(self) -> None:
        """Admit nobody any more: whoever waits gets a `UsageError` at once."""
        self._closed = True
        self._wake_all()
        for task in self._sleeping:
            task.cancel()
        if self._reopening is not None:
            self._reopening.cancel()

    async def _take_from(self, rate_limit: "AsyncLimiter") -> None:
        if rate_limit.has_capacity():
            await rate_limit.acquire()
        else:
            await self._until_closed(rate_limit.acquire())

    async def _until_closed(self, waiting: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(waiting)
        self._sleeping.add(task)
        if self._closed:
            task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            self._sleeping.discard(task)

    def _reopen(self) -> None:
        self._reopening = self.rejection = None
        self.limit = 1
        self._admit()

    def _wake_all(self) -> None:
        while self._waiting:
            _grant(self._waiting.popleft(), _STALE)

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            if _grant(self._waiting.popleft(), self.generation):
                self.in_flight += 1

    async def _queue(self) -> int:
        if self.rejection is not None and (left := self.remaining()) > self._policy.wait_max:
            raise attrs.evolve(self.rejection, retry_after=left)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():  # admitted at the same moment
                self.release(future.result())
            raise


class _Attempt:
    """One admitted attempt, as an async context manager: its end admits others, or begins a cool-down."""

    __slots__ = ("_admission", "_generation", "_number")

    def __init__(self, admission: Admission, number: int) -> None:
        self._admission = admission
        self._number = number

    async def __aenter__(self) -> None:
        self._generation = await self._admission.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        match error:
            case None:
                self._admission.release(self._generation, responded=True)
            case RateLimitedError() | ServiceUnavailableError():
                if cools_down_all(error):
                    self._admission.cool_down(error, self._number)
                else:
                    self._admission.release(self._generation)
            case _:
                self._admission.release(self._generation, responded=getattr(error, "status", None) is not None)


def _grant(future: asyncio.Future[int], generation: int) -> bool:
    """Return whether anybody still waits for it."""
    if future.done():
        return False
    future.set_result(generation)
    return True
