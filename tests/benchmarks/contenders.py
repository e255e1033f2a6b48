"""The same calls, by each of the contenders: `python contenders.py NAME URL MODE CALLS` makes some and prints the cost.

`flight` makes the calls with 64 in flight, and prints the seconds of CPU time per call; `gathered` starts all at once,
and also prints the bytes of memory that each holds while it waits.

A contender is an async context manager that yields a function which makes one call.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from service import EXAMPLE

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
async def suno_persona(url: str, **options: Any) -> AsyncIterator[Call]:
    """Use the package, with its default settings unless `options` differ."""
    from suno_persona import CreatePersonaRequest, PersonaAPI

    async with PersonaAPI(KEY, base_url=url, **options) as api:

        async def call() -> object:
            return await api.create(CreatePersonaRequest(**REQUEST))  # type: ignore[arg-type]  # a dict of both

        yield call


def pydantic_persona() -> Any:
    """Return the contract's response as pydantic models, as a generated SDK has them: every field may be missing."""
    from openai import BaseModel  # pydantic's name for it, and the only one that openai's client accepts
    from pydantic import create_model

    def type_of(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            fields: dict[str, Any] = {member: (type_of(member, each) | None, None) for member, each in value.items()}
            return create_model(name, __base__=BaseModel, **fields)
        if isinstance(value, list):
            return list[type_of(name, value[0])]  # type: ignore[misc]  # no checker knows it
        return datetime if name == "created_at" else type(value)

    return type_of("Persona", json.loads(EXAMPLE))


@asynccontextmanager
async def httpx(url: str) -> AsyncIterator[Call]:
    """Use httpx with pydantic models."""
    import httpx

    model = pydantic_persona()
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:

        async def call() -> object:
            response = await client.post(PATH, json=REQUEST)
            response.raise_for_status()
            return model.model_validate_json(response.content)

        yield call


@asynccontextmanager
async def generated(url: str) -> AsyncIterator[Call]:
    """Use openai's client with the same pydantic models, as a generated SDK does."""
    from openai import AsyncOpenAI

    model = pydantic_persona()
    async with AsyncOpenAI(api_key=KEY, base_url=url, timeout=60, max_retries=0) as client:

        async def call() -> object:
            return await client.post(PATH, body=REQUEST, cast_to=model)

        yield call


CONTENDERS: dict[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "naive": naive,
    "tuned": tuned,
    "suno_persona": suno_persona,
    "suno_persona_64": partial(suno_persona, max_connections=IN_FLIGHT),
    "httpx": httpx,
    "generated": generated,
}


@contextmanager
def counted() -> Iterator[None]:
    """Count the instructions of this block, if `instructions.count` runs this process."""
    os.getloadavg()  # when this begins, callgrind writes its counts and resets them; nothing else calls it
    yield
    os.getloadavg()


async def make(call: Call, calls: int) -> None:
    """Make this many calls, with 64 in flight."""
    left = iter(range(calls))

    async def one_after_another() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))


async def main(name: str, url: str, mode: str, number: str) -> None:
    """Make the calls and print their cost."""
    calls = int(number)
    async with CONTENDERS[name](url) as call:
        await make(call, WARM_UP)
        memory, started = resident(), time.process_time()
        if mode == "flight":
            with counted():
                await make(call, calls)
        else:
            tasks = [asyncio.ensure_future(call()) for _ in range(calls)]
            for _ in range(3):
                await asyncio.sleep(0)
            memory = resident() - memory
            await asyncio.gather(*tasks)
        print((time.process_time() - started) / calls, memory / calls)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
