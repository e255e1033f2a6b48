"""The shell completes commands, options and file names."""

import sys
from pathlib import Path

import pytest
from support.command import COMMAND, run
from support.terminal import terminal

pytestmark = pytest.mark.slow

SCRIPT = """
eval "$(_SUNO_PERSONA_COMPLETE=bash_source suno-persona)"
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_suno_persona_completion suno-persona
printf '%s\\n' "${COMPREPLY[@]}"
"""


async def completed(*words: str) -> list[str]:
    """Return what bash suggests for the last of these words."""
    path = {"PATH": f"{Path(COMMAND).parent}:/usr/bin:/bin"}
    done = await run("bash", "--norc", "-c", SCRIPT, "bash", "suno-persona", *words, env=path)
    assert (done.status, done.errors) == (0, "")
    return done.output.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], ["create", "batch", "journal", "enqueue", "worker", "results", "mcp", "demo", "fake"]),
        (["c"], ["create"]),
        (["--ver"], ["--version"]),
        (["create", "--root"], ["--root-clip-id"]),
        (["batch", "rows.csv", "--ret"], ["--retry-unknown"]),
        (["journal", "resolve", "--no"], ["--not-created"]),
        (["worker", "--gr"], ["--grace"]),
    ],
)
async def test_bash_completes_commands_and_options(words: list[str], offered: list[str]) -> None:
    """Commands are in the order of the help; anything else is left to file name completion."""
    assert await completed(*words) == offered


async def test_bash_completes_what_is_typed(env: dict[str, str], tmp_path: Path) -> None:
    """Tab completes a command, an option and a file name, and return runs the command."""
    (tmp_path / "my-personas.csv").write_text("root_clip_id,name\n")
    start = tmp_path / "start"
    start.write_text(
        f'cd {tmp_path}; PATH="{Path(COMMAND).parent}:$PATH" PS1="ready> "\n'
        'eval "$(_SUNO_PERSONA_COMPLETE=bash_source suno-persona)"\n'
    )
    async with terminal("bash", "--rcfile", str(start), "-i", env={**env, "TERM": "dumb"}) as (screen, process):
        await screen.until("ready> ")
        screen.type(b"suno-persona bat\t")
        await screen.until("suno-persona batch ")
        screen.type(b"my-p\t")
        await screen.until("my-personas.csv ")
        screen.type(b"--max-c\t")
        await screen.until("--max-connections ")
        screen.type(b"2\r")
        await screen.until("the header must have the column description")
        screen.type(b"exit\r")
    assert process.returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_each_shell_has_a_completion_script(shell: str) -> None:
    """The script asks the command itself for completions."""
    done = await run(COMMAND, env={"_SUNO_PERSONA_COMPLETE": f"{shell}_source"})
    assert (done.status, done.errors) == (0, "")
    assert f"{shell}_complete" in done.output


async def test_completion_imports_only_what_it_needs() -> None:
    """It does not import rich, SQLAlchemy or the fake service, so that it is quick."""
    code = """
import atexit, sys
slow = ("rich", "sqlalchemy", "procrastinate", "suno_persona.testing")
atexit.register(lambda: print([name for name in slow if name in sys.modules]))
sys.argv[0] = "suno-persona"
from suno_persona.__main__ import main
main()
"""
    asked = {"_SUNO_PERSONA_COMPLETE": "bash_complete", "COMP_WORDS": "suno-persona cr", "COMP_CWORD": "1"}
    done = await run(sys.executable, "-c", code, env=asked)
    assert done.output.splitlines() == ["plain,create", "[]"]
