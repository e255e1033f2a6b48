"""The same calls, by each of the contenders: `python contenders.py NAME LOOP URL` makes them and prints their cost.

It reads a line for each measurement and prints one of JSON: `flight 500` makes 500 calls, 64 of them in flight, and
returns the seconds of CPU time per call; `gathered 10000` starts 10,000 at once, and also returns the bytes of memory
that each of them holds while it waits. `LOOP` is `asyncio` or `uvloop`.

A contender is an async context manager that yields a function which makes one call.
"""

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

IN_FLIGHT = 64
WARM_UP = 500
KEY = "sk-0123456789"
PATH = "/suno/persona/create/"
REQUEST = {
    "root_clip_id": "54834687-5e79-4f08-8e14-cf188f15b598",
    "name": "Neon Drive",
    "description": "Night drive: bright synths, a low calm voice",
    "clips": ["54834687-5e79-4f08-8e14-cf188f15b598"],
    "is_public": False,
}

Call = Callable[[], Awaitable[object]]


@asynccontextmanager
async def naive(url: str) -> AsyncIterator[Call]:
    """Use aiohttp as most people write it."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def call() -> object:
            headers = {"Authorization": f"Bearer {KEY}"}
            async with session.post(f"{url}{PATH}", json=REQUEST, headers=headers) as response:
                response.raise_for_status()
                return await response.json()

        yield call


@asynccontextmanager
async def tuned(url: str) -> AsyncIterator[Call]:
    """Use aiohttp with all that can be prepared in advance: the floor of this stack."""
    import aiohttp
    import orjson
    from multidict import CIMultiDict
    from yarl import URL

    address = URL(f"{url}{PATH}")
    headers = CIMultiDict({"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def call() -> object:
            async with session.post(address, data=orjson.dumps(REQUEST), headers=headers) as response:
                response.raise_for_status()
                return orjson.loads(await response.read())

        yield call


@asynccontextmanager
async def suno_persona(url: str) -> AsyncIterator[Call]:
    """Use the package with its default settings."""
    from suno_persona import CreatePersonaRequest, PersonaAPI

    async with PersonaAPI(KEY, base_url=url) as api:

        async def call() -> object:
            return await api.create(CreatePersonaRequest(**REQUEST))  # type: ignore[arg-type]  # a dict of both

        yield call


@asynccontextmanager
async def httpx(url: str) -> AsyncIterator[Call]:
    """Use httpx with pydantic models."""
    import httpx
    from pydantic_models import Persona

    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:

        async def call() -> object:
            response = await client.post(PATH, json=REQUEST)
            response.raise_for_status()
            return Persona.model_validate_json(response.content)

        yield call


@asynccontextmanager
async def generated(url: str) -> AsyncIterator[Call]:
    """Use openai's client with the same pydantic models, as a generated SDK does."""
    from openai import AsyncOpenAI
    from pydantic_models import Persona

    async with AsyncOpenAI(api_key=KEY, base_url=url, timeout=60, max_retries=0) as client:

        async def call() -> object:
            return await client.post(PATH, body=REQUEST, cast_to=Persona)

        yield call


CONTENDERS = {function.__name__: function for function in (naive, tuned, suno_persona, httpx, generated)}


async def flight(call: Call, calls: int) -> float:
    """Return the seconds of this process's CPU time for one call, user and system, with 64 in flight."""
    await make(call, IN_FLIGHT)  # replaces connections that were idle for too long
    before = cpu()
    await make(call, calls)
    return (cpu() - before) / calls


async def make(call: Call, calls: int) -> None:
    """Make this many calls, with 64 in flight."""
    left = iter(range(calls))

    async def one_after_another() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))


def cpu() -> float:
    """Return the seconds of CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def gathered(call: Call, calls: int) -> tuple[float, float]:
    """Start all calls at once; return the seconds of CPU time per call, and the bytes that a waiting one holds."""
    await make(call, IN_FLIGHT)
    memory, started = resident(), cpu()
    tasks = [asyncio.ensure_future(call()) for _ in range(calls)]
    for _ in range(3):
        await asyncio.sleep(0)
    held = (resident() - memory) / calls
    await asyncio.gather(*tasks)
    return (cpu() - started) / calls, held


def resident() -> int:
    """Return the bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def serve(name: str, url: str) -> None:
    """Make the measurements that stdin asks for; nothing is in flight between two of them."""
    modes: dict[str, Callable[[Call, int], Awaitable[object]]] = {"flight": flight, "gathered": gathered}
    async with CONTENDERS[name](url) as call:
        await make(call, WARM_UP)
        for line in sys.stdin:
            mode, calls = line.split()
            print(json.dumps(await modes[mode](call, int(calls))), flush=True)


def main() -> None:
    """Run one contender until its input ends."""
    name, loop, url = sys.argv[1:]
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(name, url))


if __name__ == "__main__":
    main()
