"""What the package does in a call beside the exchange itself, part by part, next to what tuned aiohttp does there."""

import asyncio
import time
import timeit
from collections.abc import Callable

import orjson
from contenders import KEY, REQUEST
from multidict import CIMultiDict
from nginx import EXAMPLE

from suno_persona import CreatePersonaRequest, PersonaAPI, loads, transport
from suno_persona.conversion import dump_request
from suno_persona.response import Response

NUMBER = 200


def parts(rounds: int) -> dict[str, list[float]]:
    """Seconds for each part, taking turns; `call` is all of `create` with an exchange that takes no time."""
    data = EXAMPLE.read_bytes()
    request = CreatePersonaRequest(**REQUEST)  # type: ignore[arg-type]  # a dict of both
    ways: dict[str, Callable[[], object]] = {
        "build": lambda: CreatePersonaRequest(**REQUEST),  # type: ignore[arg-type]  # a dict of both
        "write": lambda: dump_request(request),
        "read": lambda: loads(data),
        "orjson.dumps": lambda: orjson.dumps(REQUEST),
        "orjson.loads": lambda: orjson.loads(data),
    }
    found: dict[str, list[float]] = {name: [] for name in (*ways, "call")}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(timeit.timeit(way, "import gc; gc.enable()", number=NUMBER) / NUMBER)
        found["call"].append(asyncio.run(_calls(request, data)))
    return found


async def _calls(request: CreatePersonaRequest, data: bytes) -> float:
    async def answer(*_: object, **__: object) -> Response:
        return Response(status=200, headers=CIMultiDict(), body=data)

    exchange, transport.post = transport.post, answer
    try:
        async with PersonaAPI(KEY, base_url="https://gateway.example") as api:
            await api.create(request)
            started = time.perf_counter()
            for _ in range(NUMBER):
                await api.create(request)
            return (time.perf_counter() - started) / NUMBER
    finally:
        transport.post = exchange
