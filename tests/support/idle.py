"""Waiting until nothing more can happen without time passing."""

import asyncio


async def turns(count: int = 200) -> None:
    """Let the loop turn, so that whatever can happen without time passing has happened."""
    for _ in range(count):
        await asyncio.sleep(0)
