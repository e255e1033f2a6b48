"""The event loop's clock, in the test's hands."""

import asyncio
from collections.abc import Callable

import pytest

Clock = Callable[[float], None]
"""Move the clock forward by so many seconds."""


def stop_clock(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stop the loop's clock and return what moves it: however slow the machine, no time passes by itself."""
    now = loop.time()

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", lambda: now)
    return advance
