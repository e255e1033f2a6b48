"""Resolving by hand is explicit, can be corrected, and never overwrites what the service settled.

Which record may be resolved, and how, is in the ledger's table: `test_ledger.py`.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.calls import requests
from support.held_service import HeldService, client
from support.journals import run_batch

from suno_persona import InvalidRequestError, JournalError, Persona, PersonaAPI
from suno_persona.journal import Entry, Journal
from suno_persona.journal._states import Enqueue
from suno_persona.testing import FakeSuno, Fault


@pytest.fixture
async def journal(journal_url: str) -> AsyncIterator[Journal]:
    """Yield an open journal."""
    async with Journal(journal_url) as journal:
        yield journal


async def only_entry(journal: Journal) -> Entry:
    """Return the entry of the one request that a journal has."""
    (entry,) = [entry async for entry in journal.entries()]
    return entry


async def unknown(journal: Journal, fake: FakeSuno, api: PersonaAPI) -> Entry:
    """Return an entry whose outcome is unknown."""
    fake.script(Fault.lost_response())
    await run_batch(api, requests(1), journal)
    entry = await only_entry(journal)
    assert (entry.state, entry.by_hand) == ("unknown", False)
    return entry


async def test_a_persona_that_was_found_is_recorded(journal: Journal, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """The next run returns a persona with this id and nothing else; until then, a mistake can be corrected."""
    key = (await unknown(journal, fake_suno, once)).key
    await journal.resolve(key, persona_id="wrong")
    await journal.resolve(key, not_created=True)
    await journal.resolve(key, persona_id="fd213afd")
    entry = await only_entry(journal)
    assert (entry.state, entry.persona, entry.by_hand) == ("created", Persona(id="fd213afd"), True)
    outcome = (await run_batch(once, requests(1), journal))[0]
    assert outcome.result() == Persona(id="fd213afd")
    assert len(fake_suno.requests) == 1


async def test_a_request_resolved_as_not_created_is_sent_by_the_next_run(
    journal: Journal, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """Once the service has settled the request, nobody can overwrite its outcome."""
    key = (await unknown(journal, fake_suno, once)).key
    await journal.resolve(key, not_created=True)
    entry = await only_entry(journal)
    assert (entry.state, entry.by_hand, entry.reason) == ("not_created", True, "resolved by hand")
    outcome = (await run_batch(once, requests(1), journal))[0]
    assert (len(fake_suno.requests), outcome.result().name) == (2, "0")
    with pytest.raises(JournalError, match=rf"'{key}' cannot be resolved: the service settled it as created"):
        await journal.resolve(key, persona_id="fd213afd")
    assert (await only_entry(journal)).persona == outcome.persona


async def test_a_resolution_by_hand_is_not_overwritten(journal: Journal, service: HeldService) -> None:
    """A stalled process that continues later does not overwrite the resolution."""
    async with client(service) as api:
        batch = asyncio.create_task(run_batch(api, requests(1), journal))
        await service.receives(1)
        await journal.resolve((await only_entry(journal)).key, persona_id="fd213afd")
        service.respond(0)
        assert (await batch)[0].result().name == "0"
        assert (await only_entry(journal)).persona_id == "fd213afd"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "must have either persona_id or not_created=True; got neither"),
        ({"persona_id": "p", "not_created": True}, "must have either persona_id or not_created=True; got both"),
        ({"persona_id": " "}, "persona_id must be an id without white space; got "),
        ({"persona_id": "fd21 3afd\n"}, "persona_id must be an id without white space; got "),
        ({"persona_id": 12}, "persona_id must be an id without white space; got 12"),
    ],
)
async def test_resolve_needs_exactly_one_resolution(
    journal: Journal, fake_suno: FakeSuno, once: PersonaAPI, arguments: dict[str, object], reason: str
) -> None:
    """`resolve(key, persona_id=None)` is an error: a look-up that found nothing proves nothing. Nothing is recorded."""
    entry = await unknown(journal, fake_suno, once)
    with pytest.raises(InvalidRequestError, match=reason):
        await journal.resolve(entry.key, **arguments)  # type: ignore[arg-type]  # what is tried
    assert await only_entry(journal) == entry


async def test_a_key_that_the_journal_does_not_have_is_an_error(journal: Journal) -> None:
    """The error names the key."""
    with pytest.raises(JournalError, match="'none' cannot be resolved: the journal has no request with this key"):
        await journal.resolve("none", not_created=True)


async def test_thousands_are_resolved_in_one_transaction(journal: Journal) -> None:
    """And thousands can be read, in the requested states, however many values a database accepts in one statement."""
    body = '{"root_clip_id":"c","name":"N","description":"D"}'
    events = [Enqueue(f"{number:064}:1", body, number, "host") for number in range(6000)]
    await journal.enqueue(events, lambda connection, queued, pending: len(queued))
    assert await journal.resolve_all({event.key: None for event in events[1:]}) == {}
    assert await journal.counts() == {"not_created": 5999, "queued": 1}
    assert [entry.key async for entry in journal.entries("queued", "unknown")] == [events[0].key]
    assert len({entry.key async for entry in journal.entries()}) == 6000
