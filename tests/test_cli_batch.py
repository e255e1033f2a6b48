"""`suno-persona batch` and `suno-persona journal`, run as a user runs them."""

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.calls import requests
from support.command import COMMAND, Done, run, start
from support.held_service import HeldService
from support.rows import HEADER, read_outcomes, rows, write_file
from typer.testing import CliRunner

from suno_persona import NotCreatedError, Outcome, Persona
from suno_persona.cli import app
from suno_persona.cli._display import Display
from suno_persona.testing import FakeSuno, Fault


async def test_each_row_becomes_a_line(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A line of JSON has what was asked for, where, and what came of it, for scripts to take."""
    fake_suno.script(Fault.lost_answer())
    file = write_file(tmp_path, rows(2) + "unknown-1,Lost Tape,None,,\n")
    done = await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    unknown, created, refused = read_outcomes(done.output)
    assert (unknown["line"], created["line"], refused["line"]) == (2, 3, 4)
    assert (unknown["state"], created["state"], refused["state"]) == ("unknown", "created", "not_created")
    assert created["persona_id"] == created["persona"]["id"] == fake_suno.personas[1].id
    assert created["request"] == fake_suno.requests[1].json()
    assert unknown["error"]["type"] == "ConnectionLostError"
    assert refused["error"]["type"] == "NotFoundError"
    assert (refused["error"]["status"], refused["error"]["code"]) == (404, "clip_not_found")
    assert len({line["key"] for line in (unknown, created, refused)}) == 3


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (rows(2), 0, ["created"]),
        (rows(1) + "unknown-1,N,D,,\n", 1, ["created", "not created: NotFoundError"]),
    ],
)
async def test_the_summary_and_the_status_say_what_came_of_it(
    env: dict[str, str], tmp_path: Path, content: str, status: int, words: list[str]
) -> None:
    """0: all created; 1: some were not; the table is on stderr."""
    done = await run(COMMAND, "batch", write_file(tmp_path, content), env=env)
    assert done.status == status
    assert all(word in done.errors for word in words)
    assert "2 requests" in done.errors


async def test_an_unknown_outcome_has_its_own_status(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """3, also where others were refused; and the way to see which is printed."""
    fake_suno.script(Fault.lost_answer())
    file = write_file(tmp_path, rows(1) + "unknown-1,N,D,,\n")
    done = await run(COMMAND, "batch", file, "--max-connections", "1", env=env)
    assert done.status == 3
    command = shlex.split(done.errors.splitlines()[-1].partition("unknown: ")[2])
    shown = await run(COMMAND, *command[1:], env={})
    assert "'Voice 0' from 'clip'" in shown.output


NEON = '{"root_clip_id": "c", "name": "Neon", "description": "Night drive", "clips": ["c", "d"], "is_public": true}'
FORMS = {
    "CSV": (HEADER + "c,Neon,Night drive,c d,TRUE\nc,Fog,Folk,,\n", "rows.csv"),
    "CSV with a byte order mark and CRLF": (
        "\ufeff" + (HEADER + "c,Neon,Night drive,c d,true\n\nc,Fog,Folk,,false\n").replace("\n", "\r\n"),
        "rows.CSV",
    ),
    "CSV in another order": (
        "name,clips,root_clip_id,is_public,description\nNeon,c d,c,true,Night drive\nFog,,c,,Folk\n",
        "rows.csv",
    ),
    "CSV with the rows that spreadsheets leave": (
        HEADER + "c,Neon,Night drive,c d,true\n,,,,\nc,Fog,Folk,,",
        "rows.csv",
    ),
    "JSON Lines": (
        NEON + '\n\n{"root_clip_id": "c", "name": "Fog", "description": "Folk"}',
        "rows.jsonl",
    ),
    "JSON Lines with a byte order mark and CRLF": (
        f'\ufeff{NEON}\r\n{{"root_clip_id": "c", "name": "Fog", "description": "Folk", "is_public": false}}\r\n',
        "rows.ndjson",
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_file_says_the_same(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, form: str
) -> None:
    """CSV and JSON Lines, with what Windows and spreadsheets add."""
    content, name = FORMS[form]
    done = await run(COMMAND, "batch", write_file(tmp_path, content, name), "--max-connections", "1", env=env)
    assert done.status == 0, done.errors
    assert [request.json() for request in fake_suno.requests] == [
        {"root_clip_id": "c", "name": "Neon", "description": "Night drive", "clips": ["c", "d"], "is_public": True},
        {"root_clip_id": "c", "name": "Fog", "description": "Folk", "clips": ["c"], "is_public": False},
    ]


async def test_a_cell_may_hold_lines_and_commas(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Quoted as RFC 4180 says; the lines of the rows after it are right."""
    file = write_file(tmp_path, HEADER + 'c,"Neon, ""live""","Night\r\ndrive",,\nc,Fog,Folk,,\n')
    done = await run(COMMAND, "batch", file, env=env)
    received = {request.json()["name"]: request.json() for request in fake_suno.requests}  # type: ignore[index]  # JSON
    assert received['Neon, "live"']["description"] == "Night\r\ndrive"  # type: ignore[index]  # JSON
    assert {line["request"]["name"]: line["line"] for line in read_outcomes(done.output)} == {
        'Neon, "live"': 2,
        "Fog": 4,
    }


BAD_CSV = {
    "nothing": (b"", [":1: expected at least one request, found none"]),
    "a header alone": (HEADER.encode(), [":1: expected at least one request, found none"]),
    "no header": (b"c,Neon,Night drive\n", [":1: expected a header with columns of root_clip_id, name, desc"]),
    "an unknown column": (b"root_clip_id,name,description,mood\nc,N,D,x\n", [":1: .*found the column 'mood'"]),
    "a missing column": (b"root_clip_id,name\nc,N\n", [":1: expected a header with the column description"]),
    "a column twice": (b"name,root_clip_id,name,description\n", [":1: expected each column once, found name again"]),
    "an empty cell": (b"root_clip_id,name,description\n\nc,,D\n", [":3: name: expected non-empty text"]),
    "too few cells": (b"root_clip_id,name,description\nc,N\n", [":2: expected 3 cells, as in the header, found 2"]),
    "too many cells": (b"root_clip_id,name,description\nc,N,D,x\n", [":2: expected 3 cells, .*found 4"]),
    "no flag": (HEADER.encode() + b"c,N,D,,yes\n", [":2: is_public: expected true or false, found 'yes'"]),
    "a control character": (HEADER.encode() + b"c\x07,N,D,,\n", [":2: root_clip_id: expected an id without control"]),
    "an open quote": (
        b'root_clip_id,name,description\nc,N,D\nc,"N,D\n',
        [":3: expected CSV, found an error: unexpected"],
    ),
    "text after a quote": (b'root_clip_id,name,description\nc,"N"x,D\n', [":2: expected CSV, found an error"]),
    "another encoding": (HEADER.encode() + b"c,N\xe9on,D,,\n", [":2: expected UTF-8, found the byte 0xe9"]),
    "UTF-16": (HEADER.encode("utf-16"), [":1: expected UTF-8, found the byte 0xf"]),
    "many": (
        b'root_clip_id,name,description\n,N,D\n"c\n",N,D\nc,N,D\nc,N\n',
        [":2: root_clip_id: expected non-empty", ":3: root_clip_id: expected an id without", ":6: expected 3 cells"],
    ),
}
GOOD = b'{"root_clip_id": "c", "name": "N", "description": "D"}\n'
BAD_JSON = {
    "nothing": (b"\n\n", [":1: expected at least one request, found none"]),
    "bad JSON": (GOOD + b'{"name": \n', [r":2: \$: expected a JSON document, found an error at character \d+"]),
    "a list": (b"[1]\n", [":1: expected an object, found a list"]),
    "an unknown member": (b'{"root_clip_id": "c", "names": "N"}', [":1: 'names': expected one of root_clip_id, name"]),
    "a missing member": (b'{"root_clip_id": "c", "name": "N"}\n', [":1: description: expected non-empty text"]),
    "a number": (GOOD.replace(b'"N"', b"12"), [":1: name: expected non-empty text, found 12"]),
    "null": (GOOD.replace(b'"N"', b"null"), [":1: name: expected non-empty text, found None"]),
    "text for clips": (GOOD.replace(b"}", b', "clips": "c"}'), [":1: clips: expected a list of clip ids, found 'c'"]),
    "an object for clips": (GOOD.replace(b"}", b', "clips": {"c": 1}}'), [":1: clips: expected a list"]),
    "no clips": (GOOD.replace(b"}", b', "clips": []}'), [":1: clips: expected at least one clip id"]),
    "text for a flag": (GOOD.replace(b"}", b', "is_public": "true"}'), [":1: is_public: expected True or False"]),
    "another encoding": (GOOD + b'{"name": "\xe9"}', [":2: .*utf-8"]),
    "a lone surrogate": (GOOD.replace(b'"N"', b'"\\ud800"'), [":1: name: expected text without lone surrogates"]),
    "many": (b"1\n" + GOOD + b"2\n", [":1: expected an object, found 1", ":3: expected an object, found 2"]),
}


@pytest.mark.parametrize(
    ("name", "content", "reasons"),
    [("rows.csv", *case) for case in BAD_CSV.values()] + [("rows.jsonl", *case) for case in BAD_JSON.values()],
    ids=[f"CSV: {case}" for case in BAD_CSV] + [f"JSON Lines: {case}" for case in BAD_JSON],
)
def test_a_file_with_bad_rows_sends_nothing(tmp_path: Path, name: str, content: bytes, reasons: list[str]) -> None:
    """Each bad row is told with its line and the reason, all of them at once; the status is 2."""
    file = write_file(tmp_path, content, name)
    done = CliRunner().invoke(app, ["batch", file], env={"SUNO_API_KEY": "k", "SUNO_BASE_URL": "http://127.0.0.1:1"})
    *told, last = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(told) == len(reasons)
    for line, reason in zip(told, reasons, strict=True):
        assert line.startswith(file)
        assert re.match(reason, line.removeprefix(file)), line
    assert last.startswith("suno-persona: nothing was sent: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.csv"], "none.csv: expected a file, found an error: No such file"),
        (["."], "expected a file whose name ends in .csv or .jsonl, found neither"),
        (["rows.xlsx"], "expected a file whose name ends in .csv or .jsonl, found .xlsx"),
        (["rows.csv", "--output", "."], "expected a file that can be written, found an error: Is a directory"),
        (["rows.csv", "--output", "other.jsonl"], "other.jsonl:2: expected an outcome that `batch` wrote"),
        (["rows.csv", "--journal", "other.jsonl"], "other.jsonl: the journal cannot be read or written: file is not"),
        (["rows.csv", "--journal", "rows.csv"], "expected FILE, the journal and OUT to be different files, found"),
        (["rows.csv", "--output", "rows.csv.journal"], "expected FILE, the journal and OUT to be different files"),
        (["rows.csv", "--output", "text.jsonl"], "text.jsonl:1: expected an outcome that `batch` wrote"),
        (["rows.csv", "--output", "array.jsonl"], "array.jsonl:1: expected an outcome that `batch` wrote"),
        (["rows.csv", "--output", "list.jsonl"], "list.jsonl:1: expected an outcome that `batch` wrote"),
        (["rows.csv", "--journal", "nosuch://host/x"], "expected the path of a file, or the URL of a database"),
        (["rows.csv", "--base-url", "gateway"], "base_url: expected an address"),
    ],
)
async def test_what_cannot_be_used_is_told_in_one_line(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, arguments: list[str], reason: str
) -> None:
    """Nothing is sent, and no file is harmed."""
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


