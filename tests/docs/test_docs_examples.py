"""Each file in docs/examples runs unchanged, and does what it promises."""

import ast
import asyncio
import json
import os
import re
import runpy
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from support.command import run

from suno_persona import CreatePersonaRequest, NotFoundError, RetryPolicy
from suno_persona.testing import FakeSuno, Fault

pytestmark = [pytest.mark.posix, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = Path(sys.executable).parent
SERVERS = {
    "aiohttp_service.py": (sys.executable, str(EXAMPLES / "aiohttp_service.py")),
    "fastapi_service.py": (str(SCRIPTS / "uvicorn"), "--app-dir", str(EXAMPLES), "fastapi_service:app"),
    "flask_service.py": (sys.executable, "-m", "flask", "--app", str(EXAMPLES / "flask_service.py"), "run"),
}
PAGE = EXAMPLES.parent / "how-to" / "web-applications.md"
UNKNOWN, LATER, BAD, REJECTED, OURS = map(  # the statuses for callers in the page's table, from top to bottom
    int, re.findall(r"^\| .+ \| (\d{3}) \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)
NEW = {"clip_id": "54834687", "name": "Neon", "description": "Night drive"}


async def output_of(name: str, env: Mapping[str, str]) -> str:
    """Return the output of an example, which must succeed."""
    done = await run(sys.executable, str(EXAMPLES / name), env=env)
    assert done.status == 0, done.errors
    return done.output


@asynccontextmanager
async def serving(name: str, env: Mapping[str, str]) -> AsyncIterator[str]:
    """Run an example that is a web service, and yield its address; it must shut down on SIGTERM."""
    said = b""
    for _ in range(3):  # another process may have taken the port
        port = unused_port()
        url = f"http://127.0.0.1:{port}"
        process = await asyncio.create_subprocess_exec(
            *SERVERS[name],
            env={
                **os.environ,
                **env,
                "PYTHONUNBUFFERED": "1",
                **dict.fromkeys(("PORT", "UVICORN_PORT", "FLASK_RUN_PORT"), str(port)),
            },
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
        await process.communicate()
        assert process.returncode in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_gather_prints_each_outcome(fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """It prints the id of each persona, or the reason if there is none."""
    output = await output_of("gather.py", env)
    for persona in fake_suno.personas:
        assert f"{persona.name}: created, {persona.id}\n" in output
    assert "Lost Tape: not created: HTTP 404" in output
    assert len(output.splitlines()) == 3


async def test_the_batch_with_tqdm_creates_the_personas_of_the_file(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row has its line below the bar; a second run reads the personas from the journal."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        output = await output_of("batch_with_tqdm.py", env)
        assert len(fake_suno.personas) == 4
        assert {f"{persona.name}: {persona.id}" for persona in fake_suno.personas} < set(output.splitlines())
        assert "Lost Tape: HTTP 404" in output


async def test_the_blocking_client_prints_the_id_of_a_persona(fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """A program without an event loop of its own can use it, and exits."""
    assert await output_of("blocking_client.py", env) == f"{fake_suno.personas[0].id}\n"


async def test_a_crashed_batch_resumes_and_sends_nothing_twice(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run prints every outcome; only calls that were in flight are unknown."""
    monkeypatch.chdir(tmp_path)
    crashed = await run(sys.executable, str(EXAMPLES / "resume_after_a_crash.py"), env=env)
    assert crashed.status == 1
    assert len(crashed.output.splitlines()) == 5
    resumed = (await output_of("resume_after_a_crash.py", env)).splitlines()
    assert set(crashed.output.splitlines()) <= set(resumed)
    unknown = [line for line in resumed if line.endswith(": check before retrying")]
    assert len(resumed) == 20
    assert len(unknown) <= 8  # twice `max_connections`: no more are read ahead
    sent = Counter(request.body for request in fake_suno.requests)
    assert set(sent.values()) == {1}
    assert {f"{persona.name}: {persona.id}" for persona in fake_suno.personas} >= set(resumed) - set(unknown)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_web_service_creates_a_persona(name: str, fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """It responds with the id, and shuts down gracefully."""
    async with serving(name, env) as url, aiohttp.request("POST", f"{url}/personas", json=NEW) as response:
        assert (response.status, await response.json()) == (201, {"persona_id": fake_suno.personas[0].id})


@pytest.fixture
def environment(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the tests' own process for the fake service, too."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environment")
async def test_the_fastapi_service_closes_its_client() -> None:
    """The client is open until the shutdown."""
    app = runpy.run_path(str(EXAMPLES / "fastapi_service.py"))["app"]
    async with app.router.lifespan_context(app) as state:
        assert not repr(state["api"]).endswith(" closed>")
    assert repr(state["api"]).endswith(" closed>")


@pytest.mark.usefixtures("environment")
async def test_the_aiohttp_service_closes_its_client() -> None:
    """The client is open until the cleanup."""
    module = runpy.run_path(str(EXAMPLES / "aiohttp_service.py"))
    runner = web.AppRunner(module["make_app"]())
    await runner.setup()
    assert not repr(runner.app[module["API"]]).endswith(" closed>")
    await runner.cleanup()
    assert repr(runner.app[module["API"]]).endswith(" closed>")


@pytest.mark.parametrize("name", SERVERS)
async def test_a_web_service_returns_the_reason_of_a_failure(
    name: str, fake_suno: FakeSuno, env: dict[str, str]
) -> None:
    """An unknown outcome has its own status."""
    async with serving(name, env) as url:

        async def post(new: object, *faults: Fault) -> tuple[int, str | None, str]:
            fake_suno.script(*faults)
            async with aiohttp.request("POST", f"{url}/personas", json=new) as response:
                return response.status, response.headers.get("Retry-After"), await response.text()

        status, _, body = await post(NEW, Fault.lost_answer())
        assert status == UNKNOWN
        assert json.loads(body)["may_have_created"] is True
        assert "check before retrying" in json.loads(body)["detail"]

        status, _, body = await post({**NEW, "clip_id": "unknown-1"})
        assert status == REJECTED
        assert json.loads(body)["may_have_created"] is False

        for bad, words in (({**NEW, "name": ""}, "name"), ({"name": "Neon"}, "clip_id"), ("Neon", "")):
            status, _, body = await post(bad)
            assert status == (422 if name.startswith("fastapi") else BAD)
            assert words in str(json.loads(body)["detail"])
        for status_of_gateway in (401, 402):
            assert (await post(NEW, Fault.response(status_of_gateway)))[0] == OURS
        busy = [Fault.unavailable(retry_after=0)] * RetryPolicy().attempts
        assert (await post(NEW, *busy))[0] == LATER
        status, retry_after, _ = await post(NEW, Fault.rate_limited(retry_after=120))
        assert (status, retry_after) == (LATER, "120")


async def test_the_aiohttp_service_explains_that_a_body_is_not_json(env: dict[str, str]) -> None:
    """Its status is the one for bad input."""
    async with (
        serving("aiohttp_service.py", env) as url,
        aiohttp.request("POST", f"{url}/personas", data=b"{") as response,
    ):
        assert response.status == BAD
        assert (await response.json())["detail"].startswith("not JSON: ")


@pytest.mark.usefixtures("environment")
async def test_threads_share_one_blocking_client(fake_suno: FakeSuno) -> None:
    """It raises in the calling thread, and none of its own threads outlives it."""
    before = threading.enumerate()
    client = runpy.run_path(str(EXAMPLES / "blocking_client.py"))["BlockingClient"]()
    requests = [CreatePersonaRequest(root_clip_id="1", name=name, description="Airy pop") for name in "ABCD"]
    with ThreadPoolExecutor() as threads:
        created = list(threads.map(client.create, requests))
        with pytest.raises(NotFoundError):
            threads.submit(client.create, attrs.evolve(requests[0], root_clip_id="unknown-1")).result()
    client.close()
    assert {persona.name for persona in created} == {persona.name for persona in fake_suno.personas}
    assert threading.enumerate() == before


async def test_the_notebook_awaits_in_its_cells(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """In a real kernel, it shows the ids of the created personas."""
    own = {name: str(tmp_path) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    output = tmp_path / "executed.ipynb"
    command = (str(SCRIPTS / "jupyter-execute"), f"--output={output}", str(EXAMPLES / "notebook.ipynb"))
    done = await run(*command, env={**env, **own})
    assert done.status == 0, done.errors
    assert len(fake_suno.personas) == 4
    assert all(persona.id in output.read_text() for persona in fake_suno.personas)


def test_the_notebook_is_stored_without_output() -> None:
    """The output of a cell is not part of the source."""
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in code)


def test_the_page_on_notebooks_shows_its_cells() -> None:
    """It shows them in order and unchanged."""
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    page = (EXAMPLES.parent / "how-to" / "notebooks.md").read_text(encoding="utf-8")
    shown = re.findall(r"```{code-block} python\n(.*?)\n```", page, re.DOTALL)
    assert shown == ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


async def test_the_distributed_batch_is_processed(fake_suno: FakeSuno, env: dict[str, str], postgres_url: str) -> None:
    """It starts from an empty database; a second run enqueues nothing and prints the same outcomes."""
    env = {**env, "SUNO_JOURNAL_URL": postgres_url}
    first, *outcomes = (await output_of("distributed.py", env)).splitlines()
    assert first == "10 enqueued"
    assert set(outcomes) == {f"{persona.name}: {persona.id}" for persona in fake_suno.personas}
    first, *again = (await output_of("distributed.py", env)).splitlines()
    assert first == "0 enqueued"
    assert set(again) == set(outcomes)
    assert len(fake_suno.requests) == 10


def test_every_example_is_run() -> None:
    """A test above names it."""
    names = {
        text.value
        for text in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }
    programs = {file.name for file in EXAMPLES.iterdir() if file.is_file() and file.suffix != ".csv"}
    assert programs <= names


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_explains_itself_and_how_to_run_it(file: Path) -> None:
    """It has a docstring, the packages that it needs, and the command for the fake service."""
    code = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(code))
    assert re.search(r"^# Needs: pip install .*\n# .*`suno-persona fake`", code, re.MULTILINE)
