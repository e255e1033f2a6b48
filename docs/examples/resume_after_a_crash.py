"""A batch that crashes; when it is run again, it goes on and sends nothing twice.

The first run ends itself after five personas, as a crash would; the next one finds
its journal and finishes. Delete `resume_after_a_crash.db` to see it again.
"""
# Needs: pip install 'suno-persona[journal]'
# SUNO_API_KEY and SUNO_BASE_URL name the service: `suno-persona fake` runs one to try
# this with, and prints both.

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
                # It was under way when the first run crashed.
                print(
                    f"{outcome.request.name}: look before you repeat it", flush=True
                )
            else:
                print(f"{outcome.request.name}: {outcome.result().id}", flush=True)
            done += 1
            if crashes and done == 5:
                os._exit(1)  # nothing is cleaned up, closed or saved


asyncio.run(main(crashes=not JOURNAL.exists()))
