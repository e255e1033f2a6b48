"""The progress that a command shows on a terminal, at any width."""

import re
from pathlib import Path

import pytest
from support.broken_service import BrokenService, Exchange
from support.command import COMMAND, CREATE, Done, run, run_process
from support.held_service import HeldService
from support.rows import rows, write_file
from support.terminal import CTRL_C, terminal

from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow

COUNTS = "1 created now, 0 not created, 0 unknown"


def lines(text: str) -> list[str]:
    """Return the lines that a terminal displayed, in order."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
async def test_progress_fits_the_terminal(columns: int, service: HeldService, tmp_path: Path) -> None:
    """The bar, the counts, the rate, the time left and the reason for a pause are complete at each width."""
    file, output = write_file(tmp_path, rows(4)), str(tmp_path / "out.jsonl")
    arguments = ("batch", file, "--output", output, "--max-connections", "1", "--wait-max", "900")
    async with terminal(COMMAND, *arguments, env=service.env, columns=columns) as (screen, process):
        await service.until(1)
        service.respond(0)
        await service.until(2)
        service.respond(1)
        await service.until(3)
        service.reject(2, retry_after=600)
        await screen.until("rate limited: goes on in 59")
        screen.type(CTRL_C)
    assert process.returncode == 130
    shown = lines(screen.text)
    progress = [line for line in shown if "━" in line and "/4" in line]
    assert progress
    assert max(map(len, progress)) <= columns
    assert any(re.search(r"2/4 +\d+\.\d/s, \d+ s left$", line) for line in progress)
    assert COUNTS.replace("1", "2", 1) in " ".join(" ".join(shown).split())
    assert any(line.startswith("rate limited: goes on in 59") for line in shown)
    table = [line for line in shown if re.match("[┏┃┡│└]", line)]
    assert [len(line) for line in table] == [len(table[0])] * len(table)
    assert len(table[0]) <= columns


async def test_progress_follows_a_resize(service: HeldService, tmp_path: Path) -> None:
    """If the window becomes narrower during the run, the bar still fits it."""
    file, output = write_file(tmp_path, rows(3)), str(tmp_path / "out.jsonl")
    arguments = ("batch", file, "--output", output, "--max-connections", "1")
    async with terminal(COMMAND, *arguments, env=service.env, columns=120) as (screen, process):
        await service.until(1)
        service.respond(0)
        await screen.until(COUNTS)
        screen.resize(30)
        screen.shown = b""
        await screen.until("\r\n0 unknown")
        service.respond_to_all()
    assert process.returncode == 0
    assert "3 created now" in screen.text


async def test_a_dumb_terminal_gets_lines(service: HeldService, tmp_path: Path) -> None:
    """With TERM=dumb there is no bar and no escape sequence; the summary is readable."""
    file = write_file(tmp_path, rows(1))
    env = service.env | {"TERM": "dumb"}
    async with terminal(COMMAND, "batch", file, env=env, columns=40) as (screen, process):
        service.respond_to_all()
    assert process.returncode == 0
    assert b"\x1b" not in screen.shown
    assert re.search(r"created now +│ +1 │", screen.text)


async def test_create_logs_what_it_waits_for(service: HeldService) -> None:
    """A wait is one line on stderr, on a terminal, too, with its reason; nothing moves."""
    async with terminal(COMMAND, *CREATE, env=service.env) as (screen, process):
        await service.until(1)
        service.reject(0, retry_after=0)
        await service.until(2)
        service.respond_to_all()
    assert process.returncode == 0
    wait, persona_id = screen.text.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d attempt 2 of 4 in 0\.00 s, after: HTTP 429: .+", wait)
    assert persona_id == "persona-1"
    assert b"\x1b" not in screen.shown


async def test_a_quick_create_shows_nothing_but_the_id(fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """No progress flashes up."""
    async with terminal(COMMAND, *CREATE, env=env) as (screen, process):
        pass
    assert process.returncode == 0
    assert screen.shown == f"{fake_suno.personas[0].id}\r\n".encode()


async def test_the_log_and_the_bar_do_not_break_each_other(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """With -v, attempts and backoffs are logged above the bar, which stays."""
    fake_suno.script(Fault.rate_limited(retry_after=0))
    file, output = write_file(tmp_path, rows(3)), str(tmp_path / "out.jsonl")
    arguments = ("batch", file, "-v", "--output", output, "--max-connections", "1")
    async with terminal(COMMAND, *arguments, env=env, columns=200) as (screen, process):
        pass
    assert process.returncode == 0
    shown = lines(screen.text)
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d attempt 2 of 4 in 0\.00 s, after: HTTP 429 .+", line) for line in shown)
    assert sum("attempt 1: HTTP 200" in line for line in shown) == 2
    assert any("3/3" in line for line in shown)


HOSTILE = b'"\\u001b[2J\\u009b2J\\u202e\x7f\xc2\x9b1m"'


async def serve_hostile(exchange: Exchange) -> None:
    """Respond with an id and a name that a terminal would obey."""
    body = b'{"id": %b, "name": %b}' % (HOSTILE, HOSTILE)
    await exchange.send(exchange.response(body))


async def reject_hostile(exchange: Exchange) -> None:
    """Reject the request with text that a terminal would obey."""
    body = b'{"error": {"message": %b, "code": %b}}' % (HOSTILE, HOSTILE)
    head = b"HTTP/1.1 400 No\r\nX-Request-Id: \xc2\x9b2J\x7f\r\nContent-Length: %d\r\n\r\n" % len(body)
    await exchange.send(head + body)


@pytest.mark.parametrize("act", [serve_hostile, reject_hostile])
@pytest.mark.parametrize("command", ["create", "create --json", "batch"])
async def test_a_service_cannot_control_the_terminal(
    act: object, command: str, tmp_path: Path, env: dict[str, str]
) -> None:
    """Names, ids, reasons and request ids reach the terminal without control characters."""
    file = write_file(tmp_path, 'root_clip_id,name,description\nc,"\x1b[2JN\x9b",D\n')
    words = ["batch", file, "--output", "-"] if command == "batch" else [*CREATE, *command.split()[1:]]
    async with BrokenService(then=act) as service:  # type: ignore[arg-type]  # one of the two above
        env |= {"SUNO_BASE_URL": service.base_url, "TERM": "dumb"}
        async with terminal(COMMAND, *words, env=env) as (screen, process):
            pass
    assert process.returncode == (0 if act is serve_hostile else 1)
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", screen.text)
    assert "2J" in screen.text


async def test_json_stays_json_in_every_locale(env: dict[str, str], tmp_path: Path) -> None:
    """Characters that the encoding lacks or that a terminal obeys are escaped as JSON escapes them."""
    import json

    async with BrokenService(then=serve_hostile) as service:
        env |= {"SUNO_BASE_URL": service.base_url, "PYTHONIOENCODING": "ascii"}
        done = await run_process(COMMAND, *CREATE, "--json", env=env)
    document = json.loads(done.output)
    assert document["id"] == document["name"] == "\x1b[2J\x9b2J\u202e\x7f\x9b1m"
    assert done.output.rstrip("\n").isprintable()
    assert done.output.isascii()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize(("fault", "status"), [(None, 0), (Fault.response(400), 1), (Fault.lost_response(), 3)])
async def test_stderr_never_changes_the_status(
    redirection: str, fault: Fault | None, status: int, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """If it is closed or its disk is full, the status still shows the outcome, and stdout is not used for messages."""
    for command in (
        f"{COMMAND} {' '.join(CREATE[:-1])} Night -v",
        f"{COMMAND} batch {write_file(tmp_path, rows(1))} -v",
    ):
        if fault is not None:
            fake_suno.script(fault)
        done = await run("bash", "-c", f"{command} {redirection}", env=env)
        assert done == Done(status, done.output, "")
        assert "suno-persona:" not in done.output
        assert "attempt" not in done.output.partition("{")[0]
