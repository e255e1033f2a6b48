"""Break each rule that decides about money by one small change, and see that a test fails: `nox -s mutants`.

The rules are those of the ledger, of retries, and of what an exchange means. Prints the mutants that survive.
"""

import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import suno_persona

PACKAGE, TESTS = Path(suno_persona.__file__).parent, Path(__file__).parent
RULES = {
    "journal/_states.py": ("journal/test_ledger.py",),
    "_retry.py": ("client/test_retry.py",),
    "_response.py": (
        "client/test_every_ending_at_every_moment.py",
        *("client/test_response.py", "client/test_gateways.py", "client/test_received_ids.py"),
        "client/test_transport.py",
    ),
}
"""The modules, and the tests that must notice a change of each."""

NO_RULES = ("ended", "decide_all")
"""Functions of these modules that decide nothing: they read records and apply the rules to many events."""

_PAIRS = (
    *((ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.And, ast.Or)),
)
_SWAPS: dict[type[Any], type[Any]] = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_STATES = ("queued", "claimed", "created", "not_created", "unknown", "queued")


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line of each change, the line as it is then, and the module with it."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name not in NO_RULES]
    tables = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    rules = {node for rule in (*functions, *tables) for node in ast.walk(rule)}
    for index, node in enumerate(ast.walk(tree)):
        for number in range(_count(node) if node in rules else 0):
            changed = copy.deepcopy(tree)
            found = next(each for at, each in enumerate(ast.walk(changed)) if at == index)
            _change(found, number)
            line: int = getattr(node, "lineno", 0) or node.pattern.lineno  # type: ignore[attr-defined]  # of a case
            text = ast.unparse(ast.fix_missing_locations(found)).partition("\n")[0]
            yield line, text, ast.unparse(ast.fix_missing_locations(changed))


def _count(node: ast.AST) -> int:
    """Return in how many ways a node can be changed."""
    match node:
        case ast.Compare() | ast.BoolOp() | ast.If() | ast.IfExp() | ast.match_case():
            return 1
        case ast.Constant(value=bool()):
            return 1
        case ast.Constant(value=str() as text) if text in _STATES:
            return 1
        case ast.Dict():
            return len(node.keys)
        case _:
            return 0


def _change(node: ast.AST, number: int) -> None:
    match node:
        case ast.Compare():
            node.ops[0] = _SWAPS[type(node.ops[0])]()
        case ast.BoolOp():
            node.op = _SWAPS[type(node.op)]()
        case ast.If() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.match_case():
            node.guard = ast.Constant(False)
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            node.value = _STATES[_STATES.index(str(node.value)) + 1]
        case ast.Dict():
            del node.keys[number], node.values[number]


def survives(module: str, source: str) -> bool:
    """Return whether all tests pass with this source of a module."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, PACKAGE.name)
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / module).write_text(source, encoding="utf-8")
        ours = {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        env = os.environ | ours | {"HYPOTHESIS_PROFILE": "fast"}  # which does not look for the smallest example
        tests = (str(TESTS / name) for name in RULES[module])
        command = [sys.executable, "-m", "pytest", "-qx", "-m", "not slow", "-p", "no:cacheprovider", "--timeout", "20"]
        return subprocess.run([*command, *tests], env=env, capture_output=True, cwd=TESTS.parent).returncode == 0


def main() -> int:
    """Try every mutant. Returns the exit status: 1 if the tests fail without one."""
    found: list[tuple[str, int, str, str]] = []
    for module in RULES:
        source = (PACKAGE / module).read_text(encoding="utf-8")
        found += [(module, 0, "", source), *((module, *mutant) for mutant in mutants(source))]
    print(f"{len(found) - len(RULES)} mutants")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda mutant: survives(mutant[0], mutant[3]), found)
        for (module, line, text, _), is_alive in zip(found, results, strict=True):
            if not line and not is_alive:
                print(f"{module}: its tests fail without a change")
                return 1
            if line and is_alive:
                print(f"survives: {module}:{line}: {text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
