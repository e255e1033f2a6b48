"""What a command waits for, in words; and where `create` shows them."""

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from suno_persona._admission import Admission
from suno_persona._engine import Call, Engine
from suno_persona.cli._running import printable
from suno_persona.errors import RateLimitedError

_DELAY = 0.5  # seconds: what takes less is not shown
_INTERVAL = 0.25


def cool_down(admission: Admission) -> str:
    """Say what all calls of a client wait for; empty where they do not."""
    if admission.rejection is None:
        return ""
    what = "rate limited" if isinstance(admission.rejection, RateLimitedError) else "the service is unavailable"
    return f"{what}: goes on in {math.ceil(admission.remaining())} s"


def attempt(engine: Engine, call: Call) -> str:
    """Say what one call waits for."""
    of = f"of {engine.retry.attempts}"
    if text := cool_down(engine.admission):
        return f"{text} with attempt {call.attempts + 1} {of}"
    if call.may_have_created:
        return f"attempt {call.attempts} {of}: waiting for {engine.url.host}"
    return f"attempt {call.attempts + 1} {of} is about to start"


@asynccontextmanager
async def shown(text: Callable[[], str]) -> AsyncIterator[None]:
    """Show a text on stderr while the block runs, if it is a terminal and the block takes long enough."""
    if not sys.stderr.isatty():
        yield
        return
    task = asyncio.create_task(_show(text))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _show(text: Callable[[], str]) -> None:
    started = time.monotonic() - _DELAY
    await asyncio.sleep(_DELAY)
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_interactive:  # TERM=dumb: a line for each thing that it waits for
        previous = ""
        while True:
            if (said := text().partition(" in ")[0]) != previous:
                console.print(printable(text()), markup=False, highlight=False, soft_wrap=True)
                previous = said
            await asyncio.sleep(_INTERVAL)
    with console.status("") as status:
        while True:
            status.update(Text(f"{printable(text())} ({time.monotonic() - started:.0f} s)"))
            await asyncio.sleep(_INTERVAL)
