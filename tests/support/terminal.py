"""A command in a real terminal: a pty, with keys typed as a user types them."""

import asyncio
import os
import re
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .command import environment

if sys.platform == "win32":
    pytest.skip("needs a POSIX terminal", allow_module_level=True)

import pty
import termios
from fcntl import ioctl

CTRL_C = b"\x03"


class Terminal:
    """A terminal in which a command runs: what it shows, and the keys that are typed."""

    def __init__(self, leader: int) -> None:
        self.shown = b""
        self._leader = leader
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(leader, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._leader, 65536)
        except OSError:  # on Linux, when the last process that used it has ended
            data = b""
        self.shown += data
        if not data:
            self.leave()
        self._changed.set()

    def leave(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self._leader)

    def type(self, keys: bytes) -> None:
        """Type these keys."""
        os.write(self._leader, keys)

    def resize(self, columns: int) -> None:
        """Set the width in columns; the kernel notifies the command."""
        ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def hang_up(self) -> None:
        """Hang up, as when the user closes the window."""
        self.leave()
        os.close(self._leader)
        self._leader = -1

    def close(self) -> None:
        """Stop reading, and close the terminal."""
        if self._leader >= 0:
            self.hang_up()

    async def until(self, words: str) -> None:
        """Wait until the terminal shows these words."""
        while words.encode() not in self.shown:
            self._changed.clear()
            await self._changed.wait()

    @property
    def text(self) -> str:
        """What was shown, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode(errors="replace"))


@asynccontextmanager
async def terminal(
    *command: str, env: dict[str, str], columns: int = 80
) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    """Run a command in a terminal of its own: its stdin, stdout, stderr and controlling terminal."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def take_control() -> None:
        os.setsid()
        ioctl(0, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *command,
        env={**environment(), "TERM": "xterm-256color", **env},
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
        screen.close()
