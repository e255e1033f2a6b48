"""`suno-persona batch` pays for nothing that looks like a duplicate, unless an option says so."""

from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.rows import read_outcomes, write_file

from suno_persona.testing import FakeSuno

DUPLICATES = """\
root_clip_id,name,description,custom_id
c1,Neon,Night drive,a
c1,Neon,Night drive,b
c2,Rain,Slow,c
c3,Fog,Slow,c
"""
HEADER = "root_clip_id,name,description\n"


async def test_duplicates_are_named_and_nothing_is_sent(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """An identical row and a `custom_id` that occurs twice are named with their lines; an option sends them."""
    file, output = write_file(tmp_path, DUPLICATES), tmp_path / "out.jsonl"
    done = await run(COMMAND, "batch", file, "--output", str(output), env=env)
    assert done == Done(
        2,
        "",
        f"{file}:3: looks like a duplicate: identical to line 2\n"
        f"{file}:5: looks like a duplicate: its custom_id is also that of line 4\n"
        "suno-persona: nothing was sent: 2 of 4 rows look like duplicates; --allow-duplicates sends them\n",
    )
    assert fake_suno.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    command = (COMMAND, "batch", file, "--output", str(output), "--allow-duplicates")
    assert (await run(*command, env=env)).status == 0
    assert len({line["persona_id"] for line in read_outcomes(output.read_text())}) == 4
    assert len({line["key"] for line in read_outcomes(output.read_text())}) == 4


async def test_what_the_journal_has_is_no_duplicate(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A run that was resumed needs no option for rows that were sent on purpose."""
    file = write_file(tmp_path, DUPLICATES)
    assert (await run(COMMAND, "batch", file, "--allow-duplicates", "--limit", "3", env=env)).status == 0
    done = await run(COMMAND, "batch", file, env=env)
    assert f"{file}:5: looks like a duplicate" in done.errors
    assert f"{file}:3: " not in done.errors
    assert (await run(COMMAND, "batch", file, "--allow-duplicates", env=env)).status == 0
    assert (await run(COMMAND, "batch", file, env=env)).status == 0
    assert len(fake_suno.requests) == 4


@pytest.mark.parametrize("edited", ["c1,Neon,Day drive\n", "c1,Neon,Day drive\nc2,Fog,Slow\n"])
async def test_an_edited_row_is_not_paid_for_again(
    edited: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """The error has the id of the persona that was created from the row as it was."""
    file = write_file(tmp_path, HEADER + "c1,Neon,Night drive\n")
    await run(COMMAND, "batch", file, env=env)
    write_file(tmp_path, HEADER + edited)
    done = await run(COMMAND, "batch", file, env=env)
    persona_id = fake_suno.personas[0].id
    reason = f"persona {persona_id} was created from another version of this row"
    assert done.errors.startswith(f"{file}:2: looks like a duplicate: {reason}\nsuno-persona: nothing was sent: 1 of ")
    assert "looks like a duplicate; --allow-duplicates sends it" in done.errors.splitlines()[-1]
    assert (done.status, len(fake_suno.requests)) == (2, 1)
    assert (await run(COMMAND, "batch", file, "--allow-duplicates", env=env)).status == 0


async def test_two_versions_in_one_file_are_resumed(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Rows with the same clip and name, and other descriptions, belong to the batch, also if it was interrupted."""
    file = write_file(tmp_path, HEADER + "c1,Neon,Night drive\nc1,Neon,Day drive\n")
    await run(COMMAND, "batch", file, "--limit", "1", env=env)
    assert (await run(COMMAND, "batch", file, env=env)).status == 0
    assert len(fake_suno.personas) == 2


async def test_a_new_row_with_a_known_custom_id_is_named_wherever_it_is(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """The row that was sent keeps its `custom_id`."""
    header, row = "root_clip_id,name,description,custom_id\n", "c1,Neon,Night drive,a\n"
    file = write_file(tmp_path, header + row)
    await run(COMMAND, "batch", file, env=env)
    write_file(tmp_path, f"{header}c2,Fog,Slow,a\n{row}")
    done = await run(COMMAND, "batch", file, env=env)
    assert done.errors.startswith(f"{file}:2: looks like a duplicate: its custom_id is also that of line 3\n")
    assert len(fake_suno.requests) == 1


async def test_a_check_names_the_duplicates_too(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Its status is that of the run, and it creates no file."""
    file = write_file(tmp_path, DUPLICATES)
    done = await run(COMMAND, "batch", file, "--check", env=env)
    assert (done.status, done.output) == (2, "4 rows; a run would do this:\n  4 new: sent\n")
    assert f"{file}:3: looks like a duplicate: identical to line 2\n" in done.errors
    assert (await run(COMMAND, "batch", file, "--check", "--allow-duplicates", env=env)).status == 0
    assert fake_suno.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
