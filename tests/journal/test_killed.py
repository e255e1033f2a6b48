"""A batch that is killed at any moment, or run twice concurrently, creates nothing twice and loses nothing.

First real processes; then every other way in which a batch with a journal ends, each of which leaves correct records.
"""

import asyncio
import json
import random
import sqlite3
from collections import Counter
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from support.calls import requests
from support.clock import Clock
from support.command import COMMAND, run, run_process, start
from support.held_service import HeldService, client, first_outcome, opened
from support.idle import idle, turns
from support.journals import entries, run_batch, states

from suno_persona import OutcomeUnknownError, Persona, PersonaAPI, UsageError
from suno_persona._response import Ended
from suno_persona.conversion import dump_request
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

ROWS = 100
KILLS = 4
REJECTED = {f"Voice {number}" for number in range(0, ROWS, 10)}


def rows(folder: Path) -> str:
    """Return a file of distinct requests, some of which the service rejects."""
    file = folder / "rows.csv"
    names = [f"Voice {number}" for number in range(ROWS)]
    lines = [f"{'unknown-' if name in REJECTED else ''}clip,{name},Airy pop" for name in names]
    file.write_text("\n".join(["root_clip_id,name,description", *lines]))
    return str(file)


def intact(journal_url: str) -> bool:
    """Return whether SQLite finds no damage in the journal; PostgreSQL's server was not killed."""
    if "://" in journal_url or not Path(journal_url).exists():
        return True
    with closing(sqlite3.connect(journal_url)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def assert_accounted_for(fake: FakeSuno, journal_url: str, output: Path) -> None:
    """Assert that nothing was sent twice, journal and output agree on each request, and no persona is lost."""
    sent = Counter(request.json()["name"] for request in fake.requests)  # type: ignore[index]  # it is JSON
    assert {name for name, times in sent.items() if times > 1} <= REJECTED  # which certainly created nothing
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    reported = {line["request"]["name"]: line["state"] for line in lines}
    assert len(lines) == len({(line["key"], line["state"], line["persona_id"]) for line in lines})
    assert len(reported) == ROWS
    async with Journal(journal_url) as journal:
        entries = {entry.request.name: entry async for entry in journal.entries()}
    assert len(entries) == ROWS
    for persona in fake.personas:
        entry = entries[str(persona.name)]
        assert entry.persona_id == persona.id or entry.state in ("unknown", "claimed")
    for name, entry in entries.items():
        assert reported[name] == entry.state.replace("claimed", "unknown")
        assert name in REJECTED if entry.state == "not_created" else True


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_a_batch_that_is_killed_creates_nothing_twice_and_loses_nothing(
    seed: int, fake_suno: FakeSuno, env: dict[str, str], journal_url: str, tmp_path: Path
) -> None:
    """SIGKILL strikes after random numbers of requests and loop turns; each time the batch is rerun."""
    rng = random.Random(seed)
    file, output = rows(tmp_path), tmp_path / "out.jsonl"
    command = (COMMAND, "batch", file, "--journal", journal_url, "--output", str(output), "--max-connections", "4")
    for _ in range(KILLS):
        process = await start(*command, env=env)
        enough = asyncio.ensure_future(
            fake_suno.wait_for_requests(len(fake_suno.requests) + rng.randrange(1, 2 * ROWS // KILLS))
        )
        ended = asyncio.create_task(process.wait())
        await asyncio.wait([enough, ended], return_when=asyncio.FIRST_COMPLETED)
        enough.cancel()
        await turns(rng.randrange(300))
        if process.returncode is None:
            process.kill()
        await process.communicate()
        assert intact(journal_url)
    done = await run(*command, env=env)
    assert done.status == 3, done.errors
    await assert_accounted_for(fake_suno, journal_url, output)


@pytest.mark.slow
async def test_two_concurrent_processes_send_nothing_twice(
    fake_suno: FakeSuno, env: dict[str, str], journal_url: str, tmp_path: Path
) -> None:
    """They share the work, beginning with the creation of the journal, and a last run reports all outcomes."""
    file, output = rows(tmp_path), tmp_path / "out.jsonl"
    command = (COMMAND, "batch", file, "--journal", journal_url)
    done = await asyncio.gather(run_process(*command, env=env), run_process(*command, env=env))
    assert {one.status for one in done} <= {1, 3}, done
    assert (await run(*command, "--output", str(output), env=env)).status == 1
    await assert_accounted_for(fake_suno, journal_url, output)


async def test_an_outcome_is_committed_before_it_is_yielded(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """When a batch yields an outcome, the journal has it already."""
    fake_suno.script(Fault.response(404), Fault.lost_response())
    async with aclosing(once.create_many(requests(6), journal=Journal(journal_url))) as outcomes:
        async for outcome in outcomes:
            by_name = {entry.request.name: entry for entry in await entries(journal_url)}
            state = "created" if outcome.error is None else ("not_created", "unknown")[outcome.error.may_have_created]
            assert by_name[outcome.request.name].state == state
            assert by_name[outcome.request.name].persona == outcome.persona


async def test_a_cancelled_batch_records_what_is_known(journal_url: str, service: HeldService, advance: Clock) -> None:
    """Requests in flight are unknown; those that wait for another attempt or for a slot were not created."""
    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(run_batch(api, requests(9), Journal(journal_url), 2))
        await service.receives(2)
        service.reject(0, retry_after=20)
        await idle()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
    assert await states(journal_url) == ["not_created", "unknown"]


@pytest.mark.parametrize("points", range(0, 60, 3))
async def test_cancelling_at_any_moment_loses_nothing(points: int, tmp_path: Path, fake_suno: FakeSuno) -> None:
    """Every claim has an outcome, and the next run sends only what was certainly not created."""
    url = str(tmp_path / "personas.db")
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url) as api:
        batch = asyncio.create_task(run_batch(api, requests(3), Journal(url)))
        await turns(points)
        while points > 30 and not fake_suno.requests:
            await asyncio.sleep(0)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        assert "claimed" not in await states(url)
        outcomes = await run_batch(api, requests(3), Journal(url))
    bodies = [request.body for request in fake_suno.requests]
    assert len(bodies) == len(set(bodies))
    for outcome in outcomes.values():
        assert outcome.persona or isinstance(outcome.error, OutcomeUnknownError)


async def test_a_reader_that_stops_early_has_all_outcomes_recorded(
    journal_url: str, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests in flight finish, and are recorded for the next run; so nothing is logged."""
    async with client(service, max_connections=3) as api:
        outcomes = api.create_many(opened(requests(9), 3), journal=Journal(journal_url))
        await first_outcome(service, outcomes, 3)
        await service.receives(4)
        closing = asyncio.create_task(outcomes.aclose())
        for number in (1, 2, 3):
            service.respond(number)
        await closing
    assert [record for record in caplog.records if record.name == "suno_persona"] == []
    assert await states(journal_url) == ["created"] * 4


@pytest.mark.posix
async def test_an_id_that_neither_the_journal_nor_the_reader_has_is_logged(
    tmp_path: Path, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """Here somebody deletes the journal, and the reader leaves."""
    file = tmp_path / "personas.db"
    async with client(service, max_connections=2) as api:
        outcomes = api.create_many(opened(requests(9), 2), journal=Journal(file))
        await first_outcome(service, outcomes, 2)
        await service.receives(3)
        file.unlink()
        closing = asyncio.create_task(outcomes.aclose())
        await idle()
        service.respond_to_all()
        await closing
    lines = {f"persona {name} was created, and its outcome was not read" for name in ("persona-2", "persona-3")}
    assert lines <= set(caplog.messages)


async def test_closing_a_journal_commits_pending_outcomes(journal_url: str, persona_api: PersonaAPI) -> None:
    """Outcomes are committed even if nothing awaits them and the closing task is cancelled meanwhile."""

    async def settle() -> None:
        async with Journal(journal_url) as journal:
            run = await journal.begin(persona_api.account)
            body = dump_request(requests(1)[0])
            key = run.key(body)
            assert await run.claim(key, body) is None
            settling = asyncio.create_task(run.settle(key, Ended(Persona(id="fd213afd"))))
            await asyncio.sleep(0)
            settling.cancel()
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # it is in one

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(settle())
    assert await states(journal_url) == ["created"]


async def test_a_journal_is_opened_and_closed_by_the_batch_or_by_its_owner(
    journal_url: str, persona_api: PersonaAPI
) -> None:
    """Whether it is open or not, it serves one batch after another; reading a closed one raises `UsageError`."""
    journal = Journal(journal_url)
    await run_batch(persona_api, requests(1), journal)
    with pytest.raises(UsageError, match="not open"):
        await journal.counts()
    async with journal:
        await run_batch(persona_api, requests(2), journal)
        await run_batch(persona_api, requests(3), journal)
        assert await journal.counts() == {"created": 3}
