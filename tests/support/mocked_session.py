"""The bridge between aioresponses and aiohttp."""

from typing import Any
from unittest.mock import Mock

import aiohttp
from aioresponses import aioresponses


class _Response(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not pass the `stream_writer` that aiohttp 3.14 requires."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": Mock(output_size=0), **kwargs})


class MockedSession(aioresponses):
    """Replaces aiohttp's session by one without a network for the duration of the block."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Add a response, in a class that aiohttp accepts."""
        super().add(*args, **{"response_class": _Response, **kwargs})
