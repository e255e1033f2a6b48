"""A service whose every answer is the test's to give, and calls to it: for tests of who may send when."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from broken_service import BrokenService, Exchange

from suno_persona import CreatePersonaRequest, Outcome, PersonaAPI
from suno_persona.testing import ReceivedRequest

Clock = Callable[[float], None]


def requests(count: int) -> list[CreatePersonaRequest]:
    """Requests that can be told apart by their names."""
    return [CreatePersonaRequest(root_clip_id="c", name=str(number), description="D") for number in range(count)]


KEY = "sk-0123456789"


class Watched(list[ReceivedRequest]):
    """Requests that can be waited for: put in the place of `FakeSuno.requests`. Where processes need the processor,
    it costs them none."""

    def __init__(self) -> None:
        self._came = asyncio.Event()

    def append(self, request: ReceivedRequest) -> None:
        """Tell those who wait."""
        super().append(request)
        self._came.set()

    async def until(self, count: int) -> None:
        """Go on when this many are there."""
        while len(self) < count:
            self._came.clear()
            await self._came.wait()


class Desk:
    """A service that keeps every request until the test answers it."""

    def __init__(self) -> None:
        self.arrived: list[Exchange] = []
        self.service = BrokenService(then=self._keep)
        self._answers: dict[int, asyncio.Future[bytes | None]] = {}

    async def _keep(self, exchange: Exchange) -> None:
        number = len(self.arrived)
        self.arrived.append(exchange)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await exchange.send(await self._answers[number] or exchange.answer())

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that uses it."""
        return {"SUNO_API_KEY": KEY, "SUNO_BASE_URL": self.service.base_url}

    async def until(self, count: int) -> None:
        """Go on when this many requests are there."""
        while len(self.arrived) < count:
            await asyncio.sleep(0)

    async def after(self, count: int) -> None:
        """Go on when this many requests are there, and see that no more come of their own."""
        await self.until(count)
        await turns()
        assert len(self.arrived) == count

    def grant(self, number: int) -> None:
        """Create what this request asks for."""
        self._answers[number].set_result(None)

    async def grant_all(self, process: asyncio.subprocess.Process) -> None:
        """Grant whatever a process asks for and has no answer to yet, until it ends."""
        while process.returncode is None:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_result(None)
            await asyncio.sleep(0)

    def refuse(self, number: int, status: int = 429, retry_after: float | None = 5) -> None:
        """Answer this request with a refusal."""
        header = b"" if retry_after is None else b"Retry-After: %d\r\n" % retry_after
        self._answers[number].set_result(b"HTTP/1.1 %d No\r\n%bContent-Length: 0\r\n\r\n" % (status, header))


async def turns(count: int = 200) -> None:
    """Let the loop turn, so that whatever can happen without time passing has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


def calls(api: PersonaAPI, count: int) -> list[asyncio.Task[Any]]:
    """So many calls at once."""
    return [asyncio.create_task(api.create(request)) for request in requests(count)]


def client(desk: Desk, **options: Any) -> PersonaAPI:
    """A client of the desk."""
    return PersonaAPI(KEY, base_url=desk.service.base_url, **options)


async def first_outcome(desk: Desk, outcomes: AsyncIterator[Outcome], under_way: int) -> Outcome:
    """Begin to read the outcomes of a batch: with so many calls under way, that of the first to arrive."""
    outcome = asyncio.ensure_future(anext(outcomes))
    await desk.after(under_way)
    desk.grant(0)
    return await outcome


async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """End the calls that a test has no more questions to."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