async def test_a_pipe_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    """It cannot be read twice: once to check it, once to send it."""
    script = f"cd {shlex.quote(str(tmp_path))} && mkfifo rows.csv && (echo x > rows.csv & {COMMAND} batch rows.csv)"
    done = await run("sh", "-c", script, env=env)
    assert (done.status, done.errors) == (
        2,
        "suno-persona: rows.csv: expected a file, which is read twice, found a pipe\n",
    )


async def test_an_output_that_is_a_pipe_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    """It is read too, to continue it; without --output the lines go to stdout."""
    write_file(tmp_path, rows(1))
    script = f"cd {shlex.quote(str(tmp_path))} && mkfifo out && {COMMAND} batch rows.csv --output out"
    done = await run("sh", "-c", script, env=env)
    assert done == Done(2, "", "suno-persona: out: expected a file, which is read too, found a pipe\n")


@pytest.mark.parametrize("torn", [b"", b"\0\0\0"])
async def test_running_it_again_sends_nothing_and_repeats_no_line(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, torn: bytes
) -> None:
    """The journal is beside the file unless another one is named, and the output is continued."""
    file, output = write_file(tmp_path, rows(20)), tmp_path / "out.jsonl"
    command = (COMMAND, "batch", file, "--output", str(output))
    first = await run(*command, env=env)
    content = output.read_bytes()
    output.write_bytes(content[:-20] + torn)  # as a power cut leaves it
    again = await run(*command, env=env)
    assert (first.status, again.status, first.output) == (0, 0, "")
    assert len(fake_suno.requests) == 20
    assert sorted(output.read_bytes().splitlines()) == sorted(content.splitlines())
    assert (tmp_path / "rows.csv.journal").exists()


