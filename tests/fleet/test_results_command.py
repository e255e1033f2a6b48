"""`suno-persona results` shows what it waits for, ends at once, and misses nothing when it is run again."""

import shlex
import signal
from pathlib import Path

import pytest
from support.calls import requests
from support.command import COMMAND, Done, run, start, until
from support.databases import frozen, needs_linux, own_server
from support.held_service import HeldService
from support.rows import read_outcomes, rows, write_file
from support.terminal import CTRL_C, terminal

from suno_persona.distributed import enqueue, make_app

pytestmark = pytest.mark.slow

NO_WORKER = "no worker is running: start one with suno-persona worker"


async def test_it_says_that_no_worker_is_alive(env: dict[str, str], postgres_url: str) -> None:
    """The line is logged at once; when a worker starts, the outcomes follow."""
    await enqueue(make_app(postgres_url), requests(3))
    env |= {"SUNO_JOURNAL_URL": postgres_url}
    process = await start(COMMAND, "results", env=env)
    shown = await until(NO_WORKER.encode(), process.stderr)
    assert b"0 of 3: 0 created, 0 not created, 0 unknown; 3 queued, 0 in flight; " in shown
    worker = await start(COMMAND, "worker", env=env)
    output, _ = await process.communicate()
    worker.terminate()
    await worker.communicate()
    assert process.returncode == 0
    assert len(read_outcomes(output.decode())) == 3


async def test_a_terminal_shows_what_it_waits_for(service: HeldService, postgres_url: str) -> None:
    """Below the bar are the counts of requests that are queued and in flight; Ctrl-C ends the command at once."""
    await enqueue(make_app(postgres_url), requests(3))
    env = service.env | {"SUNO_JOURNAL_URL": postgres_url}
    async with terminal(COMMAND, "results", env=env) as (screen, process):
        await screen.until("0/3")
        await screen.until("3 queued, 0 in flight; no worker is running")
        worker = await start(COMMAND, "worker", "--max-connections", "2", "--grace", "0", env=env)
        await screen.until("1 queued, 2 in flight")
        screen.type(CTRL_C)
        await screen.until("to resume: suno-persona results")
    assert process.returncode == 130
    worker.terminate()
    await worker.communicate()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_at_once(
    which: signal.Signals, env: dict[str, str], postgres_url: str, tmp_path: Path
) -> None:
    """The command prints how to resume it."""
    await enqueue(make_app(postgres_url), requests(3))
    command = ("results", write_file(tmp_path, rows(3)), "--output", str(tmp_path / "out.jsonl"))
    process = await start(COMMAND, *command, env=env | {"SUNO_JOURNAL_URL": postgres_url})
    await until(NO_WORKER.encode(), process.stderr)
    process.send_signal(which)
    _, errors = await process.communicate()
    assert process.returncode == 128 + which
    assert errors.decode() == f"suno-persona: to resume: suno-persona {shlex.join(command)}\n"


@needs_linux
async def test_the_command_ends_at_once_while_its_database_hangs(env: dict[str, str]) -> None:
    """After SIGTERM, the command does not wait for a transaction."""
    with own_server() as server:
        url, pid = server.get_uri(), server.get_pid()
        assert pid is not None
        await enqueue(make_app(url), requests(3))
        process = await start(COMMAND, "results", env=env | {"SUNO_JOURNAL_URL": url})
        await until(NO_WORKER.encode(), process.stderr)
        with frozen(pid):
            process.terminate()
            await process.communicate()
    assert process.returncode == 143


async def test_rows_that_were_not_enqueued_are_reported(env: dict[str, str], postgres_url: str, tmp_path: Path) -> None:
    """The status is not 0, and the message says what to do."""
    env |= {"SUNO_JOURNAL_URL": postgres_url}
    file = write_file(tmp_path, rows(3))
    await run(COMMAND, "enqueue", write_file(tmp_path, rows(2), "first.csv"), env=env)
    worker = await start(COMMAND, "worker", env=env)
    done = await run(COMMAND, "results", file, env=env)
    worker.terminate()
    await worker.communicate()
    assert done.status == 1
    assert f"1 row of {file} is not enqueued; to enqueue it: suno-persona enqueue {file}\n" in done.errors
    assert [line["line"] for line in sorted(read_outcomes(done.output), key=lambda line: line["line"])] == [2, 3]


async def test_a_database_in_which_nothing_is_enqueued_has_no_results(
    env: dict[str, str], postgres_url: str, tmp_path: Path
) -> None:
    """The command reports this as an error, not as a success."""
    env |= {"SUNO_JOURNAL_URL": postgres_url}
    await run(COMMAND, "batch", write_file(tmp_path, rows(1)), env=env)
    done = await run(COMMAND, "results", env=env)
    hint = "enqueue a file first: suno-persona enqueue FILE"
    assert done == Done(2, "", f"suno-persona: no request is enqueued: {hint}\n")


async def test_results_that_cannot_be_written_are_reported(
    env: dict[str, str], postgres_url: str, tmp_path: Path
) -> None:
    """The error is one line; nothing is lost, since the journal has the outcomes."""
    env |= {"SUNO_JOURNAL_URL": postgres_url}
    await run(COMMAND, "batch", write_file(tmp_path, rows(1)), env=env)
    await run(COMMAND, "enqueue", write_file(tmp_path, rows(1)), env=env)
    done = await run("sh", "-c", f"{COMMAND} results > /dev/full", env=env)
    assert (done.status, done.errors) == (
        2,
        "suno-persona: the output cannot be written: No space left on device\n",
    )
