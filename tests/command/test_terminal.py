"""The command in a real terminal: a pty, with Ctrl-C typed as a user types it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.broken_service import BrokenService, Exchange
from support.command import COMMAND, CREATE, run
from support.held_service import HeldService
from support.rows import read_outcomes, rows, write_file
from support.terminal import CTRL_C, Terminal, terminal

from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow


async def test_ctrl_c_stops_gracefully_and_prints_how_to_resume(service: HeldService, tmp_path: Path) -> None:
    """Calls in flight finish, nothing more is sent, the status is 130, and the printed command resumes."""
    file, output = write_file(tmp_path, rows(8)), tmp_path / "out.jsonl"
    arguments = ("batch", file, "--output", str(output), "--max-connections", "3")
    async with terminal(COMMAND, *arguments, env=service.env) as (screen, process):
        created = await service.until_batch(3)
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again to cancel them")
        service.respond_to_all()
    assert process.returncode == 130, screen.text
    stopped = len(service.received)
    assert stopped == created + 3
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
        created = await service.until_batch(2)
        service.reject(created, retry_after=20)
        screen.type(CTRL_C)
        await screen.until("Ctrl-C again to cancel them")
        screen.type(CTRL_C)
        await process.wait()
    assert process.returncode == 130, screen.text
    assert "to resume: " in screen.text
    assert "journal unknown" in screen.text
    async with Journal(f"{file}.journal") as journal:
        counts: dict[Any, int] = dict(await journal.counts())
    assert counts["unknown"] >= 1
    assert "claimed" not in counts
    assert len(service.received) == created + 2


async def test_a_terminal_shows_a_bar_and_no_json(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """The bar has counts and rate within 80 columns, and the summary says how to export the outcomes."""
    file = write_file(tmp_path, rows(30) + "unknown-1,N,D,,\n")
    async with terminal(COMMAND, "batch", file, env=env) as (screen, process):
        pass
    assert process.returncode == 1
    assert "31/31" in screen.text
    assert "30 created now, 1 not created, 0 unknown" in screen.text
    assert re.search(r"\d/s", screen.text)
    assert "{" not in screen.text
    (command,) = re.findall(r"to export the outcomes: (suno-persona [^\r\n]*)", screen.text)
    exported = await run(COMMAND, *shlex.split(command)[1:], env={})
    assert {line["persona_id"] for line in read_outcomes(exported.output)} == {
        None,
        *(persona.id for persona in fake_suno.personas),
    }


async def test_outcomes_are_whole_on_a_terminal_that_asks_for_them(env: dict[str, str], tmp_path: Path) -> None:
    """With `--output -` there is no bar that would break them."""
    file = write_file(tmp_path, rows(3))
    async with terminal(COMMAND, "batch", file, "--output", "-", env=env) as (screen, process):
        pass
    assert process.returncode == 0
    assert b"\x1b[" not in screen.shown.rpartition(b"}\r\n")[0]
    assert len([json.loads(line) for line in screen.text.splitlines() if line.startswith("{")]) == 3


SPLITS = (1, 20, 60, -1)
"""How much of a response has arrived when Ctrl-C is typed, in bytes; -1 is all but its last byte."""


async def typed_at(split: int | None, *, rest: bool) -> tuple[Terminal, int | None]:
    """Run `create`, type Ctrl-C after a part of the response was sent, and then send the rest; or close."""

    async def act(exchange: Exchange) -> None:
        response = exchange.response()
        head, tail = response[:split], response[split:] if split is not None else b""
        await exchange.send(head)
        screen.type(CTRL_C)
        if rest:
            await exchange.send(tail)
        await exchange.until_the_client_leaves()

    async with BrokenService(then=act) as service:
        env = {"SUNO_API_KEY": "sk-0123456789", "SUNO_BASE_URL": service.base_url}
        async with terminal(COMMAND, *CREATE, env=env) as (screen, process):
            pass
    return screen, process.returncode


async def test_ctrl_c_after_the_response_loses_no_id() -> None:
    """Once the response has arrived, the id is printed, and the status is that of a success."""
    screen, status = await typed_at(None, rest=False)
    assert (screen.text.replace("^C", ""), status) == ("persona-1\r\n", 0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("rest", [True, False])
async def test_ctrl_c_around_the_response_is_never_silent(split: int, rest: bool) -> None:
    """Either the id is printed, or a line that says that a persona may exist; an id that arrived is in it."""
    screen, status = await typed_at(split, rest=rest)
    text = screen.text.replace("^C", "")
    if text == "persona-1\r\n":
        assert status == 0
        assert rest
    else:
        assert re.fullmatch(
            r"suno-persona: interrupted: a persona may exist( with the id persona-1)?; check before you retry\r\n", text
        )
        assert status == 130
    if split == -1:
        assert "persona-1" in text


async def test_ctrl_c_before_the_response_says_that_a_persona_may_exist(service: HeldService) -> None:
    """The request was sent."""
    async with terminal(COMMAND, *CREATE, env=service.env) as (screen, process):
        await service.until(1)
        screen.type(CTRL_C)
    assert process.returncode == 130
    assert screen.text.replace("^C", "") == (
        "suno-persona: interrupted: a persona may exist; check before you retry\r\n"
    )
