"""The rules that the code and its tests follow: who may import whom, and what a test leaves behind."""

import ast
import asyncio
import graphlib
import logging
import os
import signal
import sys
from pathlib import Path

import pytest
from support.calls import calls
from support.clock import Clock
from support.command import COMMAND, CREATE, run
from support.held_service import HeldService, client
from support.idle import idle
from support.modules import MODULES, foreign, imports, private_accesses

# Each module may import those on later lines; modules on the same line do not import each other.
DIRECTION = [
    *({"cli"}, {"distributed"}, {"_client"}, {"_batch"}, {"_engine"}, {"_admission", "_transport"}, {"_response"}),
    *({"_error_body", "conversion"}, {"_fast_json"}, {"models"}, {"errors"}),
]
RANK = {name: rank for rank, names in enumerate(DIRECTION) for name in names}
PURE = ["_response", "_error_body", "_retry", "conversion", "models", "errors", "journal._states"]
TESTS = Path(__file__).parent.parent


def short(module: str) -> str:
    """Return a module's name within the package."""
    return module.removeprefix("suno_persona.")


def area(module: str) -> str:
    """Return the part of the package that a module belongs to: a top-level module or a subpackage."""
    return short(module).split(".")[0]


def test_imports_go_in_one_direction() -> None:
    """Imports, also for types, lead from the command and the workers down to the errors, as the design states."""
    upwards = {
        (short(module), short(name))
        for module in MODULES
        for name in imports(module)
        if area(module) in RANK and area(name) in RANK and area(name) != area(module)
        if RANK[area(name)] <= RANK[area(module)]
    }
    assert upwards == {("errors", "models")}


def test_the_core_imports_neither_journal_nor_queue() -> None:
    """A batch uses a journal through a protocol of its own."""
    above = {"cli", "distributed", "journal"}
    core = [module for module in MODULES if area(module) not in above]
    assert not [(module, name) for module in core for name in imports(module) if area(name) in above - {"cli"}]


def test_no_imports_are_circular() -> None:
    """Not at runtime, nor for types; only errors and models name each other."""
    for types in (False, True):
        graph = {module: imports(module, types=types) for module in MODULES}
        graph["suno_persona.errors"].discard("suno_persona.models")
        graphlib.TopologicalSorter(graph).prepare()


def test_the_rules_are_pure() -> None:
    """The modules that hold the rules import no event loop, no HTTP library and no database."""
    impure = {"asyncio", "aiohttp", "sqlalchemy", "threading", "time"}
    assert not [name for name in PURE if foreign(f"suno_persona.{name}") & impure]


def test_private_names_are_used_only_where_they_are_defined() -> None:
    """No module uses an underscore name of an object that another module defines."""
    assert [reach for module in MODULES for reach in private_accesses(module)] == []


def imported(file: Path) -> set[str]:
    """Return the first part of every module name that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


def test_code_that_tests_share_is_in_support() -> None:
    """No module imports a test module or conftest; besides test modules there are only programs that nox runs."""
    modules = {"conftest", *(file.stem for file in TESTS.rglob("test_*.py"))}
    assert not {str(file): names for file in TESTS.rglob("*.py") if (names := imported(file) & modules)}
    assert {file.name for file in TESTS.glob("*.py")} == {"conftest.py", "mutants.py", "soak.py"}


def process() -> list[object]:
    """Return what a command changes in its process."""
    loggers = [logging.getLogger(), logging.getLogger("suno_persona")]
    streams = [sys.stdin, sys.stdout, sys.stderr]
    return [
        *(dict(os.environ), sys.argv, streams, sys.modules["__main__"], signal.signal, logging.lastResort),
        *((logger.handlers[:], logger.level, logger.isEnabledFor(logging.DEBUG)) for logger in loggers),
    ]


async def test_a_command_leaves_nothing_behind(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the process of the tests, changes nothing for the next one, and sees only its own environment."""
    monkeypatch.setenv("SUNO_ATTEMPTS", "no number")
    monkeypatch.setenv("FORCE_COLOR", "1")
    before = process()
    for words, status in ((["-v"], 0), (["--attempts", "0"], 2)):
        assert (await run(COMMAND, *CREATE, *words, env=env)).status == status
        assert process() == before


async def test_idle_waits_until_nothing_more_happens_by_itself(service: HeldService, advance: Clock) -> None:
    """It waits for callbacks of any number, for calls over loopback and for timers that are due, and for no others."""

    async def work() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    async with client(service) as api:
        service.respond_to_all()
        tasks = [asyncio.create_task(work()), *calls(api, 8)]
        soon, late = (asyncio.create_task(asyncio.sleep(seconds)) for seconds in (5, 3600))
        await idle()
        assert all(task.done() for task in tasks)
        assert not soon.done()
        advance(5.1)
        await idle()
        assert soon.done()
        assert not late.done()
        late.cancel()
