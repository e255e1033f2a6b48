"""The fake service keeps to the contract, fails as scripted, and records what it received and created."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.calls import REQUEST, failure

from suno_persona import (
    ConfigurationError,
    Persona,
    PersonaAPI,
    RateLimitedError,
    ServiceUnavailableError,
    UsageError,
    loads,
)
from suno_persona.testing import FakeSuno, Fault

CLIP = {"root_clip_id": "54834687", "clips": ["54834687"]}
GOOD = {**CLIP, "name": "Neon", "description": "Night drive", "is_public": False}


async def send(
    fake: FakeSuno,
    body: object = GOOD,
    method: str = "POST",
    path: str = "/suno/persona/create/",
    headers: Mapping[str, str] = {},
) -> tuple[int, Any]:
    """Send a request without our client; return the status and the document of the response."""
    headers = {"Authorization": f"Bearer {fake.api_key}", "Content-Type": "application/json", **headers}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.request(method, fake.base_url + path, data=data, headers=headers) as response:
        return response.status, await response.json()


def shape(document: Any) -> Any:
    """Return the names of a document's members with the types of their values."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items()}
    return shape(document[0]) if isinstance(document, list) else type(document)


async def test_it_responds_in_the_shape_of_the_contract(fake_suno: FakeSuno, example: dict[str, Any]) -> None:
    """A persona has the members and types of the contract's example, and the values of the request."""
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    status, document = await send(fake_suno, GOOD | {"clips": ["54834687", "other"]}, headers=headers)
    assert status == 200
    assert shape(document) == shape(example)
    assert (document["name"], document["root_clip_id"], document["clip"]["id"]) == ("Neon", "54834687", "54834687")
    assert [each["clip"]["id"] for each in document["persona_clips"]] == ["54834687", "other"]
    persona = loads(json.dumps(document))
    assert persona.clip is not None
    assert persona.extra == persona.clip.extra == {}


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"body": GOOD | {"root_clip_id": "unknown-1"}}, 404, "clip_not_found", "root_clip_id"),
        ({"body": GOOD | {"root_clip_id": "uploaded-1"}}, 400, "clip_from_uploader", "root_clip_id"),
        ({"body": GOOD | {"root_clip_id": "foreign-1"}}, 403, "clip_of_other_account", "root_clip_id"),
        ({"body": GOOD | {"clips": ["54834687", "unknown-1"]}}, 404, "clip_not_found", "clips"),
        ({"body": GOOD | {"clips": []}}, 400, "invalid_request", "clips"),
        ({"body": GOOD | {"name": ""}}, 400, "invalid_request", "name"),
        ({"body": GOOD | {"is_public": "true"}}, 400, "invalid_request", "is_public"),
        ({"body": []}, 400, "invalid_request", None),
        ({"body": b"{"}, 400, "invalid_json", None),
        ({"method": "PUT"}, 405, "method_not_allowed", None),
        ({"path": "/suno/persona/create"}, 404, "not_found", None),
        ({"headers": {"Authorization": "Bearer sk-other"}}, 401, "invalid_api_key", None),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type", None),
    ],
)
async def test_it_rejects_what_the_contract_forbids(
    fake_suno: FakeSuno, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    """A rejection has an error envelope as gateways send it, and creates nothing."""
    received, document = await send(fake_suno, **change)
    assert received == status
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert (document["error"]["code"], document["error"]["param"]) == (code, param)
    assert fake_suno.personas == []


async def test_faults_are_used_once_and_in_order(fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """Each request meets the next fault, and after the last one, or once they are cleared, the service works again."""
    fake_suno.script(Fault.rate_limited(retry_after=0), Fault.unavailable(retry_after="soon"))
    assert [type(await failure(once)) for _ in range(2)] == [RateLimitedError, ServiceUnavailableError]
    fake_suno.script(Fault.response(404))
    fake_suno.clear_script()
    assert fake_suno.personas == []
    assert await once.create(REQUEST) in fake_suno.personas


async def test_it_runs_once_at_a_time_and_again_later() -> None:
    """It has an address only while it runs; once it is closed it can be started again, even in another loop."""
    fake = FakeSuno()
    for _ in range(2):
        with pytest.raises(UsageError, match="with FakeSuno"):
            _ = fake.base_url
        async with fake:
            with pytest.raises(UsageError, match="must not be running yet"):
                await fake.__aenter__()

    async def again() -> int:
        async with fake:
            return (await send(fake, GOOD))[0]

    assert await asyncio.to_thread(asyncio.run, again()) == 200


def test_its_thread_ends_with_it() -> None:
    """No thread is left after it was closed, or if it failed to start, since its port is taken."""
    before = threading.enumerate()
    with FakeSuno() as fake:
        port = int(fake.base_url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"port must be free; got {port}"), FakeSuno(port=port):
            pass
    assert threading.enumerate() == before


def test_it_serves_synchronous_code() -> None:
    """With a plain `with`, it serves whatever event loop or thread sends requests."""

    async def create(fake: FakeSuno) -> Persona:
        async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
            return await api.create(REQUEST)

    with FakeSuno() as fake, ThreadPoolExecutor() as threads:
        created = list(threads.map(asyncio.run, [create(fake) for _ in range(4)]))
        fake.wait_for_requests(4).result(timeout=10)
        assert sorted(fake.personas, key=hash) == sorted(created, key=hash)


@pytest.mark.slow
def test_the_plugin_does_not_need_pytest_asyncio(tmp_path: Path) -> None:
    """The plugin is loaded in every project; without pytest-asyncio only a test that uses a fixture fails."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text("def test_it(): pass\ndef test_with_a_fixture(persona_api): pass\n")
    code = """if True:
        import sys, pytest

        class Missing:
            def find_spec(self, name, *_):
                if name == "pytest_asyncio":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Missing())
        pytest.main(["-q", "--assert=plain", "-p", "no:asyncio", "-c", *sys.argv[1:]])
        """
    command = [sys.executable, "-c", code, str(tmp_path / "pytest.ini"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "persona_api needs pytest-asyncio: pip install 'suno-persona[testing]'" in done.stdout
