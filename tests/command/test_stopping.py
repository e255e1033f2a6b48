"""Signals end a command gracefully at first, then at once, and the journal has what they leave."""

import asyncio
import re
import shlex
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import COMMAND, CREATE, Done, run, start, until
from support.held_service import HeldService
from support.rows import read_outcomes, rows, write_file
from support.terminal import CTRL_C, terminal

from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


async def counts(file: str) -> dict[Any, int]:
    """Return the counts of a file's journal."""
    async with Journal.existing(f"{file}.journal") as journal:
        return dict(await journal.counts())


@pytest.mark.parametrize("which", SIGNALS)
async def test_a_signal_lets_the_calls_in_flight_finish(
    which: signal.Signals, service: HeldService, tmp_path: Path
) -> None:
    """Nothing more is sent, the command to resume is printed, and the status is the shell's for the signal."""
    file = write_file(tmp_path, rows(8))
    process = await start(COMMAND, "batch", file, "--max-connections", "2", env=service.env)
    created = await service.until_batch(2)
    process.send_signal(which)
    how = b"press Ctrl-C again" if which is signal.SIGINT else b"send %b again" % which.name.encode()
    await until(b"finishing the calls in flight; %b to cancel them\n" % how, process.stderr)
    service.respond_to_all()
    output, errors = await process.communicate()
    assert process.returncode == 128 + which
    assert b"to resume: suno-persona batch " in errors
    assert len(read_outcomes(output.decode())) == len(service.received) == created + 2
    assert await counts(file) == {"created": created + 2}


@pytest.mark.parametrize("which", SIGNALS)
async def test_a_second_signal_cancels_the_calls_in_flight(
    which: signal.Signals, service: HeldService, tmp_path: Path
) -> None:
    """Each cancelled call is recorded and written as unknown."""
    file = write_file(tmp_path, rows(8))
    process = await start(COMMAND, "batch", file, "--max-connections", "2", env=service.env)
    created = await service.until_batch(2)
    process.send_signal(signal.SIGTERM)
    await until(b"again to cancel them", process.stderr)
    process.send_signal(which)
    output, errors = await process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    states = [line["state"] for line in read_outcomes(output.decode())]
    assert states == ["created"] * created + ["unknown"] * 2
    assert b"to list unknown outcomes: " in errors
    assert (await counts(file))["unknown"] == 2


