"""`suno-persona batch`, run as a user runs it: output, exit status, resuming."""

import asyncio
import os
import re
import shlex
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run, start
from support.held_service import HeldService
from support.rows import read_outcomes, rows, write_file

from suno_persona.testing import FakeSuno, Fault


async def test_each_row_becomes_a_line_of_output(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A line of JSON has the request, its line in the file, its outcome and the service's request id."""
    fake_suno.script(Fault.lost_response())
    file = write_file(tmp_path, rows(2) + "unknown-1,Lost Tape,None,,\n")
    done = await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    unknown, created, rejected = read_outcomes(done.output)
    assert (unknown["line"], created["line"], rejected["line"]) == (2, 3, 4)
    assert (unknown["state"], created["state"], rejected["state"]) == ("unknown", "created", "not_created")
    assert created["persona_id"] == created["persona"]["id"] == fake_suno.personas[1].id
    assert created["request"] == fake_suno.requests[1].json()
    assert unknown["error"]["type"] == "ConnectionLostError"
    assert rejected["error"]["type"] == "NotFoundError"
    assert (rejected["error"]["status"], rejected["error"]["code"]) == (404, "clip_not_found")
    assert unknown["request_id"] is None
    assert re.fullmatch("[0-9a-f]{32}", created["request_id"])
    assert re.fullmatch("[0-9a-f]{32}", rejected["request_id"])
    assert len({line["key"] for line in (unknown, created, rejected)}) == 3


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (rows(2), 0, ["created now"]),
        (rows(1) + "unknown-1,N,D,,\n", 1, ["created now", "not created: NotFoundError", "line 3, 'N': HTTP 404"]),
    ],
)
async def test_the_summary_and_the_status_show_the_outcomes(
    env: dict[str, str], tmp_path: Path, content: str, status: int, words: list[str]
) -> None:
    """The status is 0 if all were created and 1 if some were not; the table is on stderr."""
    done = await run(COMMAND, "batch", write_file(tmp_path, content), env=env)
    assert done.status == status
    assert all(word in done.errors for word in words)
    assert "2 requests" in done.errors


