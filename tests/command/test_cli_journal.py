"""`suno-persona journal`: shows what a batch has recorded, and lists and resolves unknown outcomes."""

import json
import re
import shlex
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.exports import a_request, fill, sample
from support.rows import HEADER, read_outcomes, rows, write_file

from suno_persona import ConnectionLostError
from suno_persona.testing import FakeSuno, Fault


async def of_journal(command: str, journal: str, *arguments: str) -> Done:
    """Run a command on a journal."""
    return await run(COMMAND, "journal", command, "--journal", journal, *arguments, env={})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["k"], "pass either --persona-id ID or --not-created; got neither"),
        (["k", "--persona-id", "p", "--not-created"], "pass either --persona-id ID or --not-created; got both"),
        (["--not-created"], "KEY or --from FILE is missing"),
        (["k", "--from", "-"], "--from cannot be combined with KEY, --persona-id or --not-created"),
        (["--not-created", "--from", "-"], "--from cannot be combined with KEY, --persona-id or --not-created"),
    ],
)
async def test_resolving_requires_one_decision(tmp_path: Path, arguments: list[str], words: str) -> None:
    """A request is resolved as either created or not created, and named either by key or in a file."""
    done = await of_journal("resolve", str(tmp_path / "j"), *arguments)
    assert done.status == 2
    assert words in done.errors


@pytest.mark.parametrize("decision", ["--persona-id", "--not-created"])
async def test_an_unknown_outcome_can_be_listed_and_resolved(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, decision: str
) -> None:
    """The batch prints how to list unknown outcomes, and the list how to resolve one; the next run honours that."""
    fake_suno.script(Fault.lost_response())
    file = write_file(tmp_path, rows(2))
    batch = await run(COMMAND, "batch", file, env=env)
    journal = f"{file}.journal"
    counts = await of_journal("show", journal)
    assert re.search(r"created +│ +1 ", counts.output)
    assert re.search(r"unknown +│ +1 ", counts.output)
    listed = await run(COMMAND, *shlex.split(batch.errors.rpartition("unknown outcomes: suno-persona ")[2]), env={})
    assert "ConnectionLostError" in listed.output
    command = shlex.split(listed.output.splitlines()[-1].partition(": ")[2].partition(" --persona-id")[0])
    chosen = [decision, "fd213afd"] if decision == "--persona-id" else [decision]
    resolved = await run(COMMAND, *command[1:], *chosen, env={})
    assert resolved == Done(0, "", "")
    assert (await of_journal("unknown", journal)).output == ""
    (created,) = [line["key"] for line in read_outcomes(batch.output) if line["state"] == "created"]
    settled = await of_journal("resolve", journal, created, *chosen)
    assert settled.status == 2
    assert "cannot be resolved" in settled.errors
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 0
    assert len(fake_suno.requests) == (2 if decision == "--persona-id" else 3)


async def test_the_list_names_the_lines_of_the_input(tmp_path: Path) -> None:
    """With --input, each unknown and each claimed request has its line, who claimed it, and the reason."""
    journal, file = await sample(tmp_path)
    done = await of_journal("unknown", journal, "--input", file)
    claimed = r"  claimed at [\d-]+ [\d:]+\+00:00 by .+, process \d+\n"
    lost = rf"\n  'Paper Lanterns' from '2b\S+'\n  line 4\n{claimed}  ConnectionLostError: the connection broke .+\n"
    open_ = rf"\n  'Glass Orchard' from '5b\S+'\n  line 7\n{claimed}  no outcome was recorded\n"
    for entry in (lost, open_):
        assert re.search(rf"(?m)^[0-9a-f]{{12}}:1{entry}", done.output)
    assert "  line " not in (await of_journal("unknown", journal)).output


async def test_the_list_is_available_as_json(tmp_path: Path) -> None:
    """Each record is a line with all of its fields."""
    journal, file = await sample(tmp_path)
    done = await of_journal("unknown", journal, "--json", "--input", file)
    found = {record["request"]["name"]: record for record in read_outcomes(done.output)}
    assert found.keys() == {"Paper Lanterns", "Glass Orchard"}
    assert (found["Paper Lanterns"]["state"], found["Paper Lanterns"]["line"]) == ("unknown", 4)
    assert found["Paper Lanterns"]["reason"].startswith("ConnectionLostError: ")
    assert (found["Glass Orchard"]["state"], found["Glass Orchard"]["settled_at"]) == ("claimed", None)


async def test_the_counts_are_available_as_json(tmp_path: Path) -> None:
    """Every state has a number, even if it is 0."""
    journal, _ = await sample(tmp_path)
    done = await of_journal("show", journal, "--json")
    assert json.loads(done.output) == {"queued": 0, "created": 3, "not_created": 1, "unknown": 1, "claimed": 1}


