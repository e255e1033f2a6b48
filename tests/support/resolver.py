"""A resolver of host names that finds none, once the test lets it."""

import asyncio
import socket
from typing import Any

from aiohttp.abc import AbstractResolver


class Resolver(AbstractResolver):
    """Waits until the test lets it fail."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._failed = asyncio.Event()

    def fail(self) -> None:
        """Know no name."""
        self._failed.set()

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        self.asked.set()
        await self._failed.wait()
        raise OSError(f"no address for {host}")

    async def close(self) -> None: ...