async def test_an_unknown_outcome_has_its_own_status(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """The status is 3, even if others were rejected, and the command that lists them is printed."""
    fake_suno.script(Fault.lost_response())
    file = write_file(tmp_path, rows(1) + "unknown-1,N,D,,\n")
    done = await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    assert done.status == 3
    command = shlex.split(done.errors.splitlines()[-1].partition("unknown outcomes: ")[2])
    shown = await run(COMMAND, *command[1:], env={})
    assert "'Voice 0' from 'clip'" in shown.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.csv"], "Invalid value for 'FILE': File 'none.csv' does not exist"),
        (["."], "Invalid value for 'FILE': File '.' is a directory"),
        (["rows.xlsx"], "FILE must end in .csv, .tsv, .jsonl, .ndjson, or be - for stdin; got rows.xlsx"),
        (["rows.csv", "--output", "."], "--output must be a writable file; got . (Is a directory)"),
        (["rows.csv", "--journal", "other"], "other: the journal cannot be read or written: file is not"),
        (["rows.csv", "--journal", "rows.csv"], "input, journal and output must be different files; got "),
        (["rows.csv", "--output", "rows.csv.journal"], "input, journal and output must be different files; got "),
        (["rows.csv", "--output", "./rows.csv"], "input, journal and output must be different files; got "),
        (
            ["rows.csv", "--journal", "sqlite:///j.db", "--output", "j.db"],
            "input, journal and output must be different files; got ",
        ),
        (["rows.csv", "--journal", "nosuch://host/x"], "nosuch"),
        (["rows.csv", "--base-url", "gateway"], "--base-url must be "),
        (["rows.csv", "--max-failures", "0"], "Invalid value for '--max-failures': 0 is not in the range x>=1"),
    ],
)
async def test_an_unusable_file_or_option_is_reported_in_one_line(
    fake_suno: FakeSuno,
    env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    """The error names it; nothing is sent, and no file is changed."""
    write_file(tmp_path, rows(1))
    write_file(tmp_path, rows(1), "rows.xlsx")
    write_file(tmp_path, "no database", "other")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    done = await run(COMMAND, "batch", *arguments, env=env)
    assert done.status == 2
    assert reason in done.errors.splitlines()[-1]
    assert "Traceback" not in done.errors
    assert fake_suno.requests == []
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.posix
async def test_the_file_may_be_a_pipe(env: dict[str, str], tmp_path: Path) -> None:
    """It is copied, since it is read twice: to check it and to send it."""
    content = rows(2).replace("\n", "\\n")
    pipe = f"mkfifo rows.csv && (printf '{content}' > rows.csv & {COMMAND} batch rows.csv)"
    script = f"cd {shlex.quote(str(tmp_path))} && {pipe}"
    done = await run("bash", "-c", script, env=env)
    assert (done.status, len(read_outcomes(done.output))) == (0, 2)


@pytest.mark.skipif(not Path("/dev/stderr").exists(), reason="needs /dev")
async def test_the_output_may_be_a_device_or_a_pipe(env: dict[str, str], tmp_path: Path) -> None:
    """The output is only written."""
    script = f"{COMMAND} batch {write_file(tmp_path, rows(1))} --output /dev/fd/3 3>&1 >/dev/null | cat"
    done = await run("bash", "-c", script, env=env)
    (line,) = read_outcomes(done.output)
    assert line["state"] == "created"


async def test_each_run_writes_the_output_anew(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """By default the journal is beside the file. A second run sends nothing, and writes what the journal has."""
    file, output = write_file(tmp_path, rows(20)), tmp_path / "out.jsonl"
    output.write_text('{"key":"of something else"}')
    command = (COMMAND, "batch", file, "--output", str(output))
    for _ in range(2):
        assert (await run(*command, env=env)).status == 0
        lines = read_outcomes(output.read_text())
        assert {line["persona_id"] for line in lines} == {persona.id for persona in fake_suno.personas}
        assert len(lines) == len(fake_suno.requests) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.csv", "rows.csv.journal"]


async def test_two_commands_do_not_write_one_output(service: HeldService, tmp_path: Path) -> None:
    """The second one sends nothing, and the lines of the first are complete."""
    output = tmp_path / "out.jsonl"
    files = [write_file(tmp_path, rows(2), f"{number}.csv") for number in range(2)]
    first = await start(COMMAND, "batch", files[0], "--output", str(output), env=service.env)
    await service.until(1)
    second = await run(COMMAND, "batch", files[1], "--output", str(output), env=service.env)
    assert (second.status, second.errors) == (2, f"suno-persona: another command is writing --output {output}\n")
    service.respond_to_all()
    await first.communicate()
    assert first.returncode == 0
    assert len(read_outcomes(output.read_text())) == len(service.received) == 2


async def test_a_changed_outcome_replaces_the_old_one(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """After each run the output has the last outcome."""
    file, output = write_file(tmp_path, rows(1)), tmp_path / "out.jsonl"
    for fault, status in ((Fault.response(404), 1), (Fault.response(403), 1), (Fault.lost_response(), 3)):
        fake_suno.script(fault)
        assert (await run(COMMAND, "batch", file, "--output", str(output), env=env)).status == status
        (line,) = read_outcomes(output.read_text())
        assert line["state"] == ("unknown" if status == 3 else "not_created")
    done = await run(COMMAND, "batch", file, "--output", str(output), "--retry-unknown", env=env)
    assert done.status == 0
    assert [line["state"] for line in read_outcomes(output.read_text())] == ["created"]


async def test_the_output_can_be_read_while_it_grows(service: HeldService, tmp_path: Path) -> None:
    """Each outcome is written as soon as it is known, and every line is complete."""
    file, output = write_file(tmp_path, rows(3)), tmp_path / "out.jsonl"
    command = (COMMAND, "batch", file, "--output", str(output), "--max-connections", "1")
    running = asyncio.create_task(run(*command, env=service.env))
    for number in range(3):
        await service.until(number + 1)
        service.respond(number)
        while not output.exists() or not output.read_bytes().count(b"\n") > number:
            await asyncio.sleep(0)
        assert len(read_outcomes(output.read_text())) == number + 1
    assert (await running).status == 0


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.parametrize("where", ["/dev/full", "closed stdout"])
async def test_an_output_that_cannot_be_written_stops_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, where: str
) -> None:
    """The error is one line, the journal has the created personas, and the command to resume is printed."""
    file = write_file(tmp_path, rows(300))
    command = f"{COMMAND} batch {shlex.quote(file)}"
    how = {
        "/dev/full": f"{command} > /dev/full",
        "closed stdout": f"{command} >&-",
    }
    done = await run("bash", "-o", "pipefail", "-c", how[where], env=env)
    assert done.status == 2
    assert "suno-persona: the output cannot be written: " in done.errors
    assert "Traceback" not in done.errors
    assert 0 < len(fake_suno.personas) < 300
    created = len(fake_suno.personas)
    resumed = await resume(done.errors, env)
    assert resumed.status == 0
    assert len(fake_suno.requests) == 300
    assert len(read_outcomes(resumed.output)) == 300 > created


@pytest.mark.posix
@pytest.mark.parametrize(("content", "status"), [(rows(30), 0), (rows(30) + "unknown-1,N,D,,\n", 1)])
async def test_a_reader_that_left_does_not_stop_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, content: str, status: int
) -> None:
    """As with `| head -1`, the status shows the outcomes, and every row is sent."""
    command = f"{COMMAND} batch {write_file(tmp_path, content)}"
    done = await run("bash", "-c", f"exec 3> >(exit); wait $!; {command} >&3", env=env)
    assert done.status == status
    assert "written" not in done.errors
    assert len(fake_suno.personas) == 30


async def resume(errors: str, env: dict[str, str]) -> Done:
    """Run the printed command to resume."""
    (line,) = [line for line in errors.splitlines() if "to resume: " in line]
    program, *arguments = shlex.split(line.partition("to resume: ")[2])
    assert program == "suno-persona"
    return await run(COMMAND, *arguments, env=env)


@pytest.mark.slow
async def test_a_file_that_changes_during_the_run_changes_nothing(service: HeldService, tmp_path: Path) -> None:
    """Exactly the rows that were checked are sent."""
    file = write_file(tmp_path, rows(1000))
    running = asyncio.create_task(run(COMMAND, "batch", file, env=service.env))
    await service.until(1)
    os.truncate(file, 0)
    service.respond_to_all()
    done = await running
    assert done.status == 0
    assert len(read_outcomes(done.output)) == 1000


async def test_progress_is_plain_lines_if_stderr_is_not_a_terminal(env: dict[str, str], tmp_path: Path) -> None:
    """A log has neither a bar nor control characters."""
    done = await run(COMMAND, "batch", write_file(tmp_path, rows(3)), env=env)
    assert "\x1b" not in done.errors
    assert "\r" not in done.errors


async def test_another_key_must_be_accepted(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A journal belongs to one account: a run with a rotated key sends nothing without --accept-new-key."""
    file = write_file(tmp_path, rows(1))
    assert (await run(COMMAND, "batch", file, env=env)).status == 0
    fake_suno.api_key = "sk-rotated-0123456789"
    env |= {"SUNO_API_KEY": fake_suno.api_key}
    file = write_file(tmp_path, rows(2))
    rejected = await run(COMMAND, "batch", file, env=env)
    assert rejected.status == 2
    assert "--accept-new-key" in rejected.errors
    assert len(fake_suno.requests) == 1
    assert (await run(COMMAND, "batch", file, "--accept-new-key", env=env)).status == 0
    assert len(fake_suno.requests) == 2