async def test_a_changed_outcome_is_a_new_line(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """The last line of a request counts."""
    file, output = write_file(tmp_path, rows(1)), tmp_path / "out.jsonl"
    for fault, status in ((Fault.response(404), 1), (Fault.response(403), 1), (Fault.lost_answer(), 3)):
        fake_suno.script(fault)
        assert (await run(COMMAND, "batch", file, "--output", str(output), env=env)).status == status
    done = await run(COMMAND, "batch", file, "--output", str(output), "--retry-unknown", env=env)
    assert done.status == 0
    assert [line["state"] for line in read_outcomes(output.read_text())] == ["not_created", "unknown", "created"]


async def test_identical_rows_are_told_apart_in_the_output(env: dict[str, str], tmp_path: Path) -> None:
    """Each has its own line, and a second run repeats none."""
    file, output = write_file(tmp_path, HEADER + "c,N,D,,\n" * 10), tmp_path / "out.jsonl"
    for _ in range(2):
        await run(COMMAND, "batch", file, "--output", str(output), env=env)
        assert len({line["persona_id"] for line in read_outcomes(output.read_text())}) == 10
        assert (
            len({line["key"] for line in read_outcomes(output.read_text())})
            == len(output.read_text().splitlines())
            == 10
        )


async def test_the_output_can_be_read_while_it_grows(service: HeldService, tmp_path: Path) -> None:
    """Each outcome is there when the next one is not yet, and every line is whole."""
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


@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe", "closed stdout"])
async def test_an_output_that_takes_no_more_stops_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, where: str
) -> None:
    """The error is told in a line, the journal has what was created, and the command to go on is printed."""
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
    """Run the command that was printed to go on."""
    (line,) = [line for line in errors.splitlines() if "to go on: " in line]
    program, *arguments = shlex.split(line.partition("to go on: ")[2])
    assert program == "suno-persona"
    return await run(COMMAND, *arguments, env=env)


