"""The pages of the docs agree with the package: names in inline code, tables, defaults, and the lists of pages."""

import ast
import asyncio
import builtins
import inspect
import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from packaging.requirements import Requirement
from support.calls import REQUEST
from support.modules import MODULES, defined
from support.pages import BLOCKS, EXTRAS, PAGES, PROJECT, ROOT, SOURCES, inline

import suno_persona
import suno_persona.distributed
import suno_persona.journal
import suno_persona.testing
from suno_persona import (
    ConnectionLostError,
    CreatePersonaRequest,
    NotFoundError,
    PersonaAPI,
    UsageError,
)
from suno_persona.cli import app
from suno_persona.cli._running import status_of, status_of_error
from suno_persona.testing import FakeSuno, Fault

OWN = (suno_persona, suno_persona.journal, suno_persona.distributed, suno_persona.testing)
FOREIGN = (aiohttp.ClientSession, aiohttp.ClientTimeout, aiohttp.TCPConnector, asyncio.gather, web.run_app)
OTHERS = {  # neither our names nor parameters of the above
    *("synchronous", "synchronous_commit"),  # of the databases
    *("aclosing", "gather", "repr"),  # of Python
    *("acks_late", "nest_asyncio", "reindex"),  # of celery and pandas
    *("model_dump_json", "model_validate_json"),  # of pydantic
    *("mv", "ok", "succeeded"),  # of gateways
    "traceparent",  # a header
    *("asyncio_default_test_loop_scope", "bench"),  # of pytest-asyncio and nox
}


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


def keywords(code: str) -> list[tuple[str, str]]:
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


@pytest.mark.parametrize("page", PAGES)
def test_the_names_in_inline_code_exist(page: str) -> None:
    """These are environment variables, arguments, errors, and every other plain name."""
    for code in inline(page):
        assert set(re.findall(r"\bSUNO_\w+", code)) <= DEFINED, code
        assert set(re.findall(r"(?<![\w.-])([a-z_]\w*)=(?!=)", code)) <= PARAMETERS | OTHERS, code
        for name, argument in keywords(code):
            assert argument in TAKES[name], code
        for name in re.findall(r"\b[A-Z]\w*Error\b", code):
            assert any(hasattr(module, name) for module in (suno_persona, aiohttp, asyncio, builtins, json)), code
        if plain_name := re.fullmatch(r"([a-z]\w*)(?:\(\))?", code):
            assert plain_name[1] in DEFINED | NAMED | PARAMETERS | OTHERS, code


def test_the_other_names_are_needed() -> None:
    """Each is on a page, and no other list has it."""
    assert {name for page in PAGES for code in inline(page) for name in re.findall(r"\w+", code)} >= OTHERS
    assert not OTHERS & (DEFINED | NAMED | PARAMETERS)


def test_the_extras_that_are_named_exist() -> None:
    """Each extra that the docs or the package's messages name is declared."""
    sources = [path.read_text(encoding="utf-8") for path in MODULES.values()]
    named = re.findall(r"suno-persona\[([\w,]+)\]", "\n".join([*PAGES.values(), *sources]))
    assert {extra for names in named for extra in names.split(",")} <= EXTRAS.keys()


ENDINGS = {
    status_of({"unknown": 0, "not_created": 0}): r"(every persona|all personas|the persona) (was|were) created",
    status_of({"unknown": 0, "not_created": 1}): r"certainly (not|none)|some were not",
    status_of_error(NotFoundError(message="no such clip")): r"certainly (not|none)|some were not",
    status_of_error(UsageError(message="closed")): r"cannot be used|invalid",
    status_of({"unknown": 1, "not_created": 1}): r"unknown|may be one",
    status_of_error(ConnectionLostError(message="lost")): r"unknown|may be one",
    128 + signal.SIGINT: r"Ctrl-C|interrupted",
}


@pytest.mark.parametrize("text", [PAGES["docs/reference/command.md"], str(app.epilog)])
def test_the_docs_list_the_exit_statuses(text: str) -> None:
    """They are those of the command; 143 and 129 are those of the shell for two signals."""
    (text,) = re.findall(r"\| status \| meaning \|.*?\n\n|  Exit status:.*", text, re.DOTALL)
    _, *parts = re.split(r"\b(\d+)\b", " ".join(text.split()))
    meanings = {int(status): meaning for status, meaning in zip(parts[::2], parts[1::2], strict=True)}
    signals = {128 + which: which.name for which in (signal.SIGTERM, signal.SIGHUP)}
    assert meanings.keys() - signals.keys() == ENDINGS.keys()
    for status, meaning in meanings.items():
        assert re.search((ENDINGS | signals)[status], meaning), status


def default(thing: object, name: str) -> Any:
    """Return the default of an argument."""
    assert callable(thing)
    return inspect.signature(thing).parameters[name].default


