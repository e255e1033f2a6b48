"""The command in a real terminal: a pty, with Ctrl-C typed as a user types it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.command import COMMAND
from support.held_service import HeldService
from support.rows import rows, write_file
from support.terminal import CTRL_C, terminal

from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow


async def test_ctrl_c_stops_gracefully_and_prints_how_to_resume(service: HeldService, tmp_path: Path) -> None:
    """Calls in flight finish, nothing more is sent, the status is 130, and the printed command resumes."""
    file, output = write_file(tmp_path, rows(8)), tmp_path / "out.jsonl"
    arguments = ("batch", file, "--output", str(output), "--max-connections", "3")
    async with terminal(COMMAND, *arguments, env=service.env) as (screen, process):
        await service.until(3)
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again to cancel them")
        service.respond_to_all()
    assert process.returncode == 130, screen.text
    stopped = len(service.received)
    assert stopped == 3
    assert len(output.read_text().splitlines()) == stopped
    assert "not sent" in screen.text
    (command,) = re.findall(r"to resume: (suno-persona [^\r\n]*)", screen.text)
    async with terminal(COMMAND, *shlex.split(command)[1:], env=service.env) as (screen, process):
        service.respond_to_all()
    assert process.returncode == 0, screen.text
    assert len(service.received) == len(output.read_text().splitlines()) == 8


async def test_ctrl_c_twice_cancels_the_calls_in_flight(service: HeldService, tmp_path: Path) -> None:
    """A call in flight is recorded and written as unknown, and one that waits for a retry as not created."""
    file = write_file(tmp_path, rows(8))
    async with terminal(COMMAND, "batch", file, "--max-connections", "2", env=service.env) as (screen, process):
        await service.until(2)
        service.reject(0, retry_after=20)
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again to cancel them")
        screen.type(CTRL_C)
        await process.wait()
    assert process.returncode == 130, screen.text
    assert "to resume: " in screen.text
    assert "journal unknown" in screen.text
    assert '"state":"unknown"' in screen.text.replace("\r\n", "")
    async with Journal(f"{file}.journal") as journal:
        counts: dict[Any, int] = dict(await journal.counts())
    assert counts["unknown"] >= 1
    assert "claimed" not in counts
    assert len(service.received) == 2


async def test_a_terminal_shows_a_bar_below_the_lines(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """The bar has counts and rate within 80 columns, and each outcome is printed whole above it."""
    file = write_file(tmp_path, rows(30) + "unknown-1,N,D,,\n")
    async with terminal(COMMAND, "batch", file, env=env) as (screen, process):
        pass
    assert process.returncode == 1
    assert "31/31" in screen.text
    assert "30 created now, 1 not created, 0 unknown" in screen.text
    assert re.search(r"\d/s", screen.text)
    for persona in fake_suno.personas:
        assert persona.id in screen.text.replace("\r\n", "")