async def test_a_file_that_changes_under_way_is_told(service: HeldService, tmp_path: Path) -> None:
    """What is under way finishes, and the line that is bad now is named."""
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
    assert re.search(rb"rows.csv:\d+: the file was changed meanwhile: expected 5 cells", errors), errors


@pytest.mark.parametrize("change", ["shorter", "longer"])
async def test_a_file_with_another_number_of_rows_is_told(service: HeldService, tmp_path: Path, change: str) -> None:
    """Not all that was checked was sent, or not all was checked: that is no success."""
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
    assert b"the file was changed meanwhile: expected 1000 rows" in errors


async def test_a_million_rows_are_checked_in_flat_memory(tmp_path: Path) -> None:
    """A hundred thousand rows more take no megabyte more."""
    code = """if True:
        import resource, sys
        from suno_persona.cli._rows import read_rows
        class Endless:
            def __init__(self, count): self.count = count
            def __iter__(self):
                yield b"root_clip_id,name,description\\n"
                for number in range(self.count): yield b"clip,Voice %d,Airy pop\\n" % number
        peaks = []
        for count in (1_000, 100_000):
            assert sum(1 for _ in read_rows(Endless(count), ".csv")) == count
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(peaks[1] - peaks[0])
    """
    done = await run(sys.executable, "-c", code, env={})
    assert int(done.output) < 1024 * (1024 if sys.platform == "darwin" else 1)


async def test_progress_is_plain_lines_where_stderr_is_no_terminal(env: dict[str, str], tmp_path: Path) -> None:
    """A log has no bar and no control characters."""
    done = await run(COMMAND, "batch", write_file(tmp_path, rows(3)), env=env)
    assert "\x1b" not in done.errors
    assert "\r" not in done.errors