async def test_single_records_are_shown(tmp_path: Path) -> None:
    """A record is named by its key or an unambiguous prefix of it, and shown in full."""
    journal, file = await sample(tmp_path)
    records = read_outcomes((await of_journal("unknown", journal, "--json")).output)
    keys = [records[0]["key"], records[1]["key"][:10].upper()]
    shown = await of_journal("show", journal, *keys, "--input", file)
    first, second = shown.output.strip().split("\n\n")
    assert f"key           {records[0]['key']}\n" in first
    assert f"name          {records[1]['request']['name']}\n" in second
    assert "\nline  " in f"\n{second}"
    again = await of_journal("show", journal, *keys, "--json")
    assert read_outcomes(again.output) == records


async def test_input_requires_a_key(tmp_path: Path) -> None:
    """Without a record to show, --input is an error."""
    done = await of_journal("show", str(tmp_path / "j"), "--input", "-")
    assert (done.status, done.output) == (2, "")
    assert "--input requires at least one KEY" in done.errors


async def test_a_key_prefix_must_be_unambiguous(tmp_path: Path) -> None:
    """Identical requests differ in their ordinal, which must match exactly; the error shows what it got."""
    lost = ConnectionLostError(message="lost")
    journal = await fill(tmp_path / "j", *[(a_request("Neon"), lost)] * 12)
    key = read_outcomes((await of_journal("unknown", journal, "--json")).output)[0]["key"]
    digest = key.partition(":")[0]
    for wrong, words in [
        (digest[:8], f"KEY must be unambiguous; got '{digest[:8]}', which begins {digest[:12]}:1, {digest[:12]}:10"),
        (f"{digest[:8]}:13", "KEY must be the beginning of a recorded key; got"),
        ("0123", "KEY must be the beginning of a recorded key; got '0123'"),
        ("", "KEY must be the beginning of a recorded key; got ''"),
    ]:
        done = await of_journal("show", journal, wrong)
        assert (done.status, done.output) == (2, "")
        assert words in done.errors
    assert f"{digest}:1\n" in (await of_journal("show", journal, f"{digest[:8]}:1")).output


async def test_control_characters_are_escaped(tmp_path: Path) -> None:
    """Control characters and bidirectional marks are escaped in every form of output."""
    evil = "\x1b]0;x\x07\x9b2J\u202e"
    journal = await fill(tmp_path / "j", (a_request(f"N{evil}", f"D{evil}"), ConnectionLostError(message=f"R{evil}")))
    (record,) = read_outcomes((await of_journal("unknown", journal, "--json")).output)
    assert record["request"]["name"] == f"N{evil}"
    for command, *arguments in (["unknown"], ["unknown", "--json"], ["show", record["key"]]):
        output = (await of_journal(command, journal, *arguments)).output
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", output)
        assert "R\\" in output


async def test_a_missing_journal_is_not_created(tmp_path: Path) -> None:
    """A mistyped name creates no empty journal."""
    done = await of_journal("show", str(tmp_path / "none.db"))
    assert (done.status, list(tmp_path.iterdir())) == (2, [])
    assert "the journal must exist; got no such file" in done.errors
    assert "did you mean" not in done.errors


@pytest.mark.parametrize("command", ["show", "unknown"])
async def test_the_input_is_not_the_journal(tmp_path: Path, command: str) -> None:
    """If the input file is passed instead of the journal, the error names the journal beside it."""
    journal, file = await sample(tmp_path)
    done = await of_journal(command, file)
    assert (done.status, done.output) == (2, "")
    assert done.errors.endswith(f" (did you mean {journal}?)\n")
    assert done.errors.count("\n") == 1


async def test_the_environment_may_name_the_journal(
    postgres_url: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """A URL with a password need not be typed, and no output shows the password."""
    file = write_file(tmp_path, rows(2) + "unknown-1,N,D,,\n")
    env |= {"SUNO_JOURNAL_URL": postgres_url.replace("postgres:@", "postgres:hunter22@")}
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 1
    shown = await run(COMMAND, "journal", "show", env=env)
    assert re.search(r"created +│ +2 ", shown.output)
    fake_suno.script(Fault.lost_response())
    unknown = await run(COMMAND, "batch", write_file(tmp_path, HEADER + "c,More,D,,\n", "more.csv"), env=env)
    command = shlex.split(unknown.errors.splitlines()[-1].partition("unknown outcomes: ")[2])
    listed = await run(COMMAND, *command[1:], env=env)
    page = await run(COMMAND, "journal", "export", "--format", "html", env=env)
    assert "Voice 1" in page.output
    printed = done.errors + unknown.errors + shown.output + shown.errors + listed.output + page.output
    assert "hunter22" not in printed
    resolve = shlex.split(listed.output.splitlines()[-1].partition(": ")[2].partition(" --persona-id")[0])
    assert (await run(COMMAND, *resolve[1:], "--not-created", env=env)).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.csv", "rows.csv"]
