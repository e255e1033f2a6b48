"""A batch that is killed at any moment, or run twice concurrently, creates nothing twice and loses nothing."""

import asyncio
import json
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from support.command import COMMAND, run, run_process, start

from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow

ROWS = 100
KILLS = 5
REJECTED = {f"Voice {number}" for number in range(0, ROWS, 10)}


def rows(folder: Path) -> str:
    """Return a file of distinct requests, some of which the service rejects."""
    file = folder / "rows.csv"
    names = [f"Voice {number}" for number in range(ROWS)]
    lines = [f"{'unknown-' if name in REJECTED else ''}clip,{name},Airy pop" for name in names]
    file.write_text("\n".join(["root_clip_id,name,description", *lines]))
    return str(file)


def sent(fake: FakeSuno) -> Counter[str]:
    """Return how often the service received each request."""
    return Counter(request.json()["name"] for request in fake.requests)  # type: ignore[index]  # it is JSON


def intact(journal_url: str) -> bool:
    """Return whether SQLite finds no damage in the journal; PostgreSQL's server was not killed."""
    if "://" in journal_url or not Path(journal_url).exists():
        return True
    with closing(sqlite3.connect(journal_url)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def assert_accounted_for(fake: FakeSuno, journal_url: str, output: Path) -> None:
    """Assert that journal and output agree on each request, and that no persona is lost."""
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


@pytest.mark.parametrize("seed", range(5))
async def test_a_batch_that_is_killed_creates_nothing_twice_and_loses_nothing(
    seed: int, fake_suno: FakeSuno, env: dict[str, str], journal_url: str, tmp_path: Path
) -> None:
    """SIGKILL strikes 25 times, after random numbers of requests and loop turns; each time the batch is rerun."""
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
        for _ in range(rng.randrange(300)):
            await asyncio.sleep(0)
        if process.returncode is None:
            process.kill()
        await process.communicate()
        assert intact(journal_url)
    done = await run(*command, env=env)
    assert done.status == 3, done.errors
    assert {name for name, times in sent(fake_suno).items() if times > 1} <= REJECTED  # which certainly created nothing
    await assert_accounted_for(fake_suno, journal_url, output)


async def test_two_concurrent_processes_send_nothing_twice(
    fake_suno: FakeSuno, env: dict[str, str], journal_url: str, tmp_path: Path
) -> None:
    """They share the work, beginning with the creation of the journal, and a last run reports all outcomes."""
    file, output = rows(tmp_path), tmp_path / "out.jsonl"
    command = (COMMAND, "batch", file, "--journal", journal_url)
    done = await asyncio.gather(run_process(*command, env=env), run_process(*command, env=env))
    assert {one.status for one in done} <= {1, 3}, done
    assert len(sent(fake_suno)) == ROWS
    # A request that was rejected before the other process began may be retried by that process.
    assert {name for name, times in sent(fake_suno).items() if times > 1} <= REJECTED
    assert (await run(*command, "--output", str(output), env=env)).status == 1
    await assert_accounted_for(fake_suno, journal_url, output)