def test_a_log_gets_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """With counts, rate and time left, so that a long batch can be followed."""
    now = 0.0
    (request,) = requests(1)
    with Display(30, clock=lambda: now) as display:
        for number in range(10):
            now += 4
            error = NotCreatedError(message="no") if number == 0 else None
            display.add(Outcome(number, request, None if error else Persona(id="p"), error))
    shown = capsys.readouterr().err.splitlines()
    assert [line for line in shown if line.startswith(("3 of", "6 of", "9 of"))] == [
        "3 of 30: 2 created, 1 not created, 0 unknown, 0.2/s, 108 s left",
        "6 of 30: 5 created, 1 not created, 0 unknown, 0.2/s, 96 s left",
        "9 of 30: 8 created, 1 not created, 0 unknown, 0.2/s, 84 s left",
    ]
    assert sum(" of 30: " in line for line in shown) == 3
    assert any("30 requests, 40.0 s" in line for line in shown)
    assert any("not sent" in line and "20" in line for line in shown)


@pytest.mark.parametrize("options", [[], ["--persona-id", "p", "--not-created"]], ids=["neither", "both"])
async def test_resolving_needs_a_decision(tmp_path: Path, options: list[str]) -> None:
    """Created or not created, and not both."""
    done = await run(COMMAND, "journal", "resolve", "k", "--journal", str(tmp_path / "j"), *options, env={})
    assert done.status == 2
    assert "either --persona-id ID or --not-created" in done.errors


@pytest.mark.parametrize("decision", ["--persona-id", "--not-created"])
async def test_what_is_unknown_can_be_seen_and_settled(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, decision: str
) -> None:
    """The journal lists what needs a look, with the command that settles it, and the next run goes by it."""
    fake_suno.script(Fault.lost_answer())
    file = write_file(tmp_path, rows(2))
    await run(COMMAND, "batch", file, env=env)
    journal = f"{file}.journal"
    counts = await run(COMMAND, "journal", journal, env={})
    assert re.search(r"created +│ +1 ", counts.output)
    assert re.search(r"unknown +│ +1 ", counts.output)
    listed = await run(COMMAND, "journal", journal, "--unknown", env={})
    assert "ConnectionLostError" in listed.output
    command = shlex.split(listed.output.splitlines()[-1].partition(": ")[2].partition(" --persona-id")[0])
    chosen = [decision, "fd213afd"] if decision == "--persona-id" else [decision]
    settled = await run(COMMAND, *command[1:], *chosen, env={})
    assert settled == Done(0, "", "")
    assert (await run(COMMAND, "journal", journal, "--unknown", env={})).output == ""
    again = await run(COMMAND, *command[1:], *chosen, env={})
    assert again.status == 2
    assert "expected a request that needs a look" in again.errors
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 0
    assert len(fake_suno.requests) == (2 if decision == "--persona-id" else 3)


async def test_a_journal_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A typing error makes no empty journal."""
    done = await run(COMMAND, "journal", str(tmp_path / "none.db"), env={})
    assert (done.status, list(tmp_path.iterdir())) == (2, [])
    assert "expected a journal, found no such file" in done.errors


async def test_the_journal_may_be_named_by_the_environment(
    postgres_url: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """A URL with a password need not be typed, and is shown without it."""
    file = write_file(tmp_path, rows(2) + "unknown-1,N,D,,\n")
    env |= {"SUNO_JOURNAL_URL": postgres_url.replace("postgres:@", "postgres:hunter22@")}
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 1
    shown = await run(COMMAND, "journal", env=env)
    assert re.search(r"created +│ +2 ", shown.output)
    fake_suno.script(Fault.lost_answer())
    unknown = await run(COMMAND, "batch", write_file(tmp_path, HEADER + "c,More,D,,\n", "more.csv"), env=env)
    command = shlex.split(unknown.errors.splitlines()[-1].partition("unknown: ")[2])
    listed = await run(COMMAND, *command[1:], env=env)
    assert "hunter22" not in done.errors + unknown.errors + shown.output + shown.errors + listed.output
    settle = shlex.split(listed.output.splitlines()[-1].partition(": ")[2].partition(" --persona-id")[0])
    assert (await run(COMMAND, *settle[1:], "--not-created", env=env)).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.csv", "rows.csv"]
