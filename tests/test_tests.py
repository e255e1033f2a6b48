"""The rules that the tests themselves keep."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def imported(file: Path) -> set[str]:
    """Return the first part of every module name that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


def test_what_tests_share_is_in_support() -> None:
    """No module imports a test module or `conftest`, and there is no other place for helpers."""
    modules = {file.stem for file in TESTS.glob("*.py")}
    shared = {file.relative_to(TESTS).as_posix(): imported(file) & modules for file in TESTS.rglob("*.py")}
    assert {file: names for file, names in shared.items() if names} == {"test_soak.py": {"soak"}}
