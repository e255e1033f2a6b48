"""Every example in the README, the docs and the docstrings runs as it stands."""

import asyncio
import contextlib
import doctest
import importlib
import os
import pkgutil
import re
import shutil
import signal
import ssl
import sys
import uuid
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from support.broken_service import BrokenService
from support.pages import (
    BLOCKS,
    EXTRAS,
    PAGES,
    ROOT,
    SOURCES,
    Block,
    commands,
    missing,
    output_after,
    outputs,
    plain,
    programs,
    script,
)

import suno_persona
from suno_persona.testing import FakeSuno, Fault

pytestmark = [pytest.mark.posix, pytest.mark.slow]

MODULES = [module.name for module in pkgutil.walk_packages(suno_persona.__path__, "suno_persona.")]
PROGRAMS = [program for page in PAGES for program in programs(page)]
SHOWN = {"console", "csv", "ini", "json", "output", "text", "toml", "yaml"}

FAULTS = {  # what the service does to the first requests of each example of a page
    "docs/how-to/batches.md": [Fault.lost_answer(), Fault.lost_answer()],  # one to resolve each way
    "docs/how-to/logging.md": [Fault.rate_limited()],
    "docs/how-to/unknown-outcomes.md": [Fault.truncated_response()] * 4,
}
SHOWS = {  # what the commands of a page print, besides what the page shows
    "README.md": [r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"],
    "docs/how-to/batches.md": [r"created now +│ +2 ", r"already there +│ +3 "],
    "docs/how-to/look-at-a-batch.md": [r"created +│ +4 "],
    "docs/how-to/unknown-outcomes.md": ["  line 2\n", r"[12] resolved: 0 created"],
    "docs/how-to/many-machines.md": [
        "5 of 5 requests enqueued",
        r"created +│ +4 ",
        r"not created +│ +1 ",
    ],
}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_in_docstrings_are_right(name: str) -> None:
    """An example returns what it shows."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


async def run(*command: str, env: dict[str, str], folder: Path) -> str:
    """Return what a command prints with this environment; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # after a timeout, or when children are left
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    return output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder in which an example runs, with the files that the docs mention."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    shutil.copy(ROOT / "docs" / "examples" / "personas.csv", tmp_path)
    return tmp_path


async def run_python(code: str, env: dict[str, str], folder: Path) -> str:
    """Return what a program or a test file prints."""
    file = folder / "test_example.py"
    file.write_text(code, encoding="utf-8")
    runner = (
        ["-m", "pytest", "-q", "-o", "asyncio_default_fixture_loop_scope=function"]
        if re.search(r"^(async )?def test_", code, re.MULTILINE)
        else []
    )
    env = {**env, "PYTHONPATH": str(folder / "docs" / "examples")}  # where a page says to save what it imports
    return await run(sys.executable, "-W", "error", *runner, str(file), env=env, folder=folder)


def skip_if_missing(code: str) -> None:
    """Skip the test of an example that needs a large package which is not installed."""
    if names := missing(code):
        pytest.skip(f"{', '.join(names)} must be installed: pip install --group recipes")


@contextlib.asynccontextmanager
async def surroundings(
    page: str, code: str, fake: FakeSuno, folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[dict[str, str]]:
    """Yield the environment of an example, with what it needs besides the fake service."""
    fake.script(*FAULTS.get(page, []))
    env = {"SUNO_API_KEY": fake.api_key, "SUNO_BASE_URL": fake.base_url}
    async with contextlib.AsyncExitStack() as stack:
        if "SUNO_JOURNAL_URL" in code:
            env["SUNO_JOURNAL_URL"] = request.getfixturevalue("postgres_url")
        if "_API_KEY" in code:  # each account has a key
            env |= dict.fromkeys(("STUDIO_API_KEY", "LABEL_API_KEY"), fake.api_key)
        if "trust_env" in code or "proxy=" in code:  # only the proxy serves this address: the fake service
            env |= {"http_proxy": fake.base_url, "no_proxy": "", "SUNO_BASE_URL": "http://gateway.localhost"}
        if "ca.pem" in code:
            authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.cert_pem.write_to_path(str(folder / "ca.pem"))
            authority.issue_cert("127.0.0.1").configure_cert(tls)
            env["SUNO_BASE_URL"] = (await stack.enter_async_context(BrokenService(tls=tls))).base_url
        if "/suno/fetch/" in code:
            env["SUNO_BASE_URL"] = str((await stack.enter_async_context(TestServer(music_gateway(fake)))).make_url("/"))
        yield env


def music_gateway(fake: FakeSuno) -> web.Application:
    """Return a gateway that creates the personas of a fake service, and generates music with them."""
    fetched: list[str] = []

    async def create(request: web.Request) -> web.Response:
        async with (
            ClientSession() as session,
            session.post(fake.base_url + request.path, data=await request.read(), headers=request.headers) as response,
        ):
            return web.Response(status=response.status, body=await response.read())

    async def submit(request: web.Request) -> web.Response:
        assert fake.personas[0].music_fields().items() <= (await request.json()).items()
        return web.json_response({"code": "success", "data": "task-1"})

    async def fetch(request: web.Request) -> web.Response:
        fetched.append(request.match_info["task"])
        clips = [{"title": "Last Train", "audio_url": f"https://cdn.example/{uuid.uuid4()}.mp3"} for _ in range(2)]
        status = "IN_PROGRESS" if len(fetched) == 1 else "SUCCESS"
        return web.json_response({"code": "success", "data": {"status": status, "data": clips}})

    app = web.Application()
    app.router.add_post("/suno/persona/create/", create)
    app.router.add_post("/suno/submit/music", submit)
    app.router.add_get("/suno/fetch/{task}", fetch)
    return app


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
async def test_an_example_in_python_runs(
    block: Block, fake_suno: FakeSuno, folder: Path, request: pytest.FixtureRequest
) -> None:
    """An example is a whole program or test file, and prints what the page shows as its output."""
    skip_if_missing(block.code)
    code = block.code.replace("proxy.example:3128", fake_suno.base_url.removeprefix("http://"))
    async with surroundings(block.page, code, fake_suno, folder, request) as env:
        output = await run_python(code, env, folder)
    if shown := output_after(block):
        assert plain(output) == plain(shown)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
async def test_the_commands_of_a_page_run(
    page: str, fake_suno: FakeSuno, folder: Path, request: pytest.FixtureRequest
) -> None:
    """The commands run in order, as a user types them, and print what the page shows as their output."""
    skip_if_missing("".join(block.code for block in BLOCKS[page] if block.file))
    async with surroundings(page, commands(page), fake_suno, folder, request) as env:
        output = await run("bash", "-c", script(page), env=env, folder=folder)
    for pattern in SHOWS.get(page, []):
        assert re.search(pattern, output), output
    printed = outputs(output)
    for block in BLOCKS[page]:
        if block.language == "sh" and (shown := output_after(block)):
            assert plain(printed[block.line]) == plain(shown)


@pytest.mark.parametrize("page", PAGES)
def test_no_block_that_looks_like_an_example_is_skipped(page: str) -> None:
    """Each block is Python, shell or a language that is only shown; directives hold no code."""
    languages = {block.language for block in BLOCKS[page] if not re.fullmatch(r"\{[\w-]+\}", block.language)}
    assert languages <= {"python", "sh"} | SHOWN
    directives = r"\{(code|code-cell|doctest|sourcecode|testcode)\}|:::\s*\{code-block|\.\. (code|code-block|doctest)::"
    assert not re.search(directives, PAGES[page])


def test_the_extras_that_are_named_exist() -> None:
    """Each extra that the docs or the package's messages name is declared."""
    named = re.findall(r"suno-persona\[([\w,]+)\]", "\n".join([*PAGES.values(), SOURCES]))
    assert {extra for names in named for extra in names.split(",")} <= EXTRAS.keys()


async def test_the_first_example_creates_a_persona(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """The first example prints the id of the persona that the service created."""
    first = next(block for block in BLOCKS["README.md"] if block.language == "python")
    output = await run_python(first.code, env, tmp_path)
    assert output == f"Pass this on as persona_id: {fake_suno.personas[0].id}\n"


async def test_the_celery_task_on_the_page_creates_a_persona(
    fake_suno: FakeSuno, env: dict[str, str], folder: Path
) -> None:
    """A worker process starts the client and runs the task."""
    (example,) = (block.code for block in programs("docs/how-to/synchronous-code.md") if "celery" in block.code)
    skip_if_missing(example)
    task = 'start(); print(create_persona("54834687", "Neon", "Night drive")); client.close()'
    assert await run_python(f"{example}{task}\n", env, folder) == f"{fake_suno.personas[0].id}\n"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """CI checks what the README promises; the contributor's guide agrees."""
    (command,) = [line for line in commands("README.md").splitlines() if line.endswith("nox")]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in PAGES["docs/contributing.md"]


def test_the_demo_reads_the_example_that_the_docs_show() -> None:
    """The file in the package, which works from a wheel, is the one in the docs."""
    packaged = files("suno_persona").joinpath("personas.csv")
    assert packaged.read_bytes() == (ROOT / "docs" / "examples" / "personas.csv").read_bytes()
