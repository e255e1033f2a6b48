"""Modules depend on each other in one direction, and nobody reaches into another object."""

import graphlib
from pathlib import Path

import pytest
from support.modules import MODULES, foreign, imports, private_reaches

# Each may import those to its right; beside each other, neither imports the other.
DIRECTION = [
    {"cli"},
    {"distributed"},
    {"_environment"},
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


def room(module: str) -> str:
    """Return the part of the package that a module belongs to: a module at its top, or a subpackage."""
    return module.split(".")[1] if "." in module else "suno_persona"


@pytest.mark.parametrize("module", CHAIN)
def test_imports_go_in_one_direction(module: str) -> None:
    """From the command and the workers down to the errors, as the design states, also for types."""
    rank = RANK[room(module)]
    upwards = {
        name
        for name in imports(module)
        if room(name) in RANK and room(name) != room(module) and RANK[room(name)] <= rank
    }
    assert upwards <= ({"suno_persona.models"} if module == "suno_persona.errors" else set())


def test_the_docs_show_the_graph(pytestconfig: pytest.Config) -> None:
    """The page on the design names what each module imports, as it is today; `--write-docs` writes it."""
    page = Path(__file__).parent.parent / "docs" / "explanation" / "design.md"
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


def test_nothing_imports_in_a_circle() -> None:
    """Neither when it runs, nor for types, but for errors and models, each of which names the other."""
    for types in (False, True):
        graph = {module: imports(module, types=types) for module in MODULES}
        if types:
            assert "suno_persona.models" in graph["suno_persona.errors"]
            graph["suno_persona.errors"].remove("suno_persona.models")
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) not in ("cli", "distributed", "journal")])
def test_the_core_knows_no_journal_and_no_queue(module: str) -> None:
    """A batch knows a journal by the protocol that it states itself."""
    above = {name for name in imports(module) if room(name) in ("journal", "distributed")}
    assert not above


@pytest.mark.parametrize("name", PURE)
def test_what_decides_is_pure(name: str) -> None:
    """The modules that hold the rules know no event loop, no HTTP library and no database."""
    assert not foreign(f"suno_persona.{name}") & {"asyncio", "aiohttp", "sqlalchemy", "threading", "time"}


def test_nobody_reaches_into_another_object() -> None:
    """A name with an underscore is used only in the module that defines it."""
    assert [reach for module in MODULES for reach in private_reaches(module)] == []
