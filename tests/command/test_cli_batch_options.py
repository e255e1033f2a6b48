"""The options of `suno-persona batch` beyond its files: stdin, custom ids, a check, and limits."""

import asyncio
import shlex
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.held_service import HeldService
from support.rows import HEADER, read_outcomes, rows, write_file

from suno_persona.testing import FakeSuno, Fault

JSON_ROW = '{"root_clip_id": "clip", "name": "Voice 0", "description": "Airy pop"}\n'


async def piped(content: str, arguments: str, env: dict[str, str]) -> Done:
    """Run the command with this content on its stdin."""
    return await run(COMMAND, *shlex.split(arguments), env=env, stdin=content.encode())


@pytest.mark.parametrize("content", [rows(1), f"\ufeff{rows(1)}", JSON_ROW, f"\ufeff\n {JSON_ROW}"])
async def test_stdin_is_read_in_either_format(
    content: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """The output goes to stdout, also if it is named -, and the journal resumes the batch."""
    arguments = f"batch - --output - --journal {tmp_path}/j.journal"
    for _ in range(2):
        done = await piped(content, arguments, env)
        (line,) = read_outcomes(done.output)
        assert (done.status, line["state"], line["request"]["name"]) == (0, "created", "Voice 0")
    assert len(fake_suno.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("batch -", "--journal is missing; stdin has no name for a journal of its own"),
        ("batch - --journal j", "stdin:1: the file has no request"),
    ],
)
async def test_an_unusable_stdin_is_reported_in_one_line(
    arguments: str, reason: str, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is 2, and no file is created."""
    monkeypatch.chdir(tmp_path)
    done = await piped("", arguments, env)
    assert done.status == 2
    assert reason in done.errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (f"{COMMAND} batch - --journal j <&-", "suno-persona: stdin is closed"),
        (f"printf 'x\n' | {COMMAND} batch - --journal j", "nothing was sent: 1 of 1 row is not a valid request"),
    ],
)
async def test_a_stdin_of_the_shell_that_is_unusable_is_reported(
    command: str, reason: str, env: dict[str, str], tmp_path: Path
) -> None:
    """A closed stdin and a pipe with bad rows have the status 2, and no file is created."""
    done = await run("bash", "-c", f"cd {tmp_path} && {command}", env=env)
    assert done.status == 2
    assert reason in done.errors
    assert list(tmp_path.iterdir()) == []


async def test_a_stopped_batch_from_stdin_prints_the_command_to_resume(env: dict[str, str], tmp_path: Path) -> None:
    """The command has all options of the first run, and needs the same stdin."""
    options = f"--journal {tmp_path}/j.journal --limit 2 --max-failures 3 --timeout 30 --max-connections 4"
    done = await piped(rows(3), f"batch - {options}", env)
    assert f"to resume, with the same stdin: suno-persona batch - {options}\n" in done.errors
    done = await piped(rows(3), f"batch - {options}", env)
    assert (done.status, len(read_outcomes(done.output))) == (0, 3)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("custom_id,root_clip_id,name,description\na 1,c,N,D\n,c,N,D\n", "rows.csv"),
        (f'{JSON_ROW[:-2]}, "custom_id": "a 1"}}\n{JSON_ROW[:-2]}, "custom_id": null}}\n', "rows.jsonl"),
    ],
)
async def test_a_custom_id_is_in_the_output_and_is_not_sent(
    content: str, name: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """It is in each line of output, and not part of the key: without it the rows are the same requests."""
    file, output = write_file(tmp_path, content, name), tmp_path / "out.jsonl"
    options = ("--output", str(output), "--max-connections", "1", "--allow-duplicates")
    for custom_id in ("a 1", "b 2"):
        write_file(tmp_path, content.replace("a 1", custom_id), name)
        assert (await run(COMMAND, "batch", file, *options, env=env)).status == 0
        assert [line["custom_id"] for line in read_outcomes(output.read_text())] == [custom_id, None]
    assert b"custom_id" not in fake_suno.requests[0].body
    assert len(fake_suno.requests) == 2


@pytest.mark.parametrize("value", ["12", '" "', "[]"])
async def test_a_custom_id_must_be_text(value: str, env: dict[str, str], tmp_path: Path) -> None:
    """The error names the line."""
    file = write_file(tmp_path, f'{JSON_ROW[:-2]}, "custom_id": {value}}}\n', "rows.jsonl")
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 2
    assert f"{file}:1: custom_id must be text that is not blank; got " in done.errors


async def test_a_check_sends_nothing_and_shows_what_a_run_would_do(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """It counts the requests that are new and those with an outcome."""
    file = write_file(tmp_path, rows(2))
    fresh = await run(COMMAND, "batch", file, "--check", env=env)
    assert fresh == Done(0, "2 rows; a run would do this:\n  2 new: sent\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    fake_suno.script(Fault.response(404), Fault.lost_response())
    await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    await run(COMMAND, "batch", write_file(tmp_path, HEADER + "c,Neon,Night,,\n"), env=env)
    sent = len(fake_suno.requests)
    content = rows(2) + "c,Neon,Night,,\nc,Fog,Slow,,\n"
    done = await run(COMMAND, "batch", write_file(tmp_path, content), "--check", env=env)
    assert done == Done(
        0,
        "4 rows; a run would do this:\n"
        "  1 new: sent\n"
        "  1 not created: sent again\n"
        "  1 created: not sent\n"
        "  1 unknown: not sent: check\n",
        "",
    )
    again = await run(COMMAND, "batch", file, "--check", "--retry-unknown", "--accept-new-key", env=env)
    assert "unknown: retried (--retry-unknown)" in again.output
    assert len(fake_suno.requests) == sent


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"SUNO_API_KEY": ""}, "SUNO_API_KEY must be the service's key"),
        ({"SUNO_API_KEY": "sk-other-0123456789"}, "the journal belongs to another API key"),
        ({"SUNO_BASE_URL": "http://127.0.0.1:9"}, "and this client sends to http://127.0.0.1:9"),
    ],
)
async def test_a_check_needs_what_a_run_needs(
    change: dict[str, str], reason: str, env: dict[str, str], tmp_path: Path
) -> None:
    """It needs the same settings, and the journal of the same account."""
    file = write_file(tmp_path, rows(1))
    await run(COMMAND, "batch", file, env=env)
    done = await run(COMMAND, "batch", file, "--check", env=env | change)
    assert done.status == 2
    assert reason in done.errors


async def test_a_check_may_read_a_database(env: dict[str, str], tmp_path: Path, postgres_url: str) -> None:
    """The journal may be a database."""
    done = await run(COMMAND, "batch", write_file(tmp_path, rows(1)), "--check", "--journal", postgres_url, env=env)
    assert done == Done(0, "1 row; a run would do this:\n  1 new: sent\n", "")


async def test_a_limit_is_never_exceeded(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Each run adds at most that many personas; an unknown outcome counts, and a rejection does not."""
    content = HEADER + "unknown-1,N,D,,\n" + rows(20)[len(HEADER) :]
    command = (COMMAND, "batch", write_file(tmp_path, content), "--limit", "3")
    fake_suno.script(Fault.lost_response())
    first = await run(*command, "--max-connections", "1", env=env)
    assert (first.status, len(fake_suno.personas)) == (3, 2)  # the first row had no clip, and its response was lost
    assert "stopped, as --limit is 3" in first.errors
    assert "to resume: " in first.errors
    for count in (5, 8):
        await run(*command, env=env)
        assert len(fake_suno.personas) == count
    last = await run(*command[:3], env=env)
    assert (last.status, len(fake_suno.personas)) == (3, 20)
    assert "stopped" not in last.errors


@pytest.mark.parametrize(
    ("status", "options", "most"),
    [
        *((status, "--max-failures 1 ", 1) for status in (401, 402, 403, 404, 429, 503)),
        (500, "--max-failures 3 ", 3),
        (401, "", 20),
    ],
)
async def test_a_service_that_rejects_everything_stops_the_batch(
    status: int, options: str, most: int, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """A revoked key, an empty balance or a wrong path costs no more requests than the limit; the reason is named."""
    file = write_file(tmp_path, rows(300))
    fake_suno.script(*[Fault.response(status)] * 300)
    done = await run(COMMAND, "batch", file, *options.split(), "--attempts", "1", env=env)
    assert len(fake_suno.requests) == most
    assert done.status == (3 if status == 500 else 1)
    several = "a failure" if most == 1 else f"{most} failures in a row"
    assert f"suno-persona: stopped after {several} (--max-failures); the last one: HTTP {status}" in done.errors
    assert f"suno-persona: to resume: suno-persona batch {file} {options}--attempts 1\n" in done.errors


async def test_a_service_that_breaks_leaves_no_more_unknown_than_were_in_flight(
    service: HeldService, tmp_path: Path
) -> None:
    """Once the window is open, the limit stops the batch at what was in flight."""
    file = write_file(tmp_path, rows(300))
    options = ("--max-failures", "1", "--max-connections", "8", "--attempts", "1")
    running = asyncio.create_task(run(COMMAND, "batch", file, *options, env=service.env))
    for number in range(3):  # each persona doubles the window
        await service.until(number + 1)
        service.respond(number)
    await service.until(3 + 8)
    for number in range(3, 3 + 8):
        service.reject(number, status=500, retry_after=None)
    service.respond_to_all()
    done = await running
    assert done.status == 3
    assert len(service.received) <= 3 + 8 + 2  # two are claimed ahead
    assert "stopped after a failure (--max-failures); the last one: HTTP 500" in done.errors


async def test_only_failures_of_this_run_in_a_row_count(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """Those of earlier runs do not count, and a persona ends a row."""
    file = write_file(tmp_path, rows(9))
    command = (COMMAND, "batch", file, "--max-connections", "1", "--max-failures", "3")
    faults = [Fault.lost_response(), Fault.lost_response(), None, Fault.lost_response(), Fault.server_error()]
    for fault in faults[:2]:
        fake_suno.script(fault or Fault.lost_response())
    done = await run(*command, "--limit", "3", env=env)
    assert "--max-failures)" not in done.errors
    for fault in faults[3:]:
        fake_suno.script(fault or Fault.lost_response())
    done = await run(*command, env=env)
    assert "stopped" not in done.errors
    assert len(fake_suno.requests) == 9
