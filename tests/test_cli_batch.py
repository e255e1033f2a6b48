"""`suno-persona batch`, run as a user runs it: output, exit status, resuming."""

import asyncio
import os
import re
import shlex
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run, start
from support.held_service import HeldService
from support.rows import HEADER, read_outcomes, rows, write_file

from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow


async def test_each_row_becomes_a_line_of_output(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A line of JSON has the request, its line in the file, its outcome and the service's request id."""
    fake_suno.script(Fault.lost_answer())
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
    fake_suno.script(Fault.lost_answer())
    file = write_file(tmp_path, rows(1) + "unknown-1,N,D,,\n")
    done = await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    assert done.status == 3
    command = shlex.split(done.errors.splitlines()[-1].partition("unknown outcomes: ")[2])
    shown = await run(COMMAND, *command[1:], env={})
    assert "'Voice 0' from 'clip'" in shown.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.csv"], "FILE must be a readable file; got none.csv (No such file or directory)"),
        (["."], "FILE must end in .csv, .jsonl or .ndjson, or be - for stdin; got ."),
        (["rows.xlsx"], "FILE must end in .csv, .jsonl or .ndjson, or be - for stdin; got rows.xlsx"),
        (["rows.csv", "--output", "."], "--output must be a writable file; got . (Is a directory)"),
        (
            ["rows.csv", "--output", "other.jsonl"],
            "must be a file that `batch` wrote; got another line at other.jsonl:2",
        ),
        (["rows.csv", "--journal", "other.jsonl"], "other.jsonl: the journal cannot be read or written: file is not"),
        (["rows.csv", "--journal", "rows.csv"], "FILE, --journal and --output must be different files; got "),
        (["rows.csv", "--output", "rows.csv.journal"], "FILE, --journal and --output must be different files; got "),
        (
            ["rows.csv", "--output", "text.jsonl"],
            "must be a file that `batch` wrote; got another line at text.jsonl:1",
        ),
        (
            ["rows.csv", "--output", "array.jsonl"],
            "must be a file that `batch` wrote; got another line at array.jsonl:1",
        ),
        (
            ["rows.csv", "--output", "list.jsonl"],
            "must be a file that `batch` wrote; got another line at list.jsonl:1",
        ),
        (["rows.csv", "--journal", "nosuch://host/x"], "nosuch"),
        (["rows.csv", "--base-url", "gateway"], "--base-url must be "),
    ],
)
async def test_an_unusable_file_or_option_is_reported_in_one_line(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, arguments: list[str], reason: str
) -> None:
    """The error names it; nothing is sent, and no file is changed."""
    write_file(tmp_path, rows(1))
    write_file(tmp_path, '{"key":"a","state":"created","persona_id":"b"}\n{"id": "b"}', "other.jsonl")
    write_file(tmp_path, '{"key":["a"],"state":"created","persona_id":"b"}\n', "list.jsonl")
    write_file(tmp_path, "hello\n", "text.jsonl")
    write_file(tmp_path, "[1]\n", "array.jsonl")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = shlex.join([COMMAND, "batch", *arguments])
    done = await run("sh", "-c", f"cd {shlex.quote(str(tmp_path))} && {command}", env=env)
    assert done.status == 2
    assert reason in done.errors.splitlines()[-1]
    assert "Traceback" not in done.errors
    assert fake_suno.requests == []
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.posix
async def test_the_file_must_not_be_a_pipe(env: dict[str, str], tmp_path: Path) -> None:
    """The file is read twice, to check it and to send it, and a pipe can be read only once."""
    script = f"cd {shlex.quote(str(tmp_path))} && mkfifo rows.csv && (echo x > rows.csv & {COMMAND} batch rows.csv)"
    done = await run("sh", "-c", script, env=env)
    message = "suno-persona: FILE must be a regular file, as it is read twice; got the pipe rows.csv\n"
    assert (done.status, done.errors) == (2, message)


@pytest.mark.posix
async def test_the_output_must_not_be_a_pipe(env: dict[str, str], tmp_path: Path) -> None:
    """The output is also read, to append only new lines; without --output the lines go to stdout."""
    write_file(tmp_path, rows(1))
    script = f"cd {shlex.quote(str(tmp_path))} && mkfifo out && {COMMAND} batch rows.csv --output out"
    done = await run("sh", "-c", script, env=env)
    message = "suno-persona: --output must be a regular file, as it is read, too; got the pipe out\n"
    assert done == Done(2, "", message)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_the_output_must_not_be_a_device(env: dict[str, str], tmp_path: Path) -> None:
    """Reading some devices never ends."""
    done = await run(COMMAND, "batch", write_file(tmp_path, rows(1)), "--output", "/dev/full", env=env)
    message = "suno-persona: --output must be a regular file, as it is read, too; got the device /dev/full\n"
    assert done == Done(2, "", message)


