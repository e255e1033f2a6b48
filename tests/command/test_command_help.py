"""The help of the `suno-persona` command, and the page that shows it.

`pytest --write-docs` regenerates the help texts in `docs/reference/command.md`.
"""

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support.command import COMMAND, Done, run
from support.terminal import terminal

from suno_persona import PersonaAPI, RetryPolicy
from suno_persona.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command.md"


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and its subcommands, each with the words that run it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from commands(command.commands[name], *path, name)


COMMANDS = dict(commands(app))
SENDING = [("create",), ("batch",), ("worker",), ("mcp",)]


def help_of(path: tuple[str, ...], option: str = "--help", columns: int = 80) -> str:
    """Return the help text of a command for a terminal of this width."""
    shown = CliRunner().invoke(app, [*path, option], prog_name="suno-persona", terminal_width=columns)
    assert (shown.exit_code, shown.stderr) == (0, "")
    return shown.stdout


def test_the_help_lists_every_command() -> None:
    """Commands are in the order in which a user meets them."""
    assert [" ".join(path) for path in COMMANDS] == [
        "",
        "create",
        "batch",
        "journal",
        "journal show",
        "journal unknown",
        "journal resolve",
        "journal export",
        "enqueue",
        "worker",
        "results",
        "mcp",
        "demo",
        "fake",
    ]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_help_text_fits_its_terminal(path: tuple[str, ...], columns: int) -> None:
    """No line is longer than the terminal, nothing is cut off, and `-h` shows the same."""
    text = help_of(path, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    usage, rest = text.split("\n\n", 1)
    assert usage.startswith(" ".join(["Usage: suno-persona", *path]))
    assert "..." not in rest.replace("[KEY]...", "")  # which may be passed more than once
    assert "…" not in rest
    assert help_of(path, "-h", columns) == text


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_everything_has_a_help_text(path: tuple[str, ...]) -> None:
    """It says what every command, option and argument is for."""
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Option | click.Argument)
        assert parameter.help, parameter.name


@pytest.mark.parametrize("path", SENDING, ids=" ".join)
def test_a_sending_command_has_an_option_for_every_argument_of_a_client(path: tuple[str, ...]) -> None:
    """Each has its variable, but for the key, which is never an option, and for objects of Python."""
    arguments = {*inspect.signature(PersonaAPI).parameters, *inspect.signature(RetryPolicy).parameters}
    arguments -= {"api_key", "session", "converter", "retry", "retry_unknown"}
    variables = {parameter.name: parameter.envvar for parameter in COMMANDS[path].params}
    assert {name: f"SUNO_{name.upper()}" for name in arguments} == {name: variables[name] for name in arguments}
    assert "api_key" not in variables
    text = help_of(path)
    assert all(f"[env var: SUNO_{name.upper()}" in " ".join(text.split()) for name in arguments)


async def test_the_help_uses_the_width_of_the_terminal() -> None:
    """It has no escape sequences; a command without any arguments is an error."""
    async with terminal(COMMAND, "--help", env={}, columns=60) as (screen, process):
        pass
    assert process.returncode == 0
    assert screen.shown.decode().replace("\r\n", "\n") == help_of((), columns=60)
    bare = await run(COMMAND, env={})
    assert bare == Done(2, "", help_of(()))


async def test_the_version_is_printed_whatever_the_other_arguments() -> None:
    """`--version` prints the version of the package."""
    assert await run(COMMAND, "--version", "sing", env={}) == Done(0, f"suno-persona {version('suno-persona')}\n", "")


def shown_help() -> dict[str, str]:
    """Return the help of each command as the page has it: each option once, with the first command that takes it."""
    shown, seen = dict[str, str](), set[str]()
    for path in COMMANDS:
        parts = re.split(r"(?m)^(?=  -)|^(?=\S)", help_of(path).partition("\n\n  Environment:")[0])
        new = [part for part in parts if not part.startswith("  -") or " ".join(part.split()) not in seen]
        seen |= {" ".join(part.split()) for part in parts}
        text = re.sub(r"(Client options|Options):\n\s*(?=\n|\Z|[A-Z])", "", "".join(new))
        shown[" ".join(["suno-persona", *path])] = text.strip()
    return shown


def test_the_page_shows_the_help_texts(pytestconfig: pytest.Config) -> None:
    """The reference is the help."""
    texts = "\n\n".join(f"## {command}\n\n```text\n{text}\n```" for command, text in shown_help().items())
    before, marker, _ = PAGE.read_text(encoding="utf-8").partition("<!-- the help texts -->\n\n")
    if pytestconfig.getoption("write_docs"):
        PAGE.write_text(f"{before}{marker}{texts}\n", encoding="utf-8")
    shown = PAGE.read_text(encoding="utf-8").partition(marker)[2]
    assert marker
    assert shown.strip() == texts
