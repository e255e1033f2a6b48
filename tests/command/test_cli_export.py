"""`suno-persona journal export` as CSV and JSON Lines, and how every export is written."""

import csv
import io
import json
from pathlib import Path

import pytest
from support.command import COMMAND, Done, run
from support.exports import a_persona, a_request, export, fill, sample
from support.journals import entries

from suno_persona import CreatePersonaRequest, NotFoundError, dumps

KINDS = ["csv", "jsonl", "html"]
EXACT = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"]


async def table(journal: str, *options: str) -> list[dict[str, str]]:
    """Return the rows of an export as CSV."""
    done = await export(journal, "csv", *options)
    assert (done.status, done.errors) == (0, "")
    return list(csv.DictReader(io.StringIO(done.output, newline="")))


async def documents(journal: str, *options: str) -> list[dict[str, object]]:
    """Return the documents of an export as JSON Lines."""
    done = await export(journal, "jsonl", *options)
    assert (done.status, done.errors) == (0, "")
    return [json.loads(line) for line in done.output.splitlines()]


async def test_a_table_has_a_row_for_each_request(tmp_path: Path) -> None:
    """The rows are in the order of the input, with the line, the request and its outcome."""
    journal, file = await sample(tmp_path)
    rows = await table(journal, "--input", file)
    assert [row["line"] for row in rows] == ["2", "3", "4", "5", "6", "7"]
    assert [row["state"] for row in rows] == ["created", "created", "unknown", "created", "not_created", "claimed"]
    created, _, unknown, _, rejected, claimed = rows
    assert (created["name"], created["is_public"], created["by_hand"]) == ("Neon Drive", "false", "false")
    assert created["persona_id"] == "6f1d20c4-ac1c-4822-9802-c1c0ea45e77b"
    assert created["audio_url"] == f"https://cdn.example/audio/{created['root_clip_id']}"
    assert unknown["reason"].startswith("ConnectionLostError: ")
    assert rejected["reason"] == "NotFoundError, HTTP 404: the clip does not exist"
    assert (claimed["reason"], claimed["settled_at"], claimed["persona_id"]) == ("", "", "")


async def test_requests_that_are_not_in_the_input_come_last(tmp_path: Path) -> None:
    """No record is left out; without an input, they are in the order of their claims."""
    journal, file = await sample(tmp_path)
    path = Path(file)
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, *reversed(lines[2:])]))
    rows = await table(journal, "--input", file)
    assert [row["line"] for row in rows] == ["2", "3", "4", "5", "", ""]
    assert [row["name"] for row in rows[-2:]] == ["Neon Drive", "Harbour Fog"]
    claims = [row["claimed_at"] for row in await table(journal)]
    assert claims == sorted(claims)


async def test_an_empty_journal_is_a_table_without_rows(tmp_path: Path) -> None:
    """CSV has its header, and JSON Lines are empty."""
    journal = await fill(tmp_path / "j")
    assert (await export(journal, "csv")).output.startswith("line,custom_id,state,name,persona_id,reason,")
    assert await table(journal) == []
    assert await documents(journal) == []


async def test_json_lines_have_everything_in_the_record(tmp_path: Path) -> None:
    """A document has the request as sent and the persona as received."""
    journal, file = await sample(tmp_path)
    found = await documents(journal, "--input", file)
    held = {entry.key: entry for entry in await entries(journal)}
    assert [document["line"] for document in found] == [2, 3, 4, 5, 6, 7]
    for document in found:
        entry = held[str(document["key"])]
        assert (document["state"], document["persona_id"]) == (entry.state, entry.persona_id)
        assert document["reason"] == entry.reason
        assert document["persona"] == (entry.persona and json.loads(dumps(entry.persona)))
        assert document["request"]["name"] == entry.request.name  # type: ignore[index]  # JSON


async def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    """Text that a spreadsheet would compute is prefixed with an apostrophe; JSON Lines have it unchanged."""
    results = []
    for number, text in enumerate(EXACT):
        request = CreatePersonaRequest(root_clip_id="c", name=f"{text}x", description=text, extra={"mood": text})
        results.append((request, a_persona(number, request, audio_url=text)))
    rejected = a_request("=cmd")
    failed = NotFoundError(message="=1", status=404)
    journal = await fill(tmp_path / "j", *results, (rejected, failed))
    rows = await table(journal)
    assert [(row["description"], row["audio_url"]) for row in rows[:-1]] == [(f"'{text}", f"'{text}") for text in EXACT]
    assert [row["name"] for row in rows] == [*(f"'{text}x" for text in EXACT), "'=cmd"]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in tuple("=+-@\t\r")]
    assert json.loads(rows[0]["extra"]) == {"mood": "=1+1"}
    found = await documents(journal)
    assert [document["request"]["description"] for document in found[:-1]] == EXACT  # type: ignore[index]  # JSON


