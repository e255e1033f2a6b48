"""`enqueue`, `worker` and `results`: from an empty database to the outcomes of a batch, on many machines."""

import asyncio
import re
from pathlib import Path

import psycopg
import pytest
from support.command import COMMAND, Done, run, run_process, start
from support.rows import HEADER, read_outcomes, rows, write_file

from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow


@pytest.fixture
def queue_env(env: dict[str, str], postgres_url: str) -> dict[str, str]:
    """Return the environment of the commands, with an empty database."""
    return env | {"SUNO_JOURNAL_URL": postgres_url}


async def test_three_commands_create_the_personas_of_a_file(
    fake_suno: FakeSuno, queue_env: dict[str, str], tmp_path: Path
) -> None:
    """Two workers share the rows; each outcome has its row's line and `custom_id`, and the summary counts them."""
    header, *_ = HEADER.split("\n")
    content = "".join(f"clip,Voice {number},Airy pop,,,id-{number}\n" for number in range(20))
    file = write_file(tmp_path, f"{header},custom_id\n{content}unknown-1,N,D,,,bad\n")
    assert await run(COMMAND, "enqueue", file, env=queue_env) == Done(0, "21 of 21 requests enqueued\n", "")
    workers = [await start(COMMAND, "worker", "--max-connections", "2", env=queue_env) for _ in range(2)]
    done = await run(COMMAND, "results", file, env=queue_env)
    for worker in workers:
        worker.terminate()
    said = [(await worker.communicate())[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert all(b"worker started: at most 2 requests in flight\n" in lines for lines in said)
    assert done.status == 1
    assert re.search(r"created +│ +20 .*not created +│ +1 ", done.errors, re.DOTALL)
    assert re.search(r"line 22, 'N': .*clip unknown-1 does not exist", done.errors)
    found = {line["line"]: (line["custom_id"], line["persona_id"]) for line in read_outcomes(done.output)}
    created = {persona.name: persona.id for persona in fake_suno.personas}
    wanted = {number + 2: (f"id-{number}", created[f"Voice {number}"]) for number in range(20)}
    assert found == {**wanted, 22: ("bad", None)}
    assert len(fake_suno.requests) == 21


async def test_a_file_is_enqueued_once(fake_suno: FakeSuno, queue_env: dict[str, str], tmp_path: Path) -> None:
    """A second time adds only what was not created, if an option says so; the output has each outcome once."""
    file, output = write_file(tmp_path, rows(3) + "unknown-1,N,D,,\n"), tmp_path / "out.jsonl"
    await run(COMMAND, "enqueue", file, env=queue_env)
    worker = await start(COMMAND, "worker", env=queue_env)
    for _ in range(2):
        done = await run(COMMAND, "results", "--output", str(output), env=queue_env)
        assert (done.status, done.output) == (1, "")
    worker.terminate()
    await worker.communicate()
    assert [line["line"] for line in read_outcomes(output.read_text())] == [None] * 4
    to_stdout = await run(COMMAND, "results", env=queue_env)
    assert sorted(to_stdout.output.splitlines()) == sorted(output.read_text().splitlines())
    again = await run(COMMAND, "enqueue", file, env=queue_env)
    assert again.output == "0 of 4 requests enqueued; the others were enqueued before\n"
    retried = await run(COMMAND, "enqueue", file, "--retry-not-created", env=queue_env)
    assert retried.output.startswith("1 of 4 requests enqueued")


async def test_the_first_enqueue_creates_the_tables(
    postgres_url: str, queue_env: dict[str, str], tmp_path: Path
) -> None:
    """If two find no tables at the same time, both succeed."""
    lock = "SELECT pg_advisory_lock(hashtext('suno_persona.queue'))"
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(lock)
        processes = [
            await start(COMMAND, "enqueue", write_file(tmp_path, rows(count), f"{count}.csv"), env=queue_env)
            for count in (2, 1)
        ]
        # Because of the shared row, one of them waits for the other's transaction, which waits for the lock.
        while connection.execute(waiting).fetchone() == (0,):
            await asyncio.sleep(0)
    ended = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone() == (2,)


async def test_a_waiting_enqueue_uses_the_tables_of_the_first(
    postgres_url: str, queue_env: dict[str, str], tmp_path: Path
) -> None:
    """Both find no tables; the second waits for the lock, and then finds those of the first."""
    lock = "SELECT pg_advisory_lock(hashtext('suno_persona.queue'))"
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    files = [write_file(tmp_path, HEADER + f"clip,Voice {number},D,,\n", f"{number}.csv") for number in range(2)]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(lock)
        processes = [await start(COMMAND, "enqueue", file, env=queue_env) for file in files]
        while connection.execute(waiting).fetchone() != (2,):
            await asyncio.sleep(0)
    ended = [await process.communicate() for process in processes]
    assert [output for output, _ in ended] == [b"1 of 1 request enqueued\n"] * 2, ended


async def test_a_file_with_bad_rows_is_not_enqueued(queue_env: dict[str, str], tmp_path: Path) -> None:
    """Each bad row is reported with its line, as in `batch`; so is a journal that is not a PostgreSQL database."""
    done = await run(COMMAND, "enqueue", write_file(tmp_path, HEADER + "c,,D,,\n"), env=queue_env)
    assert done.status == 2
    assert "rows.csv:2: name must be non-empty text" in done.errors
    none = await run(COMMAND, "enqueue", write_file(tmp_path, rows(1)), "--journal", "personas.db", env=queue_env)
    message = "suno-persona: journal must be the URL of a PostgreSQL database; got personas.db\n"
    assert none == Done(2, "", message)


@pytest.mark.parametrize("command", ["enqueue", "worker", "results"])
async def test_a_missing_extra_is_reported_in_one_line(command: str, env: dict[str, str], tmp_path: Path) -> None:
    """The line names what to install."""
    (tmp_path / "procrastinate.py").write_text("raise ModuleNotFoundError('no', name='procrastinate')")
    env |= {"SUNO_JOURNAL_URL": "postgresql://host/x", "PYTHONPATH": str(tmp_path)}
    file = [] if command == "worker" else [write_file(tmp_path, rows(1))]
    done = await run_process(COMMAND, command, *file, env=env)
    hint = "batches on many machines need the distributed extra: pip install 'suno-persona[distributed]'"
    assert done == Done(2, "", f"suno-persona: {hint}\n")
