"""Every example in the README, the docs and the docstrings runs as it stands; so does each file in docs/examples."""

import ast
import asyncio
import contextlib
import doctest
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import ssl
import sys
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import aiohttp
import attrs
import pytest
import trustme
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, unused_port
from support.broken_service import BrokenService
from support.calls import REQUEST, requests
from support.modules import MODULES
from support.pages import BLOCKS, PAGES, ROOT, Block, commands, missing, output_after, outputs, plain, programs, script

from suno_persona import NotFoundError, RetryPolicy
from suno_persona.testing import FakeSuno, Fault

pytestmark = [pytest.mark.posix, pytest.mark.slow]

EXAMPLES = ROOT / "docs" / "examples"
SCRIPTS = Path(sys.executable).parent
PROGRAMS = [program for page in PAGES for program in programs(page)]
SHOWN = {"console", "csv", "dockerfile", "ini", "json", "output", "text", "toml", "yaml"}
FAULTS = {  # what the service does to the first requests of each example of a page
    "docs/how-to/batches.md": [Fault.lost_response(), Fault.lost_response()],  # one to resolve each way
    "docs/how-to/logging.md": [Fault.rate_limited()],
    "docs/how-to/unknown-outcomes.md": [Fault.truncated_response()] * 4,
}
SHOWS = {  # what the commands of a page print, besides what the page shows
    "README.md": [r"created now +│ +4 "],
    "docs/how-to/batches.md": [r"created now +│ +2 ", r"already there +│ +3 "],
    "docs/how-to/look-at-a-batch.md": [r"created +│ +4 "],
    "docs/how-to/unknown-outcomes.md": ["  line 2\n", r"[12] resolved: 0 created"],
    "docs/how-to/many-machines.md": ["5 of 5 requests enqueued", r"created +│ +4 ", r"not created +│ +1 "],
}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_in_docstrings_are_right(name: str) -> None:
    """An example returns what it shows."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


async def run(*command: str, env: dict[str, str], folder: Path, status: int = 0) -> str:
    """Return what a command prints with this environment; it must end with this status."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # after a timeout, or when children are left
    assert process.returncode == status, output
    assert "Traceback" not in output, output
    return output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder in which an example runs, with the files that the docs mention."""
    shutil.copytree(EXAMPLES, tmp_path / "docs" / "examples")
    shutil.copy(EXAMPLES / "personas.csv", tmp_path)
    return tmp_path


async def run_python(code: str, env: dict[str, str], folder: Path) -> str:
    """Return what a program or a test file prints."""
    file = folder / "test_example.py"
    file.write_text(code, encoding="utf-8")
    is_test = re.search(r"^(async )?def test_", code, re.MULTILINE)
    runner = ["-m", "pytest", "-q", "-o", "asyncio_default_fixture_loop_scope=function"] if is_test else []
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
        if "STUDIO_API_KEY" in code:  # each account has a key
            env["STUDIO_API_KEY"] = fake.api_key
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
        if "celery" in code:  # what a worker process does
            task = 'start(); print(create_persona("54834687", "Neon", "Night drive")); client.close()'
            assert await run_python(f"{code}{task}\n", env, folder) == f"{fake_suno.personas[0].id}\n"
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


def test_no_block_that_looks_like_an_example_is_skipped() -> None:
    """Each block is Python, shell or a language that is only shown; directives hold no code."""
    languages = {block.language for blocks in BLOCKS.values() for block in blocks}
    assert {language for language in languages if not re.fullmatch(r"\{[\w-]+\}", language)} <= {"python", "sh"} | SHOWN
    directives = r"\{(code|code-cell|doctest|sourcecode|testcode)\}|:::\s*\{code-block|\.\. (code|code-block|doctest)::"
    assert not [page for page, text in PAGES.items() if re.search(directives, text)]


def test_the_demo_reads_the_example_that_the_docs_show() -> None:
    """The file in the package, which works from a wheel, is the one in the docs."""
    assert files("suno_persona").joinpath("personas.csv").read_bytes() == (EXAMPLES / "personas.csv").read_bytes()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """CI checks what the README promises; the contributor's guide agrees."""
    (command,) = [line for line in commands("README.md").splitlines() if line.endswith("nox")]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in PAGES["docs/contributing.md"]


