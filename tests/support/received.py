"""Waiting for the requests that `FakeSuno` receives."""

import asyncio

from suno_persona.testing import ReceivedRequest


class Watched(list[ReceivedRequest]):
    """Requests that a test can wait for, in the place of `FakeSuno.requests`.

    It does not poll: processes under test need the processor.
    """

    def __init__(self) -> None:
        self._received = asyncio.Event()

    def append(self, request: ReceivedRequest) -> None:
        """Add a request and wake up who waits."""
        super().append(request)
        self._received.set()

    async def until(self, count: int) -> None:
        """Wait until this many requests were received."""
        while len(self) < count:
            self._received.clear()
            await self._received.wait()
