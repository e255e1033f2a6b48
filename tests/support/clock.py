"""A clock of the event loop that only the test advances."""

import asyncio
from collections.abc import Callable

import pytest

Clock = Callable[[float], None]
"""Advances the clock by this many seconds."""


def stop_clock(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stop the loop's clock, and return a function that advances it; no time passes on a slow machine."""
    now = loop.time()

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", lambda: now)
    return advance
