"""The rules that the tests themselves follow."""

import ast
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import COMMAND, CREATE, run

TESTS = Path(__file__).parent.parent
HEAVY = ("aioresponses", "psycopg", "sqlalchemy")


def imported(file: Path) -> set[str]:
    """Return the first part of every module name that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


def test_no_module_imports_a_test_module_or_conftest() -> None:
    """Code that tests share is in `support`."""
    modules = {"conftest", *(file.stem for file in TESTS.rglob("test_*.py"))}
    assert not {str(file): names for file in TESTS.rglob("*.py") if (names := imported(file) & modules)}


def test_helpers_are_in_one_folder() -> None:
    """Besides the test modules there are only the programs that nox runs."""
    assert {file.name for file in TESTS.glob("[!t]*.py")} == {"conftest.py", "soak.py"}


def process() -> list[object]:
    """Return what a command changes in its process."""
    loggers = [logging.getLogger(), logging.getLogger("suno_persona")]
    streams = [sys.stdin, sys.stdout, sys.stderr]
    return [
        *(dict(os.environ), sys.argv, streams, sys.modules["__main__"], signal.signal, logging.lastResort),
        *((logger.handlers[:], logger.level, logger.isEnabledFor(logging.DEBUG)) for logger in loggers),
    ]


async def test_a_command_leaves_nothing_behind(env: dict[str, str]) -> None:
    """A command that runs in the process of the tests changes nothing for the next test."""
    before = process()
    for words, status in ((["-v"], 0), (["--attempts", "0"], 2)):
        assert (await run(COMMAND, *CREATE, *words, env=env)).status == status
        assert process() == before


async def test_a_command_sees_the_environment_of_its_test(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the package that are set outside of a test do not reach the command."""
    monkeypatch.setenv("SUNO_ATTEMPTS", "no number")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert (await run(COMMAND, *CREATE, env=env)).status == 0


@pytest.mark.slow
def test_a_test_that_needs_no_database_imports_none() -> None:
    """A unit test imports neither database packages nor aioresponses, which only others need."""
    program = f"""if True:
        import sys, pytest
        status = pytest.main(["-q", "-p", "no:cacheprovider", {str(TESTS / "client" / "test_errors.py")!r}])
        assert status == 0
        print("imported:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=TESTS.parent
    )
    assert (done.returncode, done.stderr) == (0, "imported:\n"), done.stdout