async def output_of(name: str, env: dict[str, str], folder: Path, status: int = 0) -> str:
    """Return what a file in docs/examples prints."""
    return await run(sys.executable, str(EXAMPLES / name), env=env, folder=folder, status=status)


@pytest.mark.parametrize(
    ("name", "personas", "lost"),
    [
        ("gather.py", "{0.name}: created, {0.id}", "Lost Tape: not created: HTTP 404"),
        ("blocking_client.py", "{0.id}", ""),
    ],
)
async def test_an_example_prints_each_outcome(
    name: str, personas: str, lost: str, fake_suno: FakeSuno, env: dict[str, str], folder: Path
) -> None:
    """It prints the id of each persona, or the reason if there is none."""
    output = await output_of(name, env, folder)
    assert fake_suno.personas
    assert {personas.format(persona) for persona in fake_suno.personas} <= set(output.splitlines())
    assert lost in output


async def test_the_batch_with_tqdm_creates_the_personas_of_the_file(
    fake_suno: FakeSuno, env: dict[str, str], folder: Path
) -> None:
    """Each row has its line below the bar; a second run reads the personas from the journal."""
    for _ in range(2):
        output = await output_of("batch_with_tqdm.py", env, folder)
        assert len(fake_suno.personas) == 4
        assert {f"{persona.name}: {persona.id}" for persona in fake_suno.personas} < set(output.splitlines())
        assert "Lost Tape: HTTP 404" in output


async def test_a_crashed_batch_resumes_and_sends_nothing_twice(
    fake_suno: FakeSuno, env: dict[str, str], folder: Path
) -> None:
    """The second run prints every outcome; only calls that were in flight are unknown."""
    crashed = (await output_of("resume_after_a_crash.py", env, folder, status=1)).splitlines()
    resumed = (await output_of("resume_after_a_crash.py", env, folder)).splitlines()
    unknown = {line for line in resumed if line.endswith(": check before retrying")}
    assert (len(crashed), len(resumed)) == (5, 20)
    assert set(crashed) <= set(resumed)
    assert len(unknown) <= 8  # twice `max_connections`: no more are read ahead
    assert set(Counter(request.body for request in fake_suno.requests).values()) == {1}
    assert {f"{persona.name}: {persona.id}" for persona in fake_suno.personas} >= set(resumed) - unknown


async def test_the_distributed_batch_is_processed(
    fake_suno: FakeSuno, env: dict[str, str], postgres_url: str, folder: Path
) -> None:
    """It starts from an empty database; a second run enqueues nothing and prints the same outcomes."""
    for enqueued in (10, 0):
        first, *outcomes = (
            await output_of("distributed.py", {**env, "SUNO_JOURNAL_URL": postgres_url}, folder)
        ).splitlines()
        assert first == f"{enqueued} enqueued"
        assert set(outcomes) == {f"{persona.name}: {persona.id}" for persona in fake_suno.personas}
    assert len(fake_suno.requests) == 10


