"""An error of the `suno-persona` command is one line on stderr, without a traceback and without the key."""

import os
import re
import sys
from pathlib import Path

import pytest
from support.command import COMMAND, CREATE, Done, run
from support.rows import rows, write_file

from suno_persona.testing import FakeSuno, Fault

KEY = "sk-secret-0123456789"
SETTINGS = {"SUNO_API_KEY": KEY, "SUNO_BASE_URL": "https://gateway.example"}
LONG = "x" * 300
ONE_LINE = r"suno-persona: [^\n]+\n"
WRONG = {
    "an unknown command": (["creat"], "No such command 'creat'"),
    "a command with a line break": (["a\nb"], r"No such command 'a\nb'"),
    "an unknown option": (["--sing"], "No such option '--sing'"),
    "an unknown option of a command": (["create", "--sing"], "(see suno-persona create --help)"),
    "an option without its value": (["create", "--name"], "--name"),
    "a missing option": (["create", "--name", "N"], "Missing option '--root-clip-id'"),
    "a missing argument": (["batch"], "Missing argument 'FILE'"),
    "a missing command": (["journal"], "Missing command (see suno-persona journal --help)"),
    "too much": (["demo", "sing"], "(sing)"),
    "no number": (["fake", "--port", "x"], "'--port'"),
    "a number that is too high": (["fake", "--port", "70000"], "65535"),
    "a number that is too low": (
        ["batch", "rows.csv", "--max-connections", "0"],
        "Invalid value for '--max-connections' (env var: 'SUNO_MAX_CONNECTIONS'): 0 is not in the range x>=1",
    ),
    "an address that is none": ([*CREATE, "--base-url", "nonsense"], "--base-url must be "),
    "an address that is not encrypted": ([*CREATE, "--base-url", "http://gateway.example"], "https://"),
    "a control character": (["create", "--root-clip-id", "c\x1b[31m", *CREATE[3:]], "root_clip_id contains "),
    "text that is no Unicode": (["create", "--root-clip-id", "c\udcff", *CREATE[3:]], "root_clip_id must be "),
    "no such file": (["batch", "missing.csv"], "File 'missing.csv' does not exist"),
    "a file of another kind": (["batch", "rows.txt"], "got rows.txt"),
    "a name that a terminal would obey": (["batch", "a\n\x1b[2J.csv"], r"File 'a\n\x1b[2J.csv' does not exist"),
    "a folder for a file": (["batch", "folder.csv"], "File 'folder.csv' is a directory"),
    "a file for a folder": (["batch", "rows.csv/rows.csv"], "File 'rows.csv/rows.csv' does not exist"),
    "a name that is too long": (["batch", f"{LONG}.csv"], ".csv' does not exist"),
    "a link to itself": (["batch", "loop.csv"], "File 'loop.csv' does not exist"),
    "a folder for the output": (["batch", "rows.csv", "--output", "folder.csv"], "a writable file; got folder.csv ("),
    "a name that is too long for the output": (["batch", "rows.csv", "--output", LONG], "x (File name too long)"),
    "a link to itself for the output": (
        ["batch", "rows.csv", "--output", "loop.csv"],
        "a writable file; got loop.csv (",
    ),
    "a folder for the journal": (["batch", "rows.csv", "--journal", "folder.csv"], "folder.csv: the journal"),
    "a name that is too long for the journal": (["batch", "rows.csv", "--journal", LONG], "x: the journal"),
    "a link to itself for the journal": (["batch", "rows.csv", "--journal", "loop.csv"], "loop.csv: the journal"),
    "no such journal": (["journal", "show", "--journal", "missing.db"], "missing.db: the journal must exist"),
    "a journal that is none": (["journal", "show", "--journal", "rows.csv"], "rows.csv: the journal"),
    "no such database": (["journal", "show", "--journal", "sing://u:secret@db.example/x"], "sing"),
    "neither of two": (["journal", "resolve", "KEY", "--journal", "rows.csv"], "--persona-id ID or --not-created"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_usage_error_is_reported_in_one_line(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the error, and the status is 2."""
    arguments, words = WRONG[wrong]
    for name in ("rows.csv", "rows.txt"):
        write_file(tmp_path, rows(1), name)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    monkeypatch.chdir(tmp_path)
    done = await run(COMMAND, *arguments, env=SETTINGS)
    assert (done.status, done.output) == (2, "")
    assert re.fullmatch(ONE_LINE, done.errors)
    assert words in done.errors
    assert "secret" not in done.errors


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} x", f"{KEY}é"])
async def test_an_unusable_key_is_not_shown(key: str) -> None:
    """The line only names what is wrong with the key."""
    done = await run(COMMAND, *CREATE, env={**SETTINGS, "SUNO_API_KEY": key})
    assert (done.status, done.output) == (2, "")
    assert re.fullmatch(r"suno-persona: SUNO_API_KEY contains [^\n]+\n", done.errors)
    assert "secret" not in done.errors


async def test_an_unreadable_file_is_reported_in_one_line(tmp_path: Path) -> None:
    """The line names the file."""
    file = write_file(tmp_path, rows(1))
    Path(file).chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    done = await run(COMMAND, "batch", file, env=SETTINGS)
    assert (done.status, done.output) == (2, "")
    assert re.fullmatch(ONE_LINE, done.errors)
    assert file in done.errors


PRINTING = [
    *(["--help"], ["--version"], ["demo"]),
    *(["journal", command, "--journal", "JOURNAL"] for command in ("show", "unknown")),
]
"""Commands that print, but create nothing that costs money."""


@pytest.fixture
async def journal(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> str:
    """Return a journal with one unknown outcome."""
    fake_suno.script(Fault.lost_response())
    assert (await run(COMMAND, "batch", write_file(tmp_path, rows(1)), env=env)).status == 3
    return str(tmp_path / "rows.csv.journal")


async def printing(redirection: str, arguments: list[str], journal: str) -> Done:
    """Run a command with its stdout redirected."""
    names = [journal if each == "JOURNAL" else each for each in arguments]
    return await run("bash", "-c", f'"$@" {redirection}', "bash", COMMAND, *names, env={})


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [*PRINTING, ["fake", "--port", "0"]], ids=" ".join)
async def test_a_full_disk_is_reported_in_one_line(arguments: list[str], journal: str) -> None:
    """If a command cannot write its output, its status is 2."""
    done = await printing(">/dev/full", arguments, journal)
    assert done == Done(2, "", "suno-persona: [Errno 28] No space left on device\n")


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.parametrize("arguments", [*PRINTING, ["fake", "--port", "0"]], ids=" ".join)
async def test_a_reader_that_left_is_not_an_error(arguments: list[str], journal: str) -> None:
    """As with `| head -1`, the command ends and prints no error."""
    script = 'exec 3> >(exit); wait $!; "$@" >&3; test $? = 0'  # the pipe has no reader from the start
    names = [journal if each == "JOURNAL" else each for each in arguments]
    assert await run("bash", "-c", script, "bash", COMMAND, *names, env={}) == Done(0, "", "")


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
async def test_a_closed_stdout_is_not_an_error(arguments: list[str], journal: str) -> None:
    """With stdout closed, the command prints nothing and succeeds."""
    assert await printing(">&-", arguments, journal) == Done(0, "", "")


@pytest.mark.slow
async def test_ctrl_c_while_the_command_starts_is_silent() -> None:
    """Ctrl-C during the imports prints no traceback, and the status is 130."""
    code = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from suno_persona.__main__ import main
main()
"""
    assert await run(sys.executable, "-c", code, env={}) == Done(130, "", "")
