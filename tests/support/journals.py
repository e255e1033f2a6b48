"""Batches with a journal, and the records of a journal."""

from suno_persona import CreatePersonaRequest, Outcome, PersonaAPI
from suno_persona.conversion import dump_request
from suno_persona.journal import Entry, Journal


async def run_batch(api: PersonaAPI, many: list[CreatePersonaRequest], journal: Journal) -> dict[int, Outcome]:
    """Run a whole batch, and return its outcomes by index."""
    return {outcome.index: outcome async for outcome in api.create_many(many, journal=journal)}


async def entries(url: str) -> list[Entry]:
    """Return the entries of a journal, as another process sees them."""
    async with Journal(url) as journal:
        return [entry async for entry in journal.entries()]


async def states(url: str) -> list[str]:
    """Return the states of a journal's requests, sorted."""
    return sorted(entry.state for entry in await entries(url))


async def claim(url: str, request: CreatePersonaRequest, api: PersonaAPI) -> None:
    """Leave a claim behind, as a killed process does."""
    async with Journal(url) as journal:
        run = await journal.begin(api.account)
        body = dump_request(request)
        assert await run.claim(run.key(body), body) is None
