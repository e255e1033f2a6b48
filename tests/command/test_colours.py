"""The command has colours on a terminal that supports them, and nowhere else."""

import re
from pathlib import Path

import pytest
from support.command import COMMAND, run
from support.rows import rows, write_file
from support.terminal import terminal

pytestmark = pytest.mark.slow

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;\d]*m")
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJKSThl]")


@pytest.fixture
def commands(env: dict[str, str], tmp_path: Path) -> list[list[str]]:
    """Return a command for each kind of output: a bar with a table, tables, help, an error."""
    file = write_file(tmp_path, rows(2))
    return [["batch", file], ["journal", "show", "--journal", f"{file}.journal"], ["demo"], ["--help"], ["sing"]]


async def shown(commands: list[list[str]], env: dict[str, str]) -> str:
    """Return what the commands show on a terminal."""
    text = ""
    for command in commands:
        async with terminal(COMMAND, *command, env=env) as (screen, process):
            pass
        assert process.returncode in (0, 1, 2)
        text += screen.shown.decode()
    return text


async def test_a_terminal_gets_colours(commands: list[list[str]], env: dict[str, str]) -> None:
    """A terminal gets colours and a bar that moves."""
    text = await shown(commands, env)
    assert COLOUR.search(text)
    assert CURSOR.search(text)


async def test_no_color_is_honoured(commands: list[list[str]], env: dict[str, str]) -> None:
    """With NO_COLOR, bar, tables, help and errors have no colours, and the bar still moves."""
    text = await shown(commands, {**env, "NO_COLOR": "1"})
    assert not COLOUR.search(text)
    assert CURSOR.search(text)


async def test_a_dumb_terminal_gets_plain_text(commands: list[list[str]], env: dict[str, str]) -> None:
    """With TERM=dumb there is no escape sequence at all."""
    assert "\x1b" not in await shown(commands, {**env, "TERM": "dumb"})


async def test_a_pipe_gets_plain_text_unless_colours_are_forced(
    commands: list[list[str]], env: dict[str, str], tmp_path: Path
) -> None:
    """With FORCE_COLOR, which many CI services set, a pipe gets colours but no moving bar."""
    for command in commands:
        done = await run(COMMAND, *command, env=env)
        assert "\x1b" not in done.output + done.errors
    demo = await run(COMMAND, "demo", env={**env, "FORCE_COLOR": "1", "TERM": "xterm-256color"})
    assert COLOUR.search(demo.output)
    (tmp_path / "rows.csv.journal").unlink()
    batch = await run(COMMAND, *commands[0], env={**env, "FORCE_COLOR": "1", "TERM": "xterm-256color"})
    assert "\x1b[1m" in batch.errors
    assert not CURSOR.search(batch.errors)
