"""What the package does in a call besides the exchange itself, part by part, compared with tuned aiohttp."""

import asyncio
import time
import timeit
from collections.abc import Callable

import orjson
from contenders import IN_FLIGHT, KEY, REQUEST
from multidict import CIMultiDict
from nginx import EXAMPLE

from suno_persona import CreatePersonaRequest, PersonaAPI, loads
from suno_persona import _transport as transport
from suno_persona._response import Response
from suno_persona.conversion import dump_request

NUMBER = 256
URL = "https://gateway.example"


def time_of(way: Callable[[], object]) -> float:
    """Return the seconds of one execution, with the garbage collector running as in an application."""
    return timeit.timeit(way, "import gc; gc.enable()", number=NUMBER) / NUMBER


def parts(rounds: int) -> dict[str, list[float]]:
    """Return the seconds for each part, measured alternately.

    `call` is all of `create` with an exchange that takes no time; `waiting` is the additional cost of a call where half
    of the calls wait for a slot.
    """
    data = EXAMPLE.read_bytes()
    request = CreatePersonaRequest(**REQUEST)  # type: ignore[arg-type]  # a dict of both
    ways: dict[str, Callable[[], object]] = {
        "build": lambda: CreatePersonaRequest(**REQUEST),  # type: ignore[arg-type]  # a dict of both
        "write": lambda: dump_request(request),
        "read": lambda: loads(data),
        "orjson.dumps": lambda: orjson.dumps(REQUEST),
        "orjson.loads": lambda: orjson.loads(data),
    }
    found: dict[str, list[float]] = {name: [] for name in (*ways, "call", "waiting")}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(time_of(way))
        alone, half, all_at_once = asyncio.run(_calls(request, data))
        found["call"].append(alone)
        found["waiting"].append(half - all_at_once)
    return found


async def _calls(request: CreatePersonaRequest, data: bytes) -> tuple[float, float, float]:
    """Return the seconds for a call: sequentially, and with 64 concurrent calls and 32 and 64 slots."""

    async def respond(*_: object, **__: object) -> Response:
        if is_out:
            await asyncio.sleep(0)
        return Response(status=200, headers=CIMultiDict(), body=data)

    async def measured(in_flight: int, api: PersonaAPI) -> float:
        async def one_after_another() -> None:
            for _ in range(NUMBER // in_flight):
                await api.create(request)

        await api.create(request)
        started = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
        return (time.perf_counter() - started) / (NUMBER // in_flight * in_flight)

    exchange, transport.post = transport.post, respond
    try:
        is_out = False
        async with (
            PersonaAPI(KEY, base_url=URL) as api,
            PersonaAPI(KEY, base_url=URL, max_connections=IN_FLIGHT) as wide,
        ):
            alone = await measured(1, api)
            is_out = True
            return alone, await measured(IN_FLIGHT, api), await measured(IN_FLIGHT, wide)
    finally:
        transport.post = exchange
