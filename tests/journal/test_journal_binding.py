"""A journal belongs to one service and one account: a run of another client fails before anything is sent."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from support.calls import requests
from support.journals import run_batch, states

from suno_persona import JournalError, PersonaAPI
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


@pytest.fixture
async def other(fake_suno: FakeSuno) -> AsyncIterator[FakeSuno]:
    """Yield another service."""
    async with FakeSuno() as other:
        yield other


@pytest.fixture
async def other_api(other: FakeSuno) -> AsyncIterator[PersonaAPI]:
    """Yield a client of the other service."""
    async with PersonaAPI(other.api_key, base_url=other.base_url) as api:
        yield api


async def test_the_first_claim_binds_the_journal_to_a_service(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI, other: FakeSuno, other_api: PersonaAPI
) -> None:
    """A run without a request does not; later, another service gets no request, recorded or new, on no terms."""
    await run_batch(other_api, [], Journal(journal_url))
    await run_batch(persona_api, requests(1), Journal(journal_url))
    with pytest.raises(JournalError) as caught:
        await run_batch(other_api, requests(2), Journal(journal_url, accept_new_key=True))
    assert f"belongs to {fake_suno.base_url}/suno/persona/create, " in caught.value.message
    assert caught.value.message.endswith(f"this client sends to {other.base_url}/suno/persona/create")
    assert other.requests == []


async def test_a_client_with_another_key_cannot_use_the_journal(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """The error says what to do if the key was rotated within the account."""
    await run_batch(persona_api, requests(1), Journal(journal_url))
    async with PersonaAPI("sk-rotated", base_url=fake_suno.base_url) as api:
        with pytest.raises(JournalError, match=r"another API key of .*; accept_new_key=True \(--accept-new-key\)"):
            await run_batch(api, requests(1), Journal(journal_url))
        for journal in (Journal(journal_url, accept_new_key=True), Journal(journal_url)):
            assert (await run_batch(api, requests(1), journal))[0].persona is not None
    with pytest.raises(JournalError, match="another API key"):
        await run_batch(persona_api, requests(1), Journal(journal_url))
    assert len(fake_suno.requests) == 1


async def test_a_trailing_slash_and_the_case_of_the_host_make_no_other_service(
    journal_url: str, fake_suno: FakeSuno
) -> None:
    """Endpoints are compared without the trailing slash, and by the host in lower case."""
    base_url = fake_suno.base_url.replace("127.0.0.1", "localhost")
    for url, path in ((base_url, "/suno/persona/create/"), (base_url.upper(), "/suno/persona/create")):
        async with PersonaAPI(fake_suno.api_key, base_url=url, create_path=path) as api:
            assert (await run_batch(api, requests(1), Journal(journal_url)))[0].persona is not None
    assert len(fake_suno.requests) == 1


@pytest.mark.parametrize("is_shared", [True, False], ids=["one journal object", "two"])
async def test_only_one_of_two_concurrent_runs_binds_the_journal(
    journal_url: str,
    fake_suno: FakeSuno,
    persona_api: PersonaAPI,
    other: FakeSuno,
    other_api: PersonaAPI,
    is_shared: bool,
) -> None:
    """Both find the journal unbound; the second claim fails, its run sends nothing, and it is not recorded."""
    async with Journal(journal_url) as one, Journal(journal_url) as two:
        results = await asyncio.gather(
            run_batch(persona_api, requests(3), one),
            run_batch(other_api, requests(3), one if is_shared else two),
            return_exceptions=True,
        )
    assert sorted(type(result).__name__ for result in results) == ["JournalError", "dict"]
    assert sorted([len(fake_suno.requests), len(other.requests)]) == [0, 3]
    assert await states(journal_url) == ["created"] * 3


async def test_the_fingerprint_does_not_reveal_the_key(tmp_path: Path, persona_api: PersonaAPI) -> None:
    """The fingerprint is salted: two journals of one account have different ones."""
    found = []
    for file in (tmp_path / "one.db", tmp_path / "two.db"):
        await run_batch(persona_api, requests(1), Journal(file))
        with closing(sqlite3.connect(file)) as database:
            found += database.execute("SELECT salt, fingerprint FROM suno_persona_schema").fetchall()
    (salt, fingerprint), (another_salt, another) = found
    assert fingerprint != another
    assert salt != another_salt
    assert min(len(salt), len(fingerprint)) >= 32
