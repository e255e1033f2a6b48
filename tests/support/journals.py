"""Batches with a journal, and the records of a journal."""

from suno_persona import CreatePersonaRequest, Outcome, PersonaAPI
from suno_persona.conversion import dump_request
from suno_persona.journal import Entry, Journal
from support.held_service import OPENING, opened


async def run_batch(
    api: PersonaAPI, many: list[CreatePersonaRequest], journal: Journal, in_flight: int = 1
) -> dict[int, Outcome]:
    """Run a whole batch, `opened` for this many in flight, and return the outcomes of these requests by their index."""
    skipped = len(list(opened([], in_flight)))
    outcomes = {o.index - skipped: o async for o in api.create_many(opened(many, in_flight), journal=journal)}
    return {index: outcome for index, outcome in outcomes.items() if index >= 0}


async def take(
    api: PersonaAPI, many: list[CreatePersonaRequest], journal: Journal, outcomes: list[Outcome], in_flight: int = 1
) -> None:
    """Run a batch, `opened` for this many in flight, and append the outcomes that it yields before it fails."""
    async for outcome in api.create_many(opened(many, in_flight), journal=journal):
        if not outcome.request.name.startswith(OPENING):
            outcomes.append(outcome)  # noqa: PERF401 - they are needed even if it fails


async def entries(url: str) -> list[Entry]:
    """Return the entries of a journal, as another process sees them, without those that opened a batch."""
    async with Journal(url) as journal:
        return [entry async for entry in journal.entries() if not entry.request.name.startswith(OPENING)]


async def states(url: str) -> list[str]:
    """Return the states of a journal's requests, sorted."""
    return sorted(entry.state for entry in await entries(url))


async def claim(url: str, request: CreatePersonaRequest, api: PersonaAPI) -> None:
    """Leave a claim behind, as a killed process does."""
    async with Journal(url) as journal:
        run = await journal.begin(api.account)
        body = dump_request(request)
        assert await run.claim(run.key(body), body) is None
