"""The options of `suno-persona batch` beyond its files: stdin, custom ids, a check, and limits."""

import shlex
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.rows import HEADER, read_outcomes, rows, write_file

from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow

JSON_ROW = '{"root_clip_id": "clip", "name": "Voice 0", "description": "Airy pop"}\n'


async def piped(content: str, arguments: str, env: dict[str, str]) -> Done:
    """Run the command with this content on its stdin."""
    return await run("bash", "-c", f"printf %s {shlex.quote(content)} | {COMMAND} {arguments}", env=env)


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
    ("command", "reason"),
    [
        (f"{COMMAND} batch -", "the journal must be named by --journal or SUNO_JOURNAL_URL where FILE is -"),
        (f"{COMMAND} batch - --journal j <&-", "FILE must be a readable file; got - (stdin is closed)"),
        (f"printf 'x\n' | {COMMAND} batch - --journal j", "nothing was sent: 1 of 1 rows"),
        (f"{COMMAND} batch - --journal j < /dev/null", "stdin:1: the file must have at least one request; got none"),
    ],
)
async def test_an_unusable_stdin_is_reported_in_one_line(
    command: str, reason: str, env: dict[str, str], tmp_path: Path
) -> None:
    """The status is 2, and no file is created."""
    done = await run("bash", "-c", f"cd {tmp_path} && {command}", env=env)
    assert done.status == 2
    assert reason in done.errors
    assert list(tmp_path.iterdir()) == []


async def test_a_stopped_batch_from_stdin_prints_the_command_to_resume(env: dict[str, str], tmp_path: Path) -> None:
    """The command has all options of the first run, and needs the same stdin."""
    options = f"--journal {tmp_path}/j.journal --limit 2 --max-unknown 3 --timeout 30 --max-connections 4"
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
    command = (COMMAND, "batch", file, "--output", str(output), "--max-connections", "1")
    assert (await run(*command, env=env)).status == 0
    assert [line["custom_id"] for line in read_outcomes(output.read_text())] == ["a 1", None]
    assert b"custom_id" not in fake_suno.requests[0].body
    write_file(tmp_path, content.replace("a 1", "b 2"), name)
    assert (await run(*command, env=env)).status == 0
    assert [line["custom_id"] for line in read_outcomes(output.read_text())] == ["a 1", None, "b 2"]
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
    """It counts the requests to send and those with an outcome, and names rows that look like duplicates."""
    file = write_file(tmp_path, rows(2))
    fresh = await run(COMMAND, "batch", file, "--check", env=env)
    assert fresh == Done(0, "2 rows; nothing was sent\n  2 to send\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    fake_suno.script(Fault.response(404), Fault.lost_answer())
    await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    await run(COMMAND, "batch", write_file(tmp_path, HEADER + "c,Neon,Night,,\n"), env=env)
    sent = len(fake_suno.requests)
    content = (
        rows(2)
        + "c,Neon,Night,,\nc,Neon,\x1b[2JDay,,\nc,Neo\u202en,Day,,\nc,Neo\u202en,Day,,\n"
        + rows(32)[len(rows(2)) :]
    )
    done = await run(COMMAND, "batch", write_file(tmp_path, content), "--check", env=env)
    head, *lines = done.output.splitlines()
    assert (done.status, done.errors, head) == (0, "", "36 rows; nothing was sent")
    assert lines[:5] == [
        "  33 to send",
        "   1 not created: to send again",
        "   1 created: not sent again",
        "   1 unknown: not sent again: check",
        "   2 possible duplicates among those to send",
    ]
    assert f"{file}:5: looks like a duplicate: 'Neon' was created from this clip with other members: " in done.output
    assert f"{file}:7: looks like a duplicate: the same row as in line 6" in done.output
    assert len(fake_suno.requests) == sent
    again = await run(COMMAND, "batch", file, "--check", "--retry-unknown", "--accept-new-key", env=env)
    assert "unknown: to send again (--retry-unknown)" in again.output
    many = await run(COMMAND, "batch", write_file(tmp_path, HEADER + "c,N,D,,\n" * 30), "--check", env=env)
    assert many.output.splitlines()[-1] == "and 9 more"


async def test_a_check_needs_what_a_run_needs(env: dict[str, str], tmp_path: Path, postgres_url: str) -> None:
    """It needs the same settings, valid rows and the journal of the same account, which may be a database."""
    file = write_file(tmp_path, rows(1))
    for change, reason in (
        ({"SUNO_API_KEY": ""}, "SUNO_API_KEY must be the service's key"),
        ({"SUNO_API_KEY": "sk-other-0123456789"}, "the journal belongs to another API key"),
        ({"SUNO_BASE_URL": "http://127.0.0.1:9"}, "and this client sends to http://127.0.0.1:9"),
    ):
        await run(COMMAND, "batch", file, env=env)
        done = await run(COMMAND, "batch", file, "--check", env=env | change)
        assert done.status == 2
        assert reason in done.errors
    done = await run(COMMAND, "batch", file, "--check", "--journal", postgres_url, env=env)
    assert done == Done(0, "1 rows; nothing was sent\n  1 to send\n", "")


async def test_a_limit_is_never_exceeded(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Each run adds at most that many personas; an unknown outcome counts, and a rejection does not."""
    content = HEADER + "unknown-1,N,D,,\n" + rows(20)[len(HEADER) :]
    command = (COMMAND, "batch", write_file(tmp_path, content), "--limit", "3")
    fake_suno.script(Fault.lost_answer())
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


async def test_a_failing_service_stops_the_batch(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A number of consecutive unknown outcomes stops it, with the reason; those of earlier runs do not count."""
    file = write_file(tmp_path, rows(30))
    command = (COMMAND, "batch", file, "--max-connections", "1", "--max-unknown", "3")
    fake_suno.script(*[Fault.lost_answer()] * 2, Fault.response(404), *[Fault.server_error()] * 3)
    done = await run(*command, env=env)
    sent = len(fake_suno.requests)
    assert done.status == 3
    assert 6 <= sent <= 7  # calls in flight finish
    reason = "stopped, as 3 outcomes in a row are unknown (--max-unknown); the last one: HTTP 500 (internal)"
    assert reason in done.errors
    assert "to resume: " in done.errors
    assert (await run(*command, env=env)).status == 3
    assert len(fake_suno.requests) == 31  # all, and the rejected one again
    fake_suno.script(*[Fault.server_error()] * 40)
    (tmp_path / "rows.csv.journal").unlink()
    await run(*command[:3], "--max-connections", "1", env=env)
    assert 31 + 20 <= len(fake_suno.requests) <= 31 + 21  # the default
