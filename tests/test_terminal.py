"""The command in a real terminal: a pty, with Ctrl-C typed as a user types it."""

import asyncio
import os
import pty
import re
import shlex
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

from desk import Desk
from test_cli import COMMAND, outside
from test_cli_batch import rows, written

from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno

CTRL_C = b"\x03"


class Terminal:
    """A command in a terminal: what it shows, and what is typed."""

    def __init__(self, leader: int) -> None:
        self.shown = b""
        self._leader = leader
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(leader, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._leader, 65536)
        except OSError:  # on Linux, when the last process that used it is gone
            data = b""
        self.shown += data
        if not data:
            self.leave()
        self._changed.set()

    def leave(self) -> None:
        """Look no more."""
        asyncio.get_running_loop().remove_reader(self._leader)

    def type(self, keys: bytes) -> None:
        """Type these keys."""
        os.write(self._leader, keys)

    async def until(self, words: str) -> None:
        """Wait until it shows these words."""
        while words.encode() not in self.shown:
            self._changed.clear()
            await self._changed.wait()

    @property
    def text(self) -> str:
        """What it showed, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode(errors="replace"))


@asynccontextmanager
async def terminal(
    *command: str, env: dict[str, str], columns: int = 80
) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    """Run a command with a terminal as its stdin, stdout and stderr, in control of it."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def take_control() -> None:
        os.setsid()
        ioctl(0, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *command,
        env={**outside(), "TERM": "xterm-256color", **env},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        preexec_fn=take_control,
    )
    os.close(follower)
    screen = Terminal(leader)
    try:
        yield screen, process
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        screen.leave()
        os.close(leader)


async def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(desk: Desk, tmp_path: Path) -> None:
    """What is under way finishes, nothing more is sent, the status is 130, and the printed command goes on."""
    file, output = written(tmp_path, rows(8)), tmp_path / "out.jsonl"
    arguments = ("batch", file, "--output", str(output), "--max-connections", "3")
    async with terminal(COMMAND, *arguments, env=desk.env) as (screen, process):
        await desk.until(3)
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again stops at once")
        await desk.grant_all(process)
    assert process.returncode == 130, screen.text
    stopped = len(desk.arrived)
    assert stopped == 3
    assert len(output.read_text().splitlines()) == stopped
    assert "not sent" in screen.text
    (command,) = re.findall(r"to go on: (suno-persona [^\r\n]*)", screen.text)
    async with terminal(COMMAND, *shlex.split(command)[1:], env=desk.env) as (screen, process):
        await desk.grant_all(process)
    assert process.returncode == 0, screen.text
    assert len(desk.arrived) == len(output.read_text().splitlines()) == 8


async def test_ctrl_c_twice_stops_at_once(desk: Desk, tmp_path: Path) -> None:
    """What was out is recorded as unknown, and what waited as not created."""
    file = written(tmp_path, rows(8))
    async with terminal(COMMAND, "batch", file, "--max-connections", "2", env=desk.env) as (screen, process):
        await desk.until(2)
        desk.refuse(0, retry_after=20)
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again stops at once")
        screen.type(CTRL_C)
        await process.wait()
    assert process.returncode == 130, screen.text
    assert "to go on: " in screen.text
    assert "--unknown" in screen.text
    assert '"state":"unknown"' in screen.text.replace("\r\n", "")
    async with Journal(f"{file}.journal") as journal:
        counts: dict[Any, int] = dict(await journal.counts())
    assert counts["unknown"] >= 1
    assert "claimed" not in counts
    assert len(desk.arrived) == 2


async def test_a_terminal_shows_a_bar_below_the_lines(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Counts, rate and time left within 80 columns, and the outcomes above it, each whole."""
    file = written(tmp_path, rows(30) + "unknown-1,N,D,,\n")
    async with terminal(COMMAND, "batch", file, env=env) as (screen, process):
        pass
    assert process.returncode == 1
    assert "31/31" in screen.text
    assert "30 created, 1 not created, 0 unknown" in screen.text
    assert re.search(r"\d/s", screen.text)
    for persona in fake_suno.personas:
        assert persona.id in screen.text.replace("\r\n", "")
