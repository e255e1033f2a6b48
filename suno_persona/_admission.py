"""When an attempt may start: a free slot, no cool-down, and the rate limit. Knows nothing of HTTP.

A call waits only if no slot is free, the rate limit is used up, or the service asked for a cool-down.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeAlias

import attrs

from suno_persona._retry import RetryPolicy, backoff, cools_down_all
from suno_persona.errors import NotCreatedError, RateLimitedError, ServiceUnavailableError, UsageError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

CLOSED = "the client is closed: make a new PersonaAPI"

_Rejection: TypeAlias = RateLimitedError | ServiceUnavailableError


class Admission:
    """Admits the attempts of one client: `generation = start() or await wait()`, then `end(generation, ...)`.

    At most `max_connections` are in flight; others wait, first come, first served. After a 429, or a 503 with
    `Retry-After`, none starts until the cool-down is over. Then one does, and each response that is no such rejection
    doubles the limit, so that calls resume without a stampede.
    """

    def __init__(self, max_connections: int, policy: RetryPolicy, rate_limit: "AsyncLimiter | None") -> None:
        self._slots = max_connections
        self._in_flight = 0
        # Each cool-down begins a generation. Attempts of older generations hold slots, but do not count in its limit.
        self._generation = 1
        self._limit = max_connections
        self._started = 0
        self._rejection: _Rejection | None = None
        self._cool_down_ends = 0.0  # by the loop's clock
        self._reopening: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._sleeping: set[asyncio.Task[None]] = set()
        self._policy = policy
        self._rate_limit = rate_limit
        self._closed = False

    def start(self) -> int:
        """Return the generation of an attempt that may start at once, or 0 if it must wait."""
        if self._rate_limit is not None or self._waiting or self._closed or not self._has_room():
            return 0
        return self._admit()

    async def wait(self) -> int:
        """Wait until an attempt may start, and return its generation.

        Raises `UsageError` once closed. If a cool-down has more than `wait_max` left, raises the rejection that began
        it, with the seconds that are left.
        """
        while True:
            if self._closed:
                raise UsageError(message=CLOSED)
            if self._rejection is not None and (left := self.remaining()) > self._policy.wait_max:
                raise attrs.evolve(self._rejection, retry_after=left)
            if not self._waiting and self._has_room():
                generation = self._admit()
            else:
                future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                try:
                    generation = await future
                except asyncio.CancelledError:
                    if not future.cancelled() and (generation := future.result()):  # admitted at the same moment
                        self.end(generation)
                    raise
            if generation and self._rate_limit is not None:
                try:
                    await self._until_closed(self._rate_limit.acquire())
                except BaseException:
                    self.end(generation)
                    raise
            # A permit from before a cool-down is not saved for after it: all calls would be sent at once then.
            if generation == self._generation and not self._closed:
                return generation
            if generation:
                self.end(generation)

    def end(self, generation: int, result: object = None, attempt: int = 1) -> None:
        """End an attempt with its persona or error, or with `None` if it was not made. The first of a call is 1."""
        self._in_flight -= 1
        if cools_down_all(result):
            self._cool_down(result, attempt)
        elif generation == self._generation:
            self._started -= 1
            responded = getattr(result, "status", result) is not None
            if self._limit < self._slots and responded and not isinstance(result, ServiceUnavailableError):
                self._limit = min(2 * self._limit, self._slots)
        if self._waiting:
            self._wake()

    async def sleep(self, seconds: float) -> None:
        """Wait before the next attempt of one call; `close` ends it early."""
        await self._until_closed(asyncio.sleep(seconds))

    @property
    def cool_down(self) -> tuple[NotCreatedError, float] | None:
        """The rejection that began the cool-down, and the seconds that are left; `None` if there is none."""
        return None if self._rejection is None else (self._rejection, self.remaining())

    def remaining(self) -> float:
        """Return the seconds until the cool-down ends; 0 if there is none."""
        return max(0.0, self._cool_down_ends - asyncio.get_running_loop().time())

    def close(self) -> None:
        """Admit no more attempts; those that wait raise `UsageError` at once."""
        self._closed = True
        for task in self._sleeping:
            task.cancel()
        if self._reopening is not None:
            self._reopening.cancel()
        self._wake(all_of_them=True)

    def _has_room(self) -> bool:
        return self._in_flight < self._slots and self._started < self._limit

    def _admit(self) -> int:
        self._in_flight += 1
        self._started += 1
        return self._generation

    def _wake(self, *, all_of_them: bool = False) -> None:
        """Admit those that may start now, in order; or wake all, so that they check again."""
        while self._waiting and (all_of_them or self._has_room()):
            if not (future := self._waiting.popleft()).done():
                future.set_result(0 if all_of_them else self._admit())

    def _cool_down(self, rejection: _Rejection, attempt: int) -> None:
        """Begin a generation, which starts after this attempt's backoff, or after a longer cool-down that is active."""
        loop = asyncio.get_running_loop()
        wait = backoff(self._policy, rejection, attempt)
        self._generation += 1
        self._started = self._limit = 0
        if self._reopening is not None:
            if self._cool_down_ends >= loop.time() + wait:
                return
            self._reopening.cancel()
        self._cool_down_ends, self._rejection = loop.time() + wait, rejection
        self._reopening = loop.call_at(self._cool_down_ends, self._reopen)
        if wait > self._policy.wait_max:
            self._wake(all_of_them=True)

    def _reopen(self) -> None:
        self._reopening = self._rejection = None
        self._limit = 1
        self._wake()

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
