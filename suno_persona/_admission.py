"""When a call may start an attempt: its turn, the rate limit, and the cool-down that all calls share.

Knows nothing of HTTP. While nothing was refused and a turn is free, nothing here waits.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import attrs

from suno_persona.errors import RateLimitedError, ServiceUnavailableError, UsageError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

Refusal: TypeAlias = RateLimitedError | ServiceUnavailableError

_LOOK_AGAIN = -1


class Pacing:
    """The pace of one client.

    After a refusal nobody starts an attempt until the wait is over. Then one goes first, and each answer that
    is no refusal doubles how many may be under way: no stampede when it ends, and nobody starves.
    """

    __slots__ = (
        "_closed",
        "_cooling_until",
        "_longest_wait",
        "_most",
        "_places",
        "_rate_limit",
        "_refusal",
        "_reopening",
        "_resting",
        "_round",
        "_taken",
        "_waiting",
        "turns",
    )

    def __init__(self, max_connections: int, wait_max: float, rate_limit: "AsyncLimiter | None") -> None:
        self.turns: asyncio.Semaphore = asyncio.Semaphore(max_connections)
        """A call holds one from its first attempt to its last; first come, first served."""
        self._most = max_connections
        self._longest_wait = wait_max
        self._rate_limit = rate_limit
        self._places = max_connections  # how many attempts may be under way; 0 while it cools
        self._taken = 0  # how many are
        self._round = 0  # counts the refusals: an attempt from before the last one takes no place
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._resting: set[asyncio.Future[int]] = set()
        self._closed = False
        self._refusal: Refusal | None = None
        self._cooling_until = 0.0  # by the loop's clock
        self._reopening: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Wait until an attempt may start. Gives its round, which `end` takes.

        Raises a `UsageError` once the pace is closed. Raises the refusal again, with the seconds that are left, where
        the service asks all calls for a longer wait than `wait_max`: nobody waits that long, and nobody sends.
        """
        limit = self._rate_limit
        while True:
            if self._closed:
                raise UsageError(message="the client is closed: make a new PersonaAPI")
            if self._taken < self._places and not self._waiting:
                self._taken += 1
                place = self._round
            else:
                place = await self._queue()
            if limit is not None and place == self._round:
                try:
                    await limit.acquire()
                except BaseException:
                    self.end(place, answered=False)
                    raise
            # A refusal of another call may have come meanwhile. What was taken of the limit by then is not kept for
            # the time after the cool-down, or all would be sent at once then.
            if place == self._round:
                return place

    def end(self, place: int, *, answered: bool) -> None:
        """An attempt is over; `answered` by the service, and not with a refusal."""
        if place != self._round:
            return
        self._taken -= 1
        if answered and self._places < self._most:
            self._places = min(2 * self._places, self._most)
        if self._waiting:
            self._admit()

    def cool(self, refusal: Refusal, wait: float) -> None:
        """Let nobody start an attempt for this many seconds; a cool-down that ends later stays."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        self._round += 1
        self._taken = self._places = 0
        if self._reopening is not None:
            if self._cooling_until >= until:
                return
            self._reopening.cancel()
        self._cooling_until = until
        self._refusal = refusal
        self._reopening = loop.call_at(until, self._reopen)
        if wait > self._longest_wait:
            self._wake_all()

    async def rest(self, seconds: float) -> None:
        """Wait before the next attempt of one call; `close` ends it."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(seconds, _wake, future, _LOOK_AGAIN)
        self._resting.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._resting.discard(future)

    def close(self) -> None:
        """Let nobody start an attempt any more: `start` raises a `UsageError`, also for those who wait in it."""
        self._closed = True
        self._wake_all()
        for future in self._resting:
            _wake(future, _LOOK_AGAIN)

    def cooling(self) -> float:
        """Seconds until attempts may start again."""
        return max(0.0, self._cooling_until - asyncio.get_running_loop().time())

    def _reopen(self) -> None:
        self._reopening = self._refusal = None
        self._places = 1
        self._admit()

    def _wake_all(self) -> None:
        while self._waiting:
            _wake(self._waiting.popleft(), _LOOK_AGAIN)

    def _admit(self) -> None:
        while self._waiting and self._taken < self._places:
            if _wake(self._waiting.popleft(), self._round):
                self._taken += 1

    async def _queue(self) -> int:
        if self._refusal is not None and (left := self.cooling()) > self._longest_wait:
            raise attrs.evolve(self._refusal, retry_after=left)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():  # it was given a place at the same moment
                self.end(future.result(), answered=False)
            raise


def _wake(future: asyncio.Future[int], place: int) -> bool:
    """Whether anybody still waits for it."""
    if future.done():
        return False
    future.set_result(place)
    return True
