"""The docs agree with the package in words and tables, down to the names in inline code."""

import ast
import asyncio
import builtins
import inspect
import json
import re
import signal
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web
from packaging.requirements import Requirement
from support.modules import defined
from support.pages import EXTRAS, PAGES, PROJECT, inline, plain

import suno_persona
import suno_persona.distributed
import suno_persona.journal
import suno_persona.testing
from suno_persona import ConnectionLostError, NotFoundError, PersonaAPI, UsageError
from suno_persona.cli import app
from suno_persona.cli._running import status_of, status_of_error

OWN = (suno_persona, suno_persona.journal, suno_persona.distributed, suno_persona.testing)
FOREIGN = (aiohttp.ClientSession, aiohttp.ClientTimeout, aiohttp.TCPConnector, asyncio.gather, web.run_app)
OTHERS = {  # neither our names nor parameters of the above
    *("synchronous", "synchronous_commit"),  # of the databases
    *("aclosing", "gather", "repr"),  # of Python
    *("acks_late", "instrument", "nest_asyncio", "reindex"),  # of celery, OpenTelemetry and pandas
    *("model_dump_json", "model_validate_json"),  # of pydantic
    *("ok", "succeeded", "vox"),  # of gateways
    "traceparent",  # a header
    *("asyncio_default_test_loop_scope", "bench"),  # of pytest-asyncio and nox
}
INLINE = [(page, code) for page in PAGES for code in inline(page)]


def public() -> Iterator[tuple[str, object]]:
    """Yield the functions and classes that pages name, and the methods of the classes."""
    named = [getattr(module, name) for module in OWN for name in module.__all__ if name not in ("app", "State")]
    for thing in (*named, *FOREIGN):
        yield thing.__name__, thing
        if isinstance(thing, type) and thing not in FOREIGN:
            yield from ((name, getattr(thing, name)) for name in vars(thing) if not name.startswith("_"))


TAKES: dict[str, set[str]] = {}
for _name, _thing in public():
    if callable(_thing):
        TAKES.setdefault(_name, set()).update(inspect.signature(_thing).parameters)
PARAMETERS = set().union(*TAKES.values())
DEFINED = defined() | {
    str(parameter.envvar) for command in app.commands.values() for parameter in command.params if parameter.envvar
}
NAMED = {  # other names: dependencies, extras, commands, and words of Python and JSON
    *(Requirement(line).name for lines in (PROJECT["project"]["dependencies"], *EXTRAS.values()) for line in lines),
    *(Requirement(line).name for group in PROJECT["dependency-groups"].values() for line in group),
    *EXTRAS,
    *app.commands,
    *(marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]),
    *("await", "bool", "int", "str", "true", "false"),
}