def option(command: str, name: str) -> Any:
    """Return the default of an option."""
    return {parameter.name: parameter.default for parameter in app.commands[command].params}[name]


SLOTS, TIMEOUT = default(PersonaAPI, "max_connections"), default(PersonaAPI, "timeout")
assert default(suno_persona.distributed.make_app, "concurrency") == SLOTS


@pytest.mark.parametrize(
    ("page", "where", "value"),
    [
        ("gather", r"`max_connections` slots, (\d+) by default", SLOTS),
        ("batches", r"After (\d+) failures in a row", option("batch", "max_failures")),
        ("services", r"for up to (\d+) seconds", option("worker", "grace")),
        ("faq", r"timeout is (\d+) seconds per attempt", TIMEOUT.total),
        ("timeouts", r"The default is `total=(\d+),\s", TIMEOUT.total),
        ("timeouts", r"The default is `total=\d+,\ssock_connect=(\d+)`", TIMEOUT.sock_connect),
        ("many-machines", r"has (\d+) requests in flight, or `SUNO_MAX_CONNECTIONS`", SLOTS),
        ("web-applications", r"(\d+) s of `aiohttp\.web\.run_app`", default(web.run_app, "shutdown_timeout")),
    ],
)
def test_stated_defaults_are_those_of_the_signatures(page: str, where: str, value: float) -> None:
    """No page states an outdated one."""
    (stated,) = re.findall(where, PAGES[f"docs/how-to/{page}.md"])
    assert int(stated) == value


def test_the_messages_to_look_up_are_those_of_the_package() -> None:
    """Each message on the page is in the code, except for statuses and for asyncio's and aiohttp's words."""
    looked_up = re.findall(r"^- \*\*`(.+?)`\*\*", PAGES["docs/how-to/troubleshooting.md"], re.MULTILINE)
    assert len(looked_up) > 20
    code = " ".join(SOURCES.replace('"\n', "").replace('f"', '"').split())
    assert not [text for text in looked_up if text not in code and not text.startswith(("HTTP ", "asyncio.", "Cannot"))]


def test_a_service_manager_waits_longer_than_a_worker_does() -> None:
    """Every wait on the page is longer than every `--grace`, which is an option of the command."""
    page = PAGES["docs/how-to/services.md"]
    graces = re.findall(r"--grace\W+(\d+)", page)
    waits = re.findall(r"(?:TimeoutStopSec=|--stop-timeout |PeriodSeconds: )(\d+)", page)
    assert (len(graces), len(waits)) == (2, 3)
    assert max(map(int, graces)) < min(map(int, waits))
    assert "grace" in {parameter.name for parameter in app.commands["worker"].params}


def test_the_list_of_how_to_pages_is_complete() -> None:
    """Each page is listed once, with the problem that it solves, and the navigation has the order of the list."""
    index = "docs/how-to/index.md"
    listed = re.findall(r"^- \[.+\]\(([\w-]+)\.md\): .+\.$", PAGES[index], re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs/how-to").glob("*.md") if path.stem != "index")
    (toctree,) = [block.code for block in BLOCKS[index] if block.language == "{toctree}"]
    assert re.findall(r"^[\w-]+$", toctree, re.MULTILINE) == listed


CONTRACT = PAGES["docs/reference/contract.md"]
BODY = [
    [cell.strip(" `") for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\| `.*", CONTRACT, re.MULTILINE)
]
VARIATIONS = re.findall(r"^- .*?: (`\d{3}.*?`) → (.*)$", CONTRACT, re.MULTILINE)


async def test_the_example_of_the_request_creates_a_persona(fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """It is sent as the page shows it: the same members, in the same order."""
    document = {name: json.loads(shown) for name, *_, shown in BODY}
    await once.create(CreatePersonaRequest(**document))
    assert list(json.loads(fake_suno.requests[0].body).items()) == list(document.items())
    sent = [fake_suno.requests[0].headers[name] for name in ("Authorization", "Content-Type", "Accept")]
    assert sent == [f"Bearer {fake_suno.api_key}", "application/json", "*/*"]


@pytest.mark.parametrize(("shown", "stated"), VARIATIONS, ids=lambda cell: cell[:50])
async def test_each_example_of_a_response_has_the_stated_result(
    shown: str, stated: str, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """If the service responds with the example, the call returns or raises that class with those values."""
    found = re.fullmatch(r"`(\d{3})(?: ([\w-]+): ([^{[<`]+))?(?: ([{[<].*))?`", shown)
    assert found is not None
    status, name, value, body = found.groups()
    fake_suno.script(Fault.response(int(status), (body or "").encode(), headers={name: value} if name else None))
    outcome = await once.outcome(REQUEST)
    kind, *values = re.findall(r"`([^`]+)`", stated)
    result = outcome.persona or outcome.error
    assert type(result).__name__ == kind
    for attribute, _, literal in (text.partition("=") for text in values):
        assert getattr(result, attribute) == ast.literal_eval(literal)
