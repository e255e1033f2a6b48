"""A resolver of host names that the test fails, or not."""

import asyncio
import socket
from typing import Any

from aiohttp.abc import AbstractResolver


class Resolver(AbstractResolver):
    """A resolver that knows no name, or never returns."""

    def __init__(self, *, forever: bool) -> None:
        self.asked = asyncio.Event()
        self._failed = asyncio.Event()
        if not forever:
            self.fail()

    def fail(self) -> None:
        """Know no name."""
        self._failed.set()

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        self.asked.set()
        await self._failed.wait()
        raise OSError(f"no address for {host}")

    async def close(self) -> None: ...
