"""`suno-persona journal resolve --from FILE`: resolves many outcomes, all of them or none."""

from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.exports import a_persona, a_request, fill
from support.journals import entries
from support.rows import write_file

from suno_persona import ConnectionLostError


@pytest.fixture
async def journal(tmp_path: Path) -> str:
    """Return a journal with three unknown outcomes and a persona."""
    lost = ConnectionLostError(message="lost")
    created = a_request("Created")
    unknown = [(a_request(f"Voice {number}"), lost) for number in range(3)]
    return await fill(tmp_path / "j", *unknown, (created, a_persona(1, created)))


async def keys(journal: str, state: str = "unknown") -> list[str]:
    """Return the keys of the requests in a state."""
    return [entry.key for entry in await entries(journal) if entry.state == state]


async def resolve(journal: str, file: str) -> Done:
    """Resolve the outcomes in a file."""
    return await run(COMMAND, "journal", "resolve", "--journal", journal, "--from", file, env={})


async def test_many_outcomes_are_resolved(journal: str, tmp_path: Path) -> None:
    """A line has a key or its prefix, and an id or not_created; a header, empty lines and CRLF are allowed."""
    one, two, _ = await keys(journal)
    text = f"\ufeffkey,persona_id\r\n{one},fd213afd\r\n\r\n {two[:9]}, not_created\r\n"
    done = await resolve(journal, write_file(tmp_path, text, "found.csv"))
    assert done == Done(0, "2 resolved: 1 created, 1 not created\n", "")
    after = {entry.key: (entry.state, entry.persona_id, entry.by_hand) for entry in await entries(journal)}
    assert after[one] == ("created", "fd213afd", True)
    assert after[two] == ("not_created", None, True)
    assert len(await keys(journal)) == 1


async def test_all_bad_lines_are_reported_and_nothing_is_written(journal: str, tmp_path: Path) -> None:
    """Each is FILE:LINE: reason, whether it is malformed or not permitted by the journal."""
    one, two, _ = await keys(journal)
    (created,) = await keys(journal, "created")
    lines = [
        f"{one},fd213afd",
        "ffffffffffff,fd213afd",
        f"{one[:20]},not_created",
        f"{created},fd213afd",
        f"{two},two words",
        f"{two},",
        f"{two}",
        f'{two},"x',
    ]
    file = write_file(tmp_path, "\n".join(lines), "found.csv")
    before = await entries(journal)
    done = await resolve(journal, file)
    assert (done.status, done.output) == (2, "")
    assert done.errors.splitlines() == [
        f"{file}:2: KEY must be the beginning of a recorded key; got 'ffffffffffff'",
        f"{file}:3: line 1 resolves the same request",
        f"{file}:4: the service settled it as created",
        f"{file}:5: persona_id must be an id without white space; got 'two words'",
        f"{file}:6: the row must be KEY,PERSONA_ID or KEY,not_created; got '{two},'",
        f"{file}:7: the row must be KEY,PERSONA_ID or KEY,not_created; got '{two}'",
        f"{file}:8: the row is not valid CSV: unexpected end of data",
        "suno-persona: nothing was resolved: 7 of 8 lines are not valid resolutions",
    ]
    assert await entries(journal) == before


async def test_one_bad_line_rolls_back_the_others(journal: str, tmp_path: Path) -> None:
    """Nothing is written if the journal does not permit one of the resolutions."""
    one, *_ = await keys(journal)
    (created,) = await keys(journal, "created")
    before = await entries(journal)
    done = await resolve(journal, write_file(tmp_path, f"{one},fd213afd\n{created},not_created\n", "found.csv"))
    assert done.status == 2
    assert "found.csv:2: the service settled it as created\n" in done.errors
    assert await entries(journal) == before


@pytest.mark.slow
async def test_the_lines_may_come_through_a_pipe(journal: str) -> None:
    """`-` is stdin."""
    script = 'echo "$1,not_created" | "$2" journal resolve --journal "$3" --from -'
    one, *_ = await keys(journal)
    done = await run("bash", "-c", script, "bash", one, COMMAND, journal, env={})
    assert done == Done(0, "1 resolved: 0 created, 1 not created\n", "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "Invalid value for '--from': File '{file}' does not exist (see suno-persona journal resolve --help)"),
        (b"key,persona_id\n\n", "{file} has no resolution"),
        ("é,x\n".encode("utf-16")[:-1], "{file} is not valid UTF-16: "),
    ],
    ids=["missing", "empty", "broken UTF-16"],
)
async def test_an_unusable_file_is_reported_in_one_line(
    journal: str, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """The line names the file."""
    file = str(tmp_path / "found.csv")
    if content is not None:
        write_file(tmp_path, content, "found.csv")
    done = await resolve(journal, file)
    assert (done.status, done.output, done.errors.count("\n")) == (2, "", 1)
    assert done.errors.startswith(f"suno-persona: {words.format(file=file)}")
