"""Resume a batch after a crash, without sending any request twice.

The first run kills itself after five outcomes. The next run finds the journal and
completes the batch. Delete `resume_after_a_crash.db` to start again.
"""
# Needs: pip install 'suno-persona[journal]'
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

import asyncio
import os
from pathlib import Path

from suno_persona import CreatePersonaRequest, OutcomeUnknownError, PersonaAPI
from suno_persona.journal import Journal

JOURNAL = Path("resume_after_a_crash.db")
REQUESTS = [
    CreatePersonaRequest(
        root_clip_id=f"clip-{number}", name=f"Voice {number}", description="Airy pop"
    )
    for number in range(20)
]


async def main(*, crashes: bool) -> None:
    done = 0
    async with PersonaAPI(max_connections=4) as api:
        async for outcome in api.create_many(REQUESTS, journal=Journal(str(JOURNAL))):
            if isinstance(outcome.error, OutcomeUnknownError):
                # It was in flight when the first run crashed.
                print(f"{outcome.request.name}: check before retrying", flush=True)
            else:
                print(f"{outcome.request.name}: {outcome.result().id}", flush=True)
            done += 1
            if crashes and done == 5:
                os._exit(1)  # without any clean-up


asyncio.run(main(crashes=not JOURNAL.exists()))
