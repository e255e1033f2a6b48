"""A journal belongs to one service and one account: a run of another client fails before anything is sent."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from support.calls import KEY, requests
from support.held_service import HeldService, client
from support.journals import entries, run_batch, states

from suno_persona import JournalError, PersonaAPI
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


def execute(url: str, script: str) -> list[tuple[object, ...]]:
    """Run statements on a journal's database, and return the rows of the last one."""
    if url.startswith("postgres"):
        with psycopg.connect(url) as connection:
            cursor = connection.execute(script.encode())
            return cursor.fetchall() if cursor.description else []
    with sqlite3.connect(url) as file:
        *first, last = script.strip().rstrip(";").split(";")
        for statement in first:
            file.execute(statement)
        rows = file.execute(last).fetchall()
    file.close()
    return rows


@pytest.fixture
async def other(fake_suno: FakeSuno) -> AsyncIterator[FakeSuno]:
    """Yield another service."""
    async with FakeSuno() as other:
        yield other


async def test_a_client_of_another_service_cannot_use_the_journal(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI, other: FakeSuno
) -> None:
    """The error names both endpoints, and neither a recorded request nor a new one is sent."""
    await run_batch(persona_api, requests(1), Journal(journal_url))
    async with PersonaAPI(fake_suno.api_key, base_url=other.base_url) as api:
        with pytest.raises(JournalError) as caught:
            await run_batch(api, requests(2), Journal(journal_url, accept_new_key=True))
    assert f"belongs to {fake_suno.base_url}/suno/persona/create, " in caught.value.message
    assert caught.value.message.endswith(f"this client sends to {other.base_url}/suno/persona/create")
    assert other.requests == []


async def test_a_client_with_another_key_cannot_use_the_journal(journal_url: str, service: HeldService) -> None:
    """The error says what to do if the key was rotated within the account."""
    async with client(service) as api:
        batch = asyncio.create_task(run_batch(api, requests(1), Journal(journal_url)))
        await service.receives(1)
        service.respond(0)
        await batch
    async with PersonaAPI(f"{KEY}-new", base_url=service.base_url) as api:
        with pytest.raises(JournalError, match=r"another API key of .*; accept_new_key=True \(--accept-new-key\)"):
            await run_batch(api, requests(1), Journal(journal_url))
        found = await run_batch(api, requests(1), Journal(journal_url, accept_new_key=True))
        assert found[0].persona is not None
        again = await run_batch(api, requests(1), Journal(journal_url))
        assert again[0].persona is not None
    async with client(service) as api:
        with pytest.raises(JournalError, match="another API key"):
            await run_batch(api, requests(1), Journal(journal_url))
    await service.receives(1)


async def test_a_trailing_slash_and_the_case_of_the_host_make_no_other_service(
    journal_url: str, fake_suno: FakeSuno
) -> None:
    """Endpoints are compared without the trailing slash, and by the host in lower case."""
    base_url = fake_suno.base_url.replace("127.0.0.1", "localhost")
    for url, path in ((base_url, "/suno/persona/create/"), (base_url.upper(), "/suno/persona/create")):
        async with PersonaAPI(fake_suno.api_key, base_url=url, create_path=path) as api:
            assert (await run_batch(api, requests(1), Journal(journal_url)))[0].persona is not None
    assert len(fake_suno.requests) == 1


async def test_the_first_claim_binds_the_journal(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI, other: FakeSuno
) -> None:
    """Opening the journal does not bind it, nor does a run without a request."""
    async with Journal(journal_url) as journal:
        assert await journal.counts() == {}
    await run_batch(persona_api, [], Journal(journal_url))
    async with PersonaAPI(other.api_key, base_url=other.base_url) as api:
        await run_batch(api, requests(1), Journal(journal_url))
        with pytest.raises(JournalError, match="belongs to"):
            await run_batch(persona_api, requests(1), Journal(journal_url))
    assert fake_suno.requests == []


async def test_only_one_of_two_concurrent_runs_binds_the_journal(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI, other: FakeSuno
) -> None:
    """Both find the journal unbound; the second claim fails, and its run sends nothing."""
    async with PersonaAPI(other.api_key, base_url=other.base_url) as api, Journal(journal_url) as journal:
        runs = asyncio.gather(
            run_batch(persona_api, requests(3), journal), run_batch(api, requests(3), journal), return_exceptions=True
        )
        results = await runs
    assert sorted(type(result).__name__ for result in results) == ["JournalError", "dict"]
    assert sorted([len(fake_suno.requests), len(other.requests)]) == [0, 3]
    assert await states(journal_url) == ["created"] * 3


async def test_the_claim_of_another_account_is_not_recorded(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI, other: FakeSuno
) -> None:
    """The journal has only the requests of the account to which it belongs."""
    async with (
        PersonaAPI(other.api_key, base_url=other.base_url) as api,
        Journal(journal_url) as one,
        Journal(journal_url) as two,
    ):
        batches = [run_batch(persona_api, requests(1), one), run_batch(api, requests(2), two)]
        await asyncio.gather(*batches, return_exceptions=True)
    bound = [fake for fake in (fake_suno, other) if fake.requests]
    assert len(bound) == 1
    assert len(await entries(journal_url)) == len(bound[0].requests)


async def test_the_fingerprint_does_not_reveal_the_key(
    journal_url: str, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """The fingerprint is salted: two journals of one account have different ones."""
    other_url = str(tmp_path / "another.db")
    for url in (journal_url, other_url):
        await run_batch(persona_api, requests(1), Journal(url))
    ((version, salt, endpoint, fingerprint),) = execute(
        journal_url, "SELECT version, salt, endpoint, fingerprint FROM suno_persona_schema"
    )
    assert version == 2
    assert len(str(salt)) == 32
    assert str(endpoint).endswith("/suno/persona/create")
    assert len(str(fingerprint)) >= 32
    ((another,),) = execute(other_url, "SELECT fingerprint FROM suno_persona_schema")
    assert fingerprint != another