async def test_a_third_signal_ends_a_command_whose_database_hangs(service: HeldService, tmp_path: Path) -> None:
    """The claims are recorded, and it says so."""
    file = write_file(tmp_path, rows(8))
    process = await start(COMMAND, "batch", file, "--max-connections", "2", env=service.env)
    await service.until_batch(2)
    lock = sqlite3.connect(f"{file}.journal", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    process.send_signal(signal.SIGTERM)
    await until(b"again to cancel them", process.stderr)
    process.send_signal(signal.SIGINT)
    await until(b"the next signal ends the command at once", process.stderr)
    process.send_signal(signal.SIGHUP)
    _, errors = await process.communicate()
    lock.close()
    assert process.returncode == 128 + signal.SIGTERM
    assert b"suno-persona: ended at once with 2 requests in flight: claimed in the journal, outcome unknown" in errors
    assert b"suno-persona: to resume: suno-persona batch " in errors
    found = await counts(file)
    assert found["claimed"] == 2


@pytest.mark.parametrize("count", [1, 3])
async def test_a_signal_ends_a_command_whose_journal_does_not_open(
    count: int, service: HeldService, tmp_path: Path
) -> None:
    """A signal before the batch starts sends nothing."""
    file = write_file(tmp_path, rows(8))
    async with Journal(f"{file}.journal"):
        pass
    lock = sqlite3.connect(f"{file}.journal", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    process = await start(COMMAND, "batch", file, env=service.env)
    while not (Path("/proc") / str(process.pid) / "task").exists() or not _waits_for_the_journal(process.pid):
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    await until(b"again to cancel them", process.stderr)
    if count == 3:
        process.send_signal(signal.SIGINT)
        await until(b"the next signal ends the command at once", process.stderr)
        process.send_signal(signal.SIGINT)
        await until(b"ended at once with 0 requests in flight", process.stderr)
    lock.close()
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert (b"not sent" if count == 1 else b"to resume: ") in errors
    assert service.received == []


def _waits_for_the_journal(pid: int) -> bool:
    names = [(task / "comm").read_text() for task in (Path("/proc") / str(pid) / "task").iterdir()]
    return len(names) >= 2  # the main thread and the journal's


async def test_a_signal_that_is_ignored_stays_ignored(service: HeldService, tmp_path: Path) -> None:
    """Under nohup, the end of the terminal does not end the batch."""
    file = write_file(tmp_path, rows(2))
    process = await start("sh", "-c", f"trap '' HUP; exec {COMMAND} batch {shlex.quote(file)}", env=service.env)
    await service.until(1)
    process.send_signal(signal.SIGHUP)
    service.respond_to_all()
    output, errors = await process.communicate()
    assert process.returncode == 0
    assert b"finishing" not in errors
    assert len(read_outcomes(output.decode())) == 2


@pytest.mark.parametrize(("which", "status"), [*zip(SIGNALS, [130, 3, 3], strict=True)])
async def test_create_interrupted_in_flight_says_that_a_persona_may_exist(
    which: signal.Signals, status: int, fake_suno: FakeSuno, env: dict[str, str]
) -> None:
    """The message is one line, and the status shows a script that the outcome is unknown."""
    fake_suno.script(Fault.hang(creates=True))
    process = await start(COMMAND, *CREATE, env=env)
    await fake_suno.wait_for_requests(1)
    process.send_signal(which)
    output, errors = await process.communicate()
    assert (process.returncode, output) == (status, b"")
    assert errors == b"suno-persona: interrupted: a persona may exist; check before you retry\n"


@pytest.mark.parametrize(("which", "status"), [*zip(SIGNALS, [130, 1, 1], strict=True)])
async def test_create_interrupted_in_a_cool_down_says_that_none_was_created(
    which: signal.Signals, status: int, fake_suno: FakeSuno, env: dict[str, str]
) -> None:
    """During the cool-down after a 429, nothing is in flight."""
    fake_suno.script(Fault.rate_limited(retry_after=25))
    process = await start(COMMAND, *CREATE, "-v", env=env)
    await until(b"attempt 2 of 4 in ", process.stderr)
    process.send_signal(which)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (status, b"suno-persona: interrupted: no persona was created\n")


async def test_a_signal_after_the_id_was_printed_changes_nothing(env: dict[str, str], fake_suno: FakeSuno) -> None:
    """The persona was created, and the status says so."""
    code = """if True:
        import builtins, os, signal
        original = builtins.print
        def print_and_stop(*words, **options):
            original(*words, **options)
            os.kill(os.getpid(), signal.SIGTERM)
        builtins.print = print_and_stop
        from suno_persona.__main__ import main
        main()
    """
    done = await run(sys.executable, "-c", code, *CREATE, env=env)
    assert done == Done(0, f"{fake_suno.personas[0].id}\n", "")


async def test_a_terminal_that_is_gone_ends_the_batch_gracefully(service: HeldService, tmp_path: Path) -> None:
    """Outcomes are recorded even if they can no longer be shown."""
    file, output = write_file(tmp_path, rows(8)), tmp_path / "out.jsonl"
    arguments = ("batch", file, "--output", str(output), "--max-connections", "2")
    async with terminal(COMMAND, *arguments, env=service.env) as (screen, process):
        await service.until_batch(2)
        screen.hang_up()
        service.respond_to_all()
    assert process.returncode == 128 + signal.SIGHUP
    assert len(read_outcomes(output.read_text())) == len(service.received)
    assert (await counts(file))["created"] == len(service.received)


async def test_the_third_ctrl_c_leaves_a_usable_terminal(service: HeldService, tmp_path: Path) -> None:
    """The cursor is shown again, even if the process ends at once."""
    file = write_file(tmp_path, rows(8))
    async with terminal(COMMAND, "batch", file, "--max-connections", "2", env=service.env) as (screen, process):
        await service.until_batch(2)
        lock = sqlite3.connect(f"{file}.journal", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again to cancel them")
        screen.type(CTRL_C)
        await screen.until("the next signal ends the command at once")
        screen.type(CTRL_C)
        await process.wait()
        await screen.until("to resume: ")
        lock.close()
    assert process.returncode == 130
    assert re.search(r"2 requests in flight: claimed", screen.text)
    shown = screen.shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