@pytest.mark.parametrize("torn", [b"", b"\0\0\0"])
async def test_a_second_run_sends_nothing_and_writes_no_line_twice(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, torn: bytes
) -> None:
    """By default the journal is beside the file. The output is appended to, after its torn last line is removed."""
    file, output = write_file(tmp_path, rows(20)), tmp_path / "out.jsonl"
    command = (COMMAND, "batch", file, "--output", str(output))
    first = await run(*command, env=env)
    content = output.read_bytes()
    output.write_bytes(content[:-20] + torn)  # as after a power cut
    again = await run(*command, env=env)
    assert (first.status, again.status, first.output) == (0, 0, "")
    assert len(fake_suno.requests) == 20
    assert sorted(output.read_bytes().splitlines()) == sorted(content.splitlines())
    assert (tmp_path / "rows.csv.journal").exists()


async def test_a_changed_outcome_is_a_new_line(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """If the outcome of a request changes, a line is appended, and the last one counts."""
    file, output = write_file(tmp_path, rows(1)), tmp_path / "out.jsonl"
    for fault, status in ((Fault.response(404), 1), (Fault.response(403), 1), (Fault.lost_answer(), 3)):
        fake_suno.script(fault)
        assert (await run(COMMAND, "batch", file, "--output", str(output), env=env)).status == status
    done = await run(COMMAND, "batch", file, "--output", str(output), "--retry-unknown", env=env)
    assert done.status == 0
    assert [line["state"] for line in read_outcomes(output.read_text())] == ["not_created", "unknown", "created"]


async def test_identical_rows_have_different_keys(env: dict[str, str], tmp_path: Path) -> None:
    """Each has its own line, and a second run adds none."""
    file, output = write_file(tmp_path, HEADER + "c,N,D,,\n" * 10), tmp_path / "out.jsonl"
    for _ in range(2):
        await run(COMMAND, "batch", file, "--output", str(output), env=env)
        assert len({line["persona_id"] for line in read_outcomes(output.read_text())}) == 10
        assert len({line["key"] for line in read_outcomes(output.read_text())}) == 10
        assert len(output.read_text().splitlines()) == 10


async def test_the_output_can_be_read_while_it_grows(service: HeldService, tmp_path: Path) -> None:
    """Each outcome is written as soon as it is known, and every line is complete."""
    file, output = write_file(tmp_path, rows(3)), tmp_path / "out.jsonl"
    process = await start(COMMAND, "batch", file, "--output", str(output), "--max-connections", "1", env=service.env)
    for number in range(3):
        await service.until(number + 1)
        service.respond(number)
        while not output.read_bytes().count(b"\n") > number:
            await asyncio.sleep(0)
        assert len(read_outcomes(output.read_text())) == number + 1
    assert await process.wait() == 0
    await process.communicate()


@pytest.mark.posix
@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe", "closed stdout"])
async def test_an_output_that_cannot_be_written_stops_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, where: str
) -> None:
    """The error is one line, the journal has the created personas, and the command to resume is printed."""
    file = write_file(tmp_path, rows(300))
    command = f"{COMMAND} batch {shlex.quote(file)}"
    how = {
        "/dev/full": f"{command} > /dev/full",
        "a closed pipe": f"{command} | true",
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


async def resume(errors: str, env: dict[str, str]) -> Done:
    """Run the printed command to resume."""
    (line,) = [line for line in errors.splitlines() if "to resume: " in line]
    program, *arguments = shlex.split(line.partition("to resume: ")[2])
    assert program == "suno-persona"
    return await run(COMMAND, *arguments, env=env)


async def test_a_file_that_changes_during_the_run_stops_it(service: HeldService, tmp_path: Path) -> None:
    """Calls in flight finish, and the error names the line that has become invalid."""
    file = write_file(tmp_path, rows(2000))
    output = str(tmp_path / "out.jsonl")
    process = await start(COMMAND, "batch", file, "--output", output, "--max-connections", "1", env=service.env)
    await service.until(1)
    with open(file, "r+") as opened:
        opened.seek(0, os.SEEK_END)
        opened.seek(200)
        opened.write("\n" * 50_000)
        opened.write("no row\n")
    service.respond_to_all()
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert re.search(rb"rows.csv:\d+: the file changed during the run: the row must have 5 cells", errors), errors


@pytest.mark.parametrize("change", ["shorter", "longer"])
async def test_a_file_that_grows_or_shrinks_is_an_error(service: HeldService, tmp_path: Path, change: str) -> None:
    """A run fails unless it sent exactly the rows that were checked."""
    file = write_file(tmp_path, rows(1000))
    process = await start(COMMAND, "batch", file, "--output", str(tmp_path / "out.jsonl"), env=service.env)
    await service.until(1)
    if change == "shorter":
        os.truncate(file, 0)
    else:
        with open(file, "a") as opened:
            opened.write("c,One more,D,,\n")
    service.respond_to_all()
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert re.search(rb"the file changed during the run: it must have 1000 rows; got (more|\d+)\n", errors), errors


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
