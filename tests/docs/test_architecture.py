"""Modules depend on each other in one direction, and no module uses another object's private names."""

import graphlib
from pathlib import Path

import pytest
from support.modules import MODULES, foreign, imports, private_accesses

# Each module may import those on later lines; modules on the same line do not import each other.
DIRECTION = [
    {"cli"},
    {"distributed"},
    {"_client"},
    {"_batch"},
    {"_engine"},
    {"_admission", "_transport"},
    {"_response"},
    {"_error_body", "conversion"},
    {"_fast_json"},
    {"models"},
    {"errors"},
]
RANK = {name: rank for rank, names in enumerate(DIRECTION) for name in names}
PURE = ["_response", "_error_body", "_retry", "conversion", "models", "errors", "journal._states"]
CHAIN = [name for name in MODULES if name.split(".")[1:2] and name.split(".")[1] in RANK]


def short(module: str) -> str:
    """Return a module's name within the package."""
    return module.removeprefix("suno_persona.")


def area(module: str) -> str:
    """Return the part of the package that a module belongs to: a top-level module or a subpackage."""
    return module.split(".")[1] if "." in module else "suno_persona"


@pytest.mark.parametrize("module", CHAIN)
def test_imports_go_in_one_direction(module: str) -> None:
    """Imports, also for types, lead from the command and the workers down to the errors, as the design states."""
    rank = RANK[area(module)]
    upwards = {
        name
        for name in imports(module)
        if area(name) in RANK and area(name) != area(module) and RANK[area(name)] <= rank
    }
    assert upwards <= ({"suno_persona.models"} if module == "suno_persona.errors" else set())


def test_the_docs_show_the_graph(pytestconfig: pytest.Config) -> None:
    """The page on the design lists the current imports of each module; `--write-docs` writes it."""
    page = Path(__file__).parents[2] / "docs" / "explanation" / "design.md"
    rows = "".join(
        f"| `{short(name)}` | {', '.join(f'`{short(each)}`' for each in sorted(imports(name, types=False)))} |\n"
        for name in MODULES
        if imports(name, types=False)
    )
    before, header, rest = page.read_text(encoding="utf-8").partition("| module | imports |\n| --- | --- |\n")
    _, heading, after = rest.partition("\n## ")
    text = f"{before}{header}{rows}{heading}{after}"
    if pytestconfig.getoption("write_docs"):
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text


def test_no_imports_are_circular() -> None:
    """Not at runtime, nor for types; only errors and models name each other."""
    for types in (False, True):
        graph = {module: imports(module, types=types) for module in MODULES}
        if types:
            assert "suno_persona.models" in graph["suno_persona.errors"]
            graph["suno_persona.errors"].remove("suno_persona.models")
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if area(name) not in ("cli", "distributed", "journal")])
def test_the_core_imports_neither_journal_nor_queue(module: str) -> None:
    """A batch uses a journal through a protocol of its own."""
    above = {name for name in imports(module) if area(name) in ("journal", "distributed")}
    assert not above


@pytest.mark.parametrize("name", PURE)
def test_the_rules_are_pure(name: str) -> None:
    """The modules that hold the rules import no event loop, no HTTP library and no database."""
    assert not foreign(f"suno_persona.{name}") & {"asyncio", "aiohttp", "sqlalchemy", "threading", "time"}


def test_private_names_are_used_only_where_they_are_defined() -> None:
    """No module uses an underscore name of an object that another module defines."""
    assert [reach for module in MODULES for reach in private_accesses(module)] == []