async def test_a_table_has_no_control_characters(tmp_path: Path) -> None:
    """They are replaced, except for line breaks and tabs, which are quoted."""
    journal = await fill(tmp_path / "j", (a_request("N\x1b[2J\x9b", "a\tb\r\nc\rd"), None))
    (row,) = await table(journal)
    assert (row["name"], row["description"]) == ("N\ufffd[2J\ufffd", "a\tb\r\nc\rd")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_file_is_replaced_once_the_export_is_complete(tmp_path: Path, kind: str) -> None:
    """It has the same content as stdout, also through a symbolic link, and no other file is left."""
    journal, _ = await sample(tmp_path)
    target, link = tmp_path / "export", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    assert await export(journal, kind, "--output", str(link)) == Done(0, "", "")
    assert link.is_symlink()
    assert "Neon Drive" in target.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("export", "link", "personas.csv", "personas.csv.journal"),
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_disk_is_reported_in_one_line(tmp_path: Path, kind: str) -> None:
    """Both on stdout and as the output, a device, which is not replaced."""
    journal, _ = await sample(tmp_path)
    full = await export(journal, kind, "--output", "/dev/full")
    words = "--output must be a writable file; got /dev/full (No space left on device)"
    assert full == Done(2, "", f"suno-persona: {words}\n")
    assert Path("/dev/full").is_char_device()
    script = '"$0" journal export --journal "$1" --format "$2" > /dev/full'
    done = await run("bash", "-c", script, COMMAND, journal, kind, env={})
    assert done == Done(2, "", "suno-persona: [Errno 28] No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_left_is_not_an_error(tmp_path: Path, kind: str) -> None:
    """As with `| head -1`, the command ends and prints nothing."""
    journal, _ = await sample(tmp_path)
    script = 'exec 3> >(exit); wait $!; "$0" journal export --journal "$1" --format "$2" >&3'
    assert await run("bash", "-c", script, COMMAND, journal, kind, env={}) == Done(0, "", "")


@pytest.mark.slow
async def test_a_closed_stdout_is_an_error(tmp_path: Path) -> None:
    """An export without a destination is not a success."""
    journal, _ = await sample(tmp_path)
    script = '"$0" journal export --journal "$1" --format csv >&-'
    done = await run("bash", "-c", script, COMMAND, journal, env={})
    assert done == Done(2, "", "suno-persona: the output must be writable; got a stdout that is closed\n")


@pytest.mark.parametrize("name", ["personas.csv", "personas.csv.journal"])
async def test_the_output_replaces_neither_the_journal_nor_the_input(tmp_path: Path, name: str) -> None:
    """It does not replace them through a symbolic link, either."""
    journal, file = await sample(tmp_path)
    before = (tmp_path / name).read_bytes()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / name)
    done = await export(journal, "csv", "--input", file, "--output", str(link))
    assert (done.status, done.output) == (2, "")
    assert done.errors.startswith("suno-persona: input, journal and output must be different files; got ")
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("url", ["sqlite:///j.db", "sqlite:///file:j.db?uri=true", "j.db"])
async def test_the_output_is_not_the_journal_in_a_url(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the journal is named, it is not replaced."""
    await fill(tmp_path / "j.db")
    before = (tmp_path / "j.db").read_bytes()
    monkeypatch.chdir(tmp_path)
    done = await export(url, "csv", "--output", "j.db")
    assert done.status == 2
    assert done.errors.startswith("suno-persona: input, journal and output must be different files; got ")
    assert (tmp_path / "j.db").read_bytes() == before


async def test_an_invalid_input_writes_nothing(tmp_path: Path) -> None:
    """Its bad rows are reported, and an existing output is kept."""
    journal, file = await sample(tmp_path)
    Path(file).write_text("root_clip_id,name,description\nc,,D\n")
    output = tmp_path / "page.html"
    output.write_text("old")
    done = await export(journal, "html", "--input", file, "--output", str(output))
    assert (done.status, done.output, output.read_text()) == (2, "", "old")
    assert f"{file}:2: name must be non-empty text" in done.errors
