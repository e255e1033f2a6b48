"""A service that holds every request until the test responds: for tests of which call may send, and when."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from suno_persona import CreatePersonaRequest, Outcome, PersonaAPI

from .broken_service import BrokenService, Exchange
from .calls import KEY
from .idle import idle

OPENING = "Opening"


def opened(many: Iterable[CreatePersonaRequest], in_flight: int) -> Iterator[CreatePersonaRequest]:
    """Yield these requests after as many as open the window of a batch: each persona doubles it.

    A `HeldService` responds to those at once, and does not count them.
    """
    for number in range((in_flight - 1).bit_length()):
        yield CreatePersonaRequest(root_clip_id="c", name=f"{OPENING} {number}", description="D")
    yield from many


class HeldService(BrokenService):
    """Hold every request until the test responds to it. Requests are numbered from 0 in order of arrival."""

    def __init__(self) -> None:
        super().__init__(then=self._hold)
        self.received: list[Exchange] = []
        self._responses: list[asyncio.Future[bytes | None]] = []
        self._arrived = asyncio.Event()
        self._holding = True

    async def _hold(self, exchange: Exchange) -> None:
        if (name := str(json.loads(exchange.body)["name"])).startswith(OPENING):
            await exchange.send(exchange.response(json.dumps({"id": name, "name": name}).encode()))
            return
        response = asyncio.get_running_loop().create_future()
        self.received.append(exchange)
        self._responses.append(response)
        self._arrived.set()
        if not self._holding:
            response.set_result(None)
        await exchange.send(await response or exchange.response())

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that uses this service."""
        return {"SUNO_API_KEY": KEY, "SUNO_BASE_URL": self.base_url}

    async def until(self, count: int) -> None:
        """Wait until this many requests have arrived."""
        while len(self.received) < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def receives(self, count: int) -> None:
        """Wait until this many requests have arrived, and assert that no more arrive on their own."""
        await self.until(count)
        await idle()
        assert len(self.received) == count

    async def until_batch(self, count: int) -> int:
        """Respond until a batch has this many requests in flight, and return how many responses that took."""
        responded = 0
        while 2**responded < count:
            await self.until(responded + 1)
            self.respond(responded)
            responded += 1
        await self.until(responded + count)
        return responded

    def respond(self, number: int) -> None:
        """Create the persona that a request asks for, and respond with it."""
        self._responses[number].set_result(None)

    def respond_to_all(self) -> None:
        """Create the personas of all requests, past and future, and respond with them."""
        self._holding = False
        for response in self._responses:
            if not response.done():
                response.set_result(None)

    def hold(self) -> None:
        """Hold requests that arrive from now on."""
        self._holding = True

    def reject(self, number: int, status: int = 429, retry_after: float | None = 5) -> None:
        """Respond to a request with an error status."""
        header = b"" if retry_after is None else b"Retry-After: %d\r\n" % retry_after
        self._responses[number].set_result(b"HTTP/1.1 %d No\r\n%bContent-Length: 0\r\n\r\n" % (status, header))


def client(service: BrokenService, **options: Any) -> PersonaAPI:
    """Return a client of a service."""
    return PersonaAPI(KEY, base_url=service.base_url, **options)


async def first_outcome(service: HeldService, outcomes: AsyncIterator[Outcome], in_flight: int) -> Outcome:
    """Start a batch, respond to its first request once this many calls are in flight, and return its outcome.

    Its requests are `opened` for as many.
    """
    for _ in opened([], in_flight):
        assert (await anext(outcomes)).request.name.startswith(OPENING)
    outcome = asyncio.ensure_future(anext(outcomes))
    await service.receives(in_flight)
    service.respond(0)
    return await outcome
