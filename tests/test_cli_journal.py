"""`suno-persona journal`: unknown outcomes are listed and resolved."""

import re
import shlex
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.rows import HEADER, read_outcomes, rows, write_file

from suno_persona.testing import FakeSuno, Fault


@pytest.mark.parametrize("options", [[], ["--persona-id", "p", "--not-created"]], ids=["neither", "both"])
async def test_resolving_requires_a_decision(tmp_path: Path, options: list[str]) -> None:
    """The decision is either created or not created, not both."""
    done = await run(COMMAND, "journal", "resolve", "k", "--journal", str(tmp_path / "j"), *options, env={})
    assert done.status == 2
    assert "either --persona-id ID or --not-created" in done.errors


@pytest.mark.parametrize("decision", ["--persona-id", "--not-created"])
async def test_an_unknown_outcome_can_be_listed_and_resolved(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, decision: str
) -> None:
    """The journal lists unknown outcomes with the command that resolves one, and the next run follows the decision."""
    fake_suno.script(Fault.lost_answer())
    file = write_file(tmp_path, rows(2))
    output = (await run(COMMAND, "batch", file, env=env)).output
    journal = f"{file}.journal"
    counts = await run(COMMAND, "journal", journal, env={})
    assert re.search(r"created +│ +1 ", counts.output)
    assert re.search(r"unknown +│ +1 ", counts.output)
    listed = await run(COMMAND, "journal", journal, "--unknown", env={})
    assert "ConnectionLostError" in listed.output
    command = shlex.split(listed.output.splitlines()[-1].partition(": ")[2].partition(" --persona-id")[0])
    chosen = [decision, "fd213afd"] if decision == "--persona-id" else [decision]
    resolved = await run(COMMAND, *command[1:], *chosen, env={})
    assert resolved == Done(0, "", "")
    assert (await run(COMMAND, "journal", journal, "--unknown", env={})).output == ""
    (created,) = [line["key"] for line in read_outcomes(output) if line["state"] == "created"]
    settled = await run(COMMAND, *[created if each in output else each for each in command[1:]], *chosen, env={})
    assert settled.status == 2
    assert "cannot be resolved" in settled.errors
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 0
    assert len(fake_suno.requests) == (2 if decision == "--persona-id" else 3)


async def test_a_missing_journal_is_not_created(tmp_path: Path) -> None:
    """A mistyped name creates no empty journal."""
    done = await run(COMMAND, "journal", str(tmp_path / "none.db"), env={})
    assert (done.status, list(tmp_path.iterdir())) == (2, [])
    assert "the journal must exist; got no such file" in done.errors


async def test_the_environment_may_name_the_journal(
    postgres_url: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """A URL with a password need not be typed, and no output shows the password."""
    file = write_file(tmp_path, rows(2) + "unknown-1,N,D,,\n")
    env |= {"SUNO_JOURNAL_URL": postgres_url.replace("postgres:@", "postgres:hunter22@")}
    done = await run(COMMAND, "batch", file, env=env)
    assert done.status == 1
    shown = await run(COMMAND, "journal", env=env)
    assert re.search(r"created +│ +2 ", shown.output)
    fake_suno.script(Fault.lost_answer())
    unknown = await run(COMMAND, "batch", write_file(tmp_path, HEADER + "c,More,D,,\n", "more.csv"), env=env)
    command = shlex.split(unknown.errors.splitlines()[-1].partition("unknown outcomes: ")[2])
    listed = await run(COMMAND, *command[1:], env=env)
    assert "hunter22" not in done.errors + unknown.errors + shown.output + shown.errors + listed.output
    resolve = shlex.split(listed.output.splitlines()[-1].partition(": ")[2].partition(" --persona-id")[0])
    assert (await run(COMMAND, *resolve[1:], "--not-created", env=env)).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.csv", "rows.csv"]
