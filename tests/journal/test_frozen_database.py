"""A PostgreSQL server that no longer responds, does not accept an option, or is behind a pooler."""

import asyncio
from pathlib import Path

import pytest
from support.calls import requests
from support.databases import frozen, needs_linux, needs_pgbouncer, own_server, pooler
from support.journals import run_batch

from suno_persona import JournalError, PersonaAPI
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow


@needs_linux
async def test_a_transaction_on_a_frozen_server_times_out(
    fake_suno: FakeSuno, once: PersonaAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises a `JournalError` that says how long it took; nothing is sent, and the journal closes."""
    monkeypatch.setattr("suno_persona.journal._database.TRANSACTION", 1)
    with own_server() as server:
        journal = Journal(f"{server.get_uri()}&connect_timeout=2")
        async with journal:
            pid = server.get_pid()
            assert pid is not None
            with frozen(pid):
                with pytest.raises(JournalError, match="took longer than 1 s"):
                    await run_batch(once, requests(3), journal)
                assert fake_suno.requests == []
                with pytest.raises(JournalError, match="cannot be read or written"):
                    await journal.counts()
            assert await journal.counts() == {}


@pytest.mark.parametrize("option", ["nonsense=1", "connect_timeout=soon", "sslmode=maybe"])
async def test_an_invalid_option_of_the_driver_is_an_error(postgres_url: str, option: str) -> None:
    """The message names the option."""
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}{option}"
    with pytest.raises(JournalError, match=option.partition("=")[0]):
        async with Journal(url):
            pass


async def test_the_url_may_have_an_option_of_the_driver(postgres_url: str) -> None:
    """A URL with `connect_timeout` opens the journal."""
    async with Journal(f"{postgres_url}{'&' if '?' in postgres_url else '?'}connect_timeout=5") as journal:
        assert await journal.counts() == {}


@needs_pgbouncer
async def test_batches_run_through_a_pooler_in_transaction_mode(
    postgres_url: str, fake_suno: FakeSuno, once: PersonaAPI, tmp_path: Path
) -> None:
    """Three batches run concurrently: no transaction needs what an earlier one left on its connection."""
    with pooler(postgres_url, tmp_path) as url:
        batches = await asyncio.gather(*(run_batch(once, requests(200), Journal(url)) for _ in range(3)))
        created = {outcome.persona.id for batch in batches for outcome in batch.values() if outcome.persona}
        async with Journal(url) as journal:
            assert await journal.counts() == {"created": 200}
    assert len(fake_suno.requests) == len(created) == 200
