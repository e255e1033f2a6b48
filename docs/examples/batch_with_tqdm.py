"""Create a persona for each row of a CSV file, with a tqdm progress bar.

Stop it at any moment and run it again: it resumes from `batch_with_tqdm.db`.
"""
# Needs: pip install 'suno-persona[journal]' tqdm
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

import asyncio
import csv
from pathlib import Path

from suno_persona import CreatePersonaRequest, PersonaAPI
from suno_persona.journal import Journal
from tqdm.asyncio import tqdm


async def main() -> None:
    path = Path(__file__).with_name("personas.csv")
    with path.open(encoding="utf-8", newline="") as file:
        requests = [
            CreatePersonaRequest(
                root_clip_id=row["root_clip_id"],
                name=row["name"],
                description=row["description"],
            )
            for row in csv.DictReader(file)
        ]
    async with PersonaAPI() as api:
        outcomes = api.create_many(requests, journal=Journal("batch_with_tqdm.db"))
        async for outcome in tqdm(outcomes, total=len(requests)):
            result = outcome.persona.id if outcome.persona else outcome.error
            tqdm.write(f"{outcome.request.name}: {result}")


asyncio.run(main())
