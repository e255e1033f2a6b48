"""The rules that the tests themselves follow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
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
    assert {file.name for file in TESTS.glob("[!t]*.py")} == {"built_docs.py", "conftest.py", "soak.py"}


@pytest.mark.slow
def test_a_test_that_needs_no_database_imports_none() -> None:
    """A unit test imports neither database packages nor aioresponses, which only others need."""
    program = f"""if True:
        import sys, pytest
        status = pytest.main(["-q", "-p", "no:cacheprovider", {str(TESTS / "test_errors.py")!r}])
        assert status == 0
        print("imported:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=TESTS.parent
    )
    assert (done.returncode, done.stderr) == (0, "imported:\n"), done.stdout