def calls(code: str) -> list[tuple[str, str]]:
    """Return the keyword arguments in a piece of code, each with the name of the called function."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError:
        return []
    return [
        (ast.unparse(node.func).split(".")[-1], keyword.arg)
        for node in nodes
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg
    ]


def test_only_values_that_vary_between_runs_are_masked_in_output() -> None:
    """A wrong integer is still noticed."""
    assert plain("http://127.0.0.1:8000 in 0.31 s") == plain("http://127.0.0.1:4711 in 1.2 s")
    for right, wrong in [("HTTP 404", "HTTP 503"), ("attempt 2 of 4", "attempt 2 of 5"), ("127.0.0.1", "127.0.0.2")]:
        assert plain(right) != plain(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_the_names_in_inline_code_exist(page: str) -> None:
    """These are environment variables, arguments, errors, and every other plain name."""
    for code in inline(page):
        assert set(re.findall(r"\bSUNO_\w+", code)) <= DEFINED, code
        assert set(re.findall(r"(?<![\w.-])([a-z_]\w*)=(?!=)", code)) <= PARAMETERS | OTHERS, code
        for name, argument in calls(code):
            assert argument in TAKES[name], code
        for name in re.findall(r"\b[A-Z]\w*Error\b", code):
            assert any(hasattr(module, name) for module in (suno_persona, aiohttp, asyncio, builtins, json)), code
        if plain_name := re.fullmatch(r"([a-z]\w*)(?:\(\))?", code):
            assert plain_name[1] in DEFINED | NAMED | PARAMETERS | OTHERS, code


def test_the_other_names_are_needed() -> None:
    """Each is on a page, and no other list has it."""
    assert {name for _, code in INLINE for name in re.findall(r"\w+", code)} >= OTHERS
    assert not OTHERS & (DEFINED | NAMED | PARAMETERS)


def test_the_reference_states_after_which_errors_a_persona_may_exist() -> None:
    """The table of errors agrees with the classes."""
    page = PAGES["docs/reference/errors.md"]
    rows = re.findall(r"^\| (`\w+Error`.*?) \| (no|\*\*yes\*\*) \| (.*) \|$", page, re.MULTILINE)
    assert rows
    assert len(rows) == page.count("\n| `")
    for errors, may_have_created, when in rows:
        for name in re.findall(r"`(\w+Error)`", errors + when):
            assert getattr(suno_persona, name).may_have_created is (may_have_created == "**yes**"), name


ENDINGS = {
    status_of({"unknown": 0, "not_created": 0}): r"(every persona|all personas|the persona) (was|were) created",
    status_of({"unknown": 0, "not_created": 1}): r"certainly (not|none)|some were not",
    status_of_error(NotFoundError(message="no such clip")): r"certainly (not|none)|some were not",
    status_of_error(UsageError(message="closed")): r"cannot be used|invalid",
    status_of({"unknown": 1, "not_created": 1}): r"unknown|may be one",
    status_of_error(ConnectionLostError(message="lost")): r"unknown|may be one",
    128 + signal.SIGINT: r"Ctrl-C|interrupted",
}


@pytest.mark.parametrize(
    ("page", "where"),
    [
        ("docs/reference/command.md", r"\| status \| meaning \|.*?\n\n"),
        ("docs/reference/command.md", r"  Exit status:.*?```"),
    ],
)
def test_the_docs_list_the_exit_statuses(page: str, where: str) -> None:
    """They are those of the command; 143 and 129 are those of the shell for two signals."""
    (text,) = re.findall(where, PAGES[page], re.DOTALL | re.MULTILINE)
    _, *parts = re.split(r"\b(\d+)\b", " ".join(text.split()))
    meanings = {int(status): meaning for status, meaning in zip(parts[::2], parts[1::2], strict=True)}
    signals = {128 + which: which.name for which in (signal.SIGTERM, signal.SIGHUP)}
    assert meanings.keys() - signals.keys() == ENDINGS.keys()
    for status, meaning in meanings.items():
        assert re.search((ENDINGS | signals)[status], meaning), status


def default(thing: object, name: str) -> object:
    """Return the default of an argument."""
    assert callable(thing)
    return inspect.signature(thing).parameters[name].default


TIMEOUT = default(PersonaAPI, "timeout")
assert isinstance(TIMEOUT, aiohttp.ClientTimeout)


@pytest.mark.parametrize(
    ("page", "where", "value"),
    [
        ("gather", r"`max_connections` slots, (\d+) by default", default(PersonaAPI, "max_connections")),
        ("timeouts", r"The default is `total=(\d+),\s", TIMEOUT.total),
        ("timeouts", r"The default is `total=\d+,\ssock_connect=(\d+)`", TIMEOUT.sock_connect),
        ("many-machines", r"`SUNO_MAX_CONNECTIONS` \|.*\| (\d+) \|", default(PersonaAPI, "max_connections")),
        (
            "many-machines",
            r"`SUNO_MAX_CONNECTIONS` \|.*\| (\d+) \|",
            default(suno_persona.distributed.make_app, "concurrency"),
        ),
        ("web-applications", r"`aiohttp\.web\.run_app` \((\d+) s\)", default(web.run_app, "shutdown_timeout")),
    ],
)
def test_stated_defaults_are_those_of_the_signatures(page: str, where: str, value: float) -> None:
    """No page states an outdated one."""
    (stated,) = re.findall(where, PAGES[f"docs/how-to/{page}.md"])
    assert int(stated) == value


def test_the_benchmarks_state_whether_an_aim_was_met() -> None:
    """Each row compares the aim with the measured value; if both round to the same figure, it may state either."""
    _, _, section = PAGES["docs/benchmarks.md"].partition("\n## What was aimed at\n")
    _, _, *rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    assert rows
    for row in rows:
        shape = (
            r"\| .+ \| at (most|least) (\S+) \| (\S+) \((\S+) to (\S+)\) \| (yes|\*\*no\*\*)(, within the spread)? \|"
        )
        match = re.fullmatch(shape, row)
        assert match, row
        aim, measured, low, high = (float(figure) for figure in match.groups()[1:5])
        if measured != aim:
            assert (match[6] == "yes") is (measured < aim if match[1] == "most" else measured > aim), row
        assert match[7] is None or low <= aim <= high, row