async def test_threads_share_one_blocking_client(
    fake_suno: FakeSuno, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises in the calling thread, and none of its own threads outlives it."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    before = threading.enumerate()
    client = runpy.run_path(str(EXAMPLES / "blocking_client.py"))["BlockingClient"]()
    with ThreadPoolExecutor() as threads:
        created = list(threads.map(client.create, requests(4)))
        with pytest.raises(NotFoundError):
            threads.submit(client.create, attrs.evolve(REQUEST, root_clip_id="unknown-1")).result()
    client.close()
    assert {persona.name for persona in created} == {persona.name for persona in fake_suno.personas}
    assert threading.enumerate() == before


SERVERS = {
    "aiohttp_service.py": (sys.executable, str(EXAMPLES / "aiohttp_service.py")),
    "fastapi_service.py": (str(SCRIPTS / "uvicorn"), "--app-dir", str(EXAMPLES), "fastapi_service:app"),
    "flask_service.py": (sys.executable, "-m", "flask", "--app", str(EXAMPLES / "flask_service.py"), "run"),
}


@contextlib.asynccontextmanager
async def serving(name: str, env: dict[str, str]) -> AsyncIterator[str]:
    """Run an example that is a web service, and yield its address; on SIGTERM it must close its client and end."""
    said = b""
    for _ in range(3):  # another process may have taken the port
        port = str(unused_port())
        url = f"http://127.0.0.1:{port}"
        process = await asyncio.create_subprocess_exec(
            *SERVERS[name],
            env=os.environ
            | env
            | {"PYTHONUNBUFFERED": "1", "PORT": port, "UVICORN_PORT": port, "FLASK_RUN_PORT": port},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        while (line := await process.stdout.readline()) and url.encode() not in line:
            said += line
        if line:
            break
        await process.wait()
    else:
        pytest.fail(said.decode())
    try:
        yield url
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
        assert process.returncode in (0, -signal.SIGTERM)
        assert b"Unclosed" not in output
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


TABLE = r"^\| .+ \| (\d{3}) \| .+ \|$"  # the statuses for callers, from top to bottom
STATUSES = map(int, re.findall(TABLE, PAGES["docs/how-to/web-applications.md"], re.MULTILINE))
UNKNOWN, LATER, BAD, REJECTED, OURS = STATUSES
NEW = {"clip_id": "54834687", "name": "Neon", "description": "Night drive"}


@pytest.mark.parametrize("name", SERVERS)
async def test_a_web_service_returns_the_id_or_the_reason(name: str, fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """An unknown outcome has a status of its own, and so has each other reason that a caller can act on."""
    async with serving(name, env) as url:

        async def post(new: object, *faults: Fault) -> tuple[int, str | None, str]:
            fake_suno.script(*faults)
            data = new if isinstance(new, bytes) else json.dumps(new)
            headers = {"Content-Type": "application/json"}
            async with aiohttp.request("POST", f"{url}/personas", data=data, headers=headers) as response:
                return response.status, response.headers.get("Retry-After"), await response.text()

        status, _, body = await post(NEW)
        assert (status, json.loads(body)) == (201, {"persona_id": fake_suno.personas[0].id})
        status, _, body = await post(NEW, Fault.lost_response())
        assert status == UNKNOWN
        assert json.loads(body)["may_have_created"] is True
        assert "check before retrying" in json.loads(body)["detail"]
        status, _, body = await post({**NEW, "clip_id": "unknown-1"})
        assert (status, json.loads(body)["may_have_created"]) == (REJECTED, False)
        for bad, words in (({**NEW, "name": ""}, "name"), ({"name": "Neon"}, "clip_id"), ("Neon", "")):
            status, _, body = await post(bad)
            assert status == (422 if name.startswith("fastapi") else BAD)
            assert words in str(json.loads(body)["detail"])
        for status_of_gateway in (401, 402):
            assert (await post(NEW, Fault.response(status_of_gateway)))[0] == OURS
        busy = [Fault.unavailable(retry_after=0)] * RetryPolicy().attempts
        assert (await post(NEW, *busy))[0] == LATER
        assert (await post(NEW, Fault.rate_limited(retry_after=120)))[:2] == (LATER, "120")
        if name.startswith("aiohttp"):
            status, _, body = await post(b"{")
            assert (status, json.loads(body)["detail"][:10]) == (BAD, "not JSON: ")


async def test_the_notebook_awaits_in_its_cells(fake_suno: FakeSuno, env: dict[str, str], folder: Path) -> None:
    """In a real kernel, it shows the ids of the created personas."""
    env |= {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    output = folder / "executed.ipynb"
    command = (str(SCRIPTS / "jupyter-execute"), f"--output={output}", str(EXAMPLES / "notebook.ipynb"))
    await run(*command, env=env, folder=folder)
    assert len(fake_suno.personas) == 4
    assert all(persona.id in output.read_text() for persona in fake_suno.personas)


def test_the_page_on_notebooks_shows_the_cells_of_the_notebook() -> None:
    """It shows them in order and unchanged; the notebook is stored without their output."""
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    shown = re.findall(r"```{code-block} python\n(.*?)\n```", PAGES["docs/how-to/notebooks.md"], re.DOTALL)
    assert shown == ["".join(cell["source"]) for cell in code]
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in code)


def test_every_example_is_run_and_explains_itself() -> None:
    """A test above names it; it has a docstring, the packages that it needs, and the command for the fake service."""
    strings = ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    named = {node.value for node in strings if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {file.name for file in EXAMPLES.iterdir() if file.is_file() and file.suffix != ".csv"} <= named
    for file in EXAMPLES.glob("*.py"):
        code = file.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(code)), file
        assert re.search(r"^# Needs: pip install .*\n# .*`suno-persona fake`", code, re.MULTILINE), file
