"""Batches with a journal, and what a journal records."""

from suno_persona import CreatePersonaRequest, Outcome, PersonaAPI
from suno_persona._client import engine_of
from suno_persona._engine import Call
from suno_persona.journal import Entry, Journal


async def run_batch(api: PersonaAPI, many: list[CreatePersonaRequest], journal: Journal) -> dict[int, Outcome]:
    """The outcomes of a whole batch, by their index."""
    return {outcome.index: outcome async for outcome in api.create_many(many, journal=journal)}


async def entries(url: str) -> list[Entry]:
    """What a journal holds, as another process sees it."""
    async with Journal(url) as journal:
        return [entry async for entry in journal.entries()]


async def states(url: str) -> list[str]:
    """The states of a journal's requests, sorted."""
    return sorted(entry.state for entry in await entries(url))


async def claim(url: str, request: CreatePersonaRequest, api: PersonaAPI) -> None:
    """Leave a claim behind, as a process does that is killed."""
    async with Journal(url) as journal:
        run = await journal.begin(engine_of(api).account)
        body = Call(request).body
        assert await run.claim(run.key(body), body) is None
