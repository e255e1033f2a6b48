"""A batch opens up: it starts with one request in flight, and sends more as personas are created.

The table of what each outcome does to the window is in `client/test_retry.py`.
"""

import asyncio
import math
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.calls import ONCE, requests
from support.held_service import HeldService, client
from support.idle import idle
from support.journals import run_batch

from suno_persona import Outcome, Persona, PersonaAPI
from suno_persona._batch import Batch
from suno_persona._engine import Call, Engine
from suno_persona._response import Ended
from suno_persona.journal import Journal

OUTCOMES = {200: 2.0, 401: 0.5, 404: 1.0, 500: 0.5}
"""What some statuses do to the window."""


async def read(api: PersonaAPI, count: int) -> list[Outcome]:
    """Run a batch of this many requests to its end."""
    return [outcome async for outcome in api.create_many(requests(count))]


@pytest.mark.parametrize("status", [401, 404])
async def test_a_wrong_key_or_address_costs_few_requests(service: HeldService, status: int) -> None:
    """As long as none succeeds, each request waits for the one before it."""
    async with client(service, retry=ONCE) as api:
        batch = asyncio.create_task(read(api, 5))
        for number in range(5):
            await service.receives(number + 1)
            service.reject(number, status=status)
        assert len(await batch) == 5


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=30, max_size=30))
def test_as_many_requests_are_in_flight_as_the_window_allows(largest: int, statuses: list[int]) -> None:
    """A persona doubles it, up to `max_connections`; a failure that is not the row's own halves it."""

    async def main() -> None:
        async with HeldService() as service, client(service, max_connections=largest, retry=ONCE) as api:
            batch = asyncio.create_task(read(api, len(statuses)))
            window, arrived = 1, 1
            for number, status in enumerate(statuses):
                await service.until(arrived)
                if status == 200:
                    service.respond(number)
                else:
                    service.reject(number, status=status, retry_after=None)
                window = min(max(int(window * OUTCOMES[status]), 1), largest)
                arrived = min(max(arrived, number + 1 + window), len(statuses))
                await service.receives(arrived)
            await batch

    asyncio.run(main())


async def test_recorded_personas_open_the_window(journal_url: str, service: HeldService) -> None:
    """A batch that is resumed does not start over with one request in flight."""
    service.respond_to_all()
    async with client(service) as api:
        await run_batch(api, requests(5), Journal(journal_url))
        service.hold()
        resumed = asyncio.create_task(run_batch(api, requests(15), Journal(journal_url)))
        await service.receives(15)
        service.respond_to_all()
        assert all(outcome.persona for outcome in (await resumed).values())


class _Service:
    """Replaces an engine: all calls that are in flight at the same time create their personas at the same time."""

    def __init__(self) -> None:
        self.in_flight: list[asyncio.Future[Ended]] = []

    async def send(self, call: Call) -> Ended:
        self.in_flight.append(asyncio.get_running_loop().create_future())
        return await self.in_flight[-1]


async def test_opening_takes_three_round_trips() -> None:
    """A batch of 10,000 takes 313 with 32 in flight, so that opening up costs it less than 1%."""
    service, count, round_trips = _Service(), 500, 0

    async def run() -> int:
        engine = cast("Engine", service)
        async with Batch(requests(count), engine, max_connections=32, journal=None) as batch:
            return len([outcome async for outcome in batch])

    running = asyncio.create_task(run())
    while not running.done():
        await idle()
        assert len(service.in_flight) <= 32
        responses, service.in_flight = service.in_flight, []
        round_trips += bool(responses)
        for response in responses:
            response.set_result(Ended(Persona(id="p")))
    assert await running == count
    assert round_trips <= math.ceil(count / 32) + 3
