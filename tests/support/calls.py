"""Distinguishable requests, and calls of `create` for them."""

import asyncio
from typing import Any

from suno_persona import CreatePersonaRequest, PersonaAPI, RetryPolicy

KEY = "sk-0123456789"
BASE = "https://gateway.example"
ONCE = RetryPolicy(attempts=1)
REQUEST = CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")


async def failure(api: PersonaAPI, request: CreatePersonaRequest = REQUEST) -> Any:
    """Return the error that a call raises; the test states its class."""
    return (await api.outcome(request)).error


def requests(count: int) -> list[CreatePersonaRequest]:
    """Return this many requests, each named after its index."""
    return [CreatePersonaRequest(root_clip_id="c", name=str(number), description="D") for number in range(count)]


def calls(api: PersonaAPI, count: int) -> list[asyncio.Task[Any]]:
    """Start this many calls at once."""
    return [asyncio.create_task(api.create(request)) for request in requests(count)]


async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel calls whose outcome the test does not need, and wait until they end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
