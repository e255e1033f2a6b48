"""`enqueue`, `worker` and `results`: from an empty database to the outcomes of a batch, on many machines."""

import asyncio
import re
import shlex
import signal
from pathlib import Path

import psycopg
import pytest
from support.calls import requests
from support.command import COMMAND, Done, run, run_process, start, until
from support.held_service import HeldService
from support.rows import HEADER, read_outcomes, rows, write_file
from support.terminal import CTRL_C, terminal
from support.workers import worker

from suno_persona.distributed import enqueue, make_app
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow

NO_WORKER = b"no worker is running: start one with suno-persona worker"


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
    command = (COMMAND, "worker", "--max-connections", "2")
    async with worker(*command, env=queue_env) as first, worker(*command, env=queue_env) as second:
        for process in (first, second):
            await until(b"worker started: at most 2 requests in flight\n", process.stderr)
        done = await run(COMMAND, "results", file, env=queue_env)
    assert [first.returncode, second.returncode, done.status] == [0, 0, 1]
    assert re.search(r"created +│ +20 .*not created +│ +1 ", done.errors, re.DOTALL)
    assert re.search(r"line 22, 'N': .*clip unknown-1 does not exist", done.errors)
    found = {line["line"]: (line["custom_id"], line["persona_id"]) for line in read_outcomes(done.output)}
    created = {persona.name: persona.id for persona in fake_suno.personas}
    wanted = {number + 2: (f"id-{number}", created[f"Voice {number}"]) for number in range(20)}
    assert found == {**wanted, 22: ("bad", None)}
    assert len(fake_suno.requests) == 21


async def test_a_file_is_enqueued_once(queue_env: dict[str, str], tmp_path: Path) -> None:
    """A second time adds only what was not created, if an option says so; the output has each outcome once."""
    file, output = write_file(tmp_path, rows(3) + "unknown-1,N,D,,\n"), tmp_path / "out.jsonl"
    await run(COMMAND, "enqueue", file, env=queue_env)
    async with worker(COMMAND, "worker", env=queue_env):
        for _ in range(2):
            done = await run(COMMAND, "results", "--output", str(output), env=queue_env)
            assert (done.status, done.output) == (1, "")
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
    """If two find no tables at the same time, the second waits for a lock, and then finds those of the first."""
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


async def test_results_say_that_no_worker_is_alive(queue_env: dict[str, str], postgres_url: str) -> None:
    """The line is logged at once; when a worker starts, the outcomes follow."""
    await enqueue(make_app(postgres_url), requests(3))
    process = await start(COMMAND, "results", env=queue_env)
    shown = await until(NO_WORKER, process.stderr)
    assert b"0 of 3: 0 created, 0 not created, 0 unknown; 3 queued, 0 in flight; " in shown
    async with worker(COMMAND, "worker", env=queue_env):
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert len(read_outcomes(output.decode())) == 3


async def test_a_terminal_shows_what_results_wait_for(service: HeldService, postgres_url: str) -> None:
    """Below the bar are the counts of requests that are queued and in flight; Ctrl-C ends the command at once."""
    await enqueue(make_app(postgres_url), requests(3))
    env = service.env | {"SUNO_JOURNAL_URL": postgres_url}
    async with terminal(COMMAND, "results", env=env) as (screen, process):
        await screen.until("0/3")
        await screen.until("3 queued, 0 in flight; no worker is running")
        async with worker(COMMAND, "worker", "--max-connections", "2", "--grace", "0", env=env):
            await screen.until("1 queued, 2 in flight")
            screen.type(CTRL_C)
            await screen.until("to resume: suno-persona results")
    assert process.returncode == 130


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_results_at_once(
    which: signal.Signals, queue_env: dict[str, str], postgres_url: str, tmp_path: Path
) -> None:
    """The command prints how to resume it."""
    await enqueue(make_app(postgres_url), requests(3))
    command = ("results", write_file(tmp_path, rows(3)), "--output", str(tmp_path / "out.jsonl"))
    process = await start(COMMAND, *command, env=queue_env)
    await until(NO_WORKER, process.stderr)
    process.send_signal(which)
    _, errors = await process.communicate()
    assert process.returncode == 128 + which
    assert errors.decode() == f"suno-persona: to resume: suno-persona {shlex.join(command)}\n"


async def test_results_report_rows_that_were_not_enqueued(queue_env: dict[str, str], tmp_path: Path) -> None:
    """The status is not 0, and the message says what to do: also if nothing is enqueued, which is no success."""
    file = write_file(tmp_path, rows(3))
    await run(COMMAND, "batch", write_file(tmp_path, rows(2), "first.csv"), env=queue_env)
    none = await run(COMMAND, "results", env=queue_env)
    hint = "enqueue a file first: suno-persona enqueue FILE"
    assert none == Done(2, "", f"suno-persona: no request is enqueued: {hint}\n")
    await run(COMMAND, "enqueue", write_file(tmp_path, rows(2), "first.csv"), env=queue_env)
    some = await run(COMMAND, "results", file, env=queue_env)
    assert some.status == 1
    assert f"1 row of {file} is not enqueued; to enqueue it: suno-persona enqueue {file}\n" in some.errors
    assert sorted(line["line"] for line in read_outcomes(some.output)) == [2, 3]
    full = await run("sh", "-c", f"{COMMAND} results > /dev/full", env=queue_env)
    assert full == Done(2, "", "suno-persona: the output cannot be written: No space left on device\n")
