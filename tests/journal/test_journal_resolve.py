"""Resolving by hand is explicit, can be corrected, and never overwrites what the service settled."""

import asyncio

import pytest
from support.calls import requests
from support.held_service import HeldService, client
from support.journals import entries, run_batch

from suno_persona import InvalidRequestError, JournalError, Persona, PersonaAPI
from suno_persona.journal import Entry, Journal
from suno_persona.journal._states import Enqueue
from suno_persona.testing import FakeSuno, Fault


async def unknown(url: str, fake: FakeSuno, api: PersonaAPI) -> Entry:
    """Return an entry whose outcome is unknown."""
    fake.script(Fault.lost_answer())
    await run_batch(api, requests(1), Journal(url))
    (entry,) = await entries(url)
    assert (entry.state, entry.by_hand) == ("unknown", False)
    return entry


async def test_a_persona_that_was_found_is_recorded(journal_url: str, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """The next run returns a persona with this id and nothing else, and sends nothing."""
    entry = await unknown(journal_url, fake_suno, once)
    async with Journal(journal_url) as journal:
        await journal.resolve(entry.key, persona_id="fd213afd")
    outcome = (await run_batch(once, requests(1), Journal(journal_url)))[0]
    assert outcome.result() == Persona(id="fd213afd")
    assert len(fake_suno.requests) == 1


async def test_a_request_resolved_as_not_created_is_sent_by_the_next_run(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """Once the service has settled the request, nobody can overwrite its outcome."""
    entry = await unknown(journal_url, fake_suno, once)
    async with Journal(journal_url) as journal:
        await journal.resolve(entry.key, not_created=True)
        (entry,) = [entry async for entry in journal.entries("not_created")]
        assert (entry.by_hand, entry.reason) == (True, "resolved by hand")
    outcome = (await run_batch(once, requests(1), Journal(journal_url)))[0]
    assert (len(fake_suno.requests), outcome.result().name) == (2, "0")
    async with Journal(journal_url) as journal:
        with pytest.raises(JournalError, match=rf"'{entry.key}' cannot be resolved: the service settled it as created"):
            await journal.resolve(entry.key, persona_id="fd213afd")
    assert await entries(journal_url) != [entry]


async def test_a_rejection_by_the_service_cannot_be_overwritten(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """`resolve` raises `JournalError`, since there is certainly no persona."""
    fake_suno.script(Fault.response(404))
    await run_batch(once, requests(1), Journal(journal_url))
    (entry,) = await entries(journal_url)
    async with Journal(journal_url) as journal:
        with pytest.raises(JournalError, match="the service settled it as not_created"):
            await journal.resolve(entry.key, persona_id="fd213afd")


async def test_a_mistake_can_be_corrected(journal_url: str, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """Until a run sends the request, it may be resolved any number of times, with another id or as not created."""
    entry = await unknown(journal_url, fake_suno, once)
    async with Journal(journal_url) as journal:
        await journal.resolve(entry.key, persona_id="wrong")
        await journal.resolve(entry.key, not_created=True)
        await journal.resolve(entry.key, persona_id="right")
        found = await journal.find(entry.key)
        assert found is not None
        assert (found.state, found.persona, found.by_hand) == ("created", Persona(id="right"), True)


async def test_a_resolution_by_hand_is_not_overwritten(journal_url: str, service: HeldService) -> None:
    """A stalled process that continues later does not overwrite the resolution."""
    async with client(service) as api, Journal(journal_url) as journal:
        batch = asyncio.create_task(run_batch(api, requests(1), Journal(journal_url)))
        await service.receives(1)
        (entry,) = [entry async for entry in journal.entries("claimed")]
        await journal.resolve(entry.key, persona_id="fd213afd")
        service.respond(0)
        assert (await batch)[0].result().name == "0"
        (entry,) = [entry async for entry in journal.entries()]
        assert entry.persona_id == "fd213afd"


@pytest.mark.parametrize("arguments", [{}, {"persona_id": "p", "not_created": True}])
async def test_resolve_needs_exactly_one_resolution(journal_url: str, arguments: dict[str, object]) -> None:
    """`resolve(key, persona_id=None)` is an error: a look-up that found nothing proves nothing."""
    async with Journal(journal_url) as journal:
        with pytest.raises(
            InvalidRequestError, match=r"must have either persona_id or not_created=True; got (both|neither)"
        ):
            await journal.resolve("key", **arguments)  # type: ignore[arg-type]  # what is tried


@pytest.mark.parametrize("persona_id", ["", " ", "fd21 3afd", "fd213afd\n", 12])
async def test_an_invalid_persona_id_is_an_error(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI, persona_id: str
) -> None:
    """Nothing is recorded, and the journal stays usable."""
    entry = await unknown(journal_url, fake_suno, once)
    async with Journal(journal_url) as journal:
        with pytest.raises(InvalidRequestError, match="persona_id must be an id without white space; got "):
            await journal.resolve(entry.key, persona_id=persona_id)
    assert await entries(journal_url) == [entry]


async def test_a_key_that_the_journal_does_not_have_is_an_error(journal_url: str) -> None:
    """The error names the key."""
    async with Journal(journal_url) as journal:
        with pytest.raises(JournalError, match="'none' cannot be resolved: the journal has no request with this key"):
            await journal.resolve("none", not_created=True)


async def test_thousands_are_resolved_in_one_transaction(journal_url: str) -> None:
    """All are resolved in one transaction, however many values a database accepts in one statement."""
    events = [Enqueue(f"{number:064}:1", "{}", number, "host") for number in range(6000)]
    async with Journal(journal_url) as journal:
        await journal.enqueue(events, lambda connection, queued, pending: len(queued))
        assert await journal.resolve_all({event.key: None for event in events}) == {}
        assert await journal.counts() == {"not_created": 6000}
