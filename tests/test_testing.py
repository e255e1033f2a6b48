"""The fake service keeps to the contract, fails as told, and remembers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from suno_persona import (
    ConfigurationError,
    CreatePersonaRequest,
    NotFoundError,
    PermissionDeniedError,
    PersonaAPI,
    RateLimitedError,
    RejectedError,
    ServerError,
    ServiceUnavailableError,
    UsageError,
    loads,
)
from suno_persona.testing import FakeSuno, Fault

GOOD = {
    "root_clip_id": "54834687",
    "name": "Neon",
    "description": "Night drive",
    "clips": ["54834687"],
    "is_public": True,
}
PATH = "/suno/persona/create/"


async def send(
    fake: FakeSuno, body: object, *, method: str = "POST", path: str = PATH, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """What the fake service answers a client that is not ours."""
    usual = {"Authorization": f"Bearer {fake.api_key}", "Content-Type": "application/json"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, fake.base_url + path, data=content, headers={**usual, **(headers or {})}) as response,
    ):
        return response.status, await response.json()


def same_shape(one: Any, other: Any) -> bool:
    """Whether two documents have the same members with values of the same types."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_shape(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return all(same_shape(one[0], item) for item in other)
    return type(one) is type(other)


async def test_it_answers_in_the_shape_of_the_contract(fake_suno: FakeSuno, example: dict[str, Any]) -> None:
    """The same members with the same types as in the contract's example, and the request's own values."""
    status, document = await send(fake_suno, GOOD | {"clips": ["54834687", "other"]})
    assert status == 200
    assert same_shape(example, document)
    assert (document["name"], document["root_clip_id"], document["clip"]["id"]) == ("Neon", "54834687", "54834687")
    assert [place["clip"]["id"] for place in document["persona_clips"]] == ["54834687", "other"]


async def test_it_remembers_requests_and_personas(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """What was received and what was created can be asserted on."""
    persona = await persona_api.create(request_)
    assert fake_suno.personas == [persona]
    (received,) = fake_suno.requests
    assert received.json() == GOOD | {"is_public": False}
    assert received.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (GOOD | {"root_clip_id": "unknown-1"}, 404, "clip_not_found", "root_clip_id"),
        (GOOD | {"root_clip_id": "uploaded-1"}, 400, "clip_from_uploader", "root_clip_id"),
        (GOOD | {"root_clip_id": "foreign-1"}, 403, "clip_of_other_account", "root_clip_id"),
        (GOOD | {"clips": ["54834687", "unknown-1"]}, 404, "clip_not_found", "clips"),
        (GOOD | {"clips": []}, 400, "invalid_request", "clips"),
        (GOOD | {"clips": [1]}, 400, "invalid_request", "clips"),
        (GOOD | {"clips": "54834687"}, 400, "invalid_request", "clips"),
        (GOOD | {"name": ""}, 400, "invalid_request", "name"),
        (GOOD | {"description": None}, 400, "invalid_request", "description"),
        (GOOD | {"is_public": "true"}, 400, "invalid_request", "is_public"),
        ({}, 400, "invalid_request", "root_clip_id"),
        ([], 400, "invalid_request", None),
        (b"{", 400, "invalid_json", None),
        (b"\xff", 400, "invalid_json", None),
    ],
)
async def test_it_refuses_what_the_contract_refuses(
    fake_suno: FakeSuno, body: object, status: int, code: str, param: str | None
) -> None:
    """With an error envelope as gateways send it, and without creating anything."""
    answered, document = await send(fake_suno, body)
    assert answered == status
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert (document["error"]["code"], document["error"]["param"]) == (code, param)
    assert fake_suno.personas == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"method": "PUT"}, 405, "method_not_allowed"),
        ({"path": "/suno/persona/create"}, 404, "not_found"),
        ({"path": "/"}, 404, "not_found"),
        ({"headers": {"Authorization": "Bearer sk-other"}}, 401, "invalid_api_key"),
        ({"headers": {"Authorization": "sk-fake-0123456789"}}, 401, "invalid_api_key"),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
    ],
)
async def test_it_checks_method_path_and_headers(
    fake_suno: FakeSuno, change: dict[str, Any], status: int, code: str
) -> None:
    """A request that the service would not understand is refused."""
    answered, document = await send(fake_suno, GOOD, **change)
    assert (answered, document["error"]["code"]) == (status, code)
    assert fake_suno.personas == []


async def test_a_charset_beside_the_content_type_is_fine(fake_suno: FakeSuno) -> None:
    """`application/json` may have parameters."""
    status, _ = await send(fake_suno, GOOD, headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert status == 200


async def test_refusals_arrive_as_the_right_errors(persona_api: PersonaAPI) -> None:
    """Each kind of refused clip is told apart by the client."""
    for clip, expected in (
        ("unknown-1", NotFoundError),
        ("uploaded-1", RejectedError),
        ("foreign-1", PermissionDeniedError),
    ):
        with pytest.raises(RejectedError, match=clip) as caught:
            await persona_api.create(CreatePersonaRequest(root_clip_id=clip, name="N", description="D"))
        assert type(caught.value) is expected


async def test_faults_are_used_once_and_in_order(
    fake_suno: FakeSuno, once: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """After the last one the service works again."""
    fake_suno.script(Fault.rate_limited(retry_after=0), Fault.unavailable(retry_after="soon"), Fault.rate_limited())
    fake_suno.script(Fault.unavailable())
    waits = []
    for expected in (RateLimitedError, ServiceUnavailableError, RateLimitedError, ServiceUnavailableError):
        with pytest.raises(expected) as caught:
            await once.create(request_)
        assert isinstance(caught.value, RateLimitedError | ServiceUnavailableError)
        waits.append(caught.value.retry_after)
    assert waits == [0.0, None, None, None]
    assert fake_suno.personas == []
    await once.create(request_)
    assert len(fake_suno.personas) == 1


@pytest.mark.parametrize("creates", [False, True])
async def test_a_fault_can_create_before_it_strikes(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest, creates: bool
) -> None:
    """A server error may come before or after the persona was made."""
    fake_suno.script(Fault.server_error(502, creates=creates))
    with pytest.raises(ServerError):
        await persona_api.create(request_)
    assert len(fake_suno.personas) == creates


async def test_a_fault_can_answer_anything(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """Status, body and headers are the test's own."""
    fake_suno.script(Fault.response(418, b'{"detail": "short and stout"}', headers={"x-request-id": "pot"}))
    with pytest.raises(RejectedError, match="short and stout") as caught:
        await persona_api.create(request_)
    assert (caught.value.status, caught.value.request_id) == (418, "pot")


async def test_it_has_an_address_only_while_it_runs() -> None:
    """Before and after, the error says how to start it."""
    fake = FakeSuno()
    with pytest.raises(UsageError, match="async with FakeSuno"):
        _ = fake.base_url
    async with fake:
        assert fake.base_url.startswith("http://127.0.0.1:")
    with pytest.raises(UsageError, match="async with FakeSuno"):
        _ = fake.base_url
    await fake.__aexit__(None, None, None)


async def test_it_runs_once_at_a_time_and_again_later() -> None:
    """Entering it twice is an error; after its end it can be started again, also in another loop."""
    fake = FakeSuno()
    async with fake:
        with pytest.raises(UsageError, match="running already"):
            await fake.__aenter__()

    async def again() -> int:
        async with fake:
            return (await send(fake, GOOD))[0]

    assert await asyncio.to_thread(asyncio.run, again()) == 200


def test_a_fault_that_is_none_is_refused_at_once() -> None:
    """The mistake shows where it was made."""
    mistakes: list[Callable[[], object]] = [
        lambda: FakeSuno().script("rate limited"),  # type: ignore[arg-type]  # what this test is about
        lambda: Fault(ending="cutt"),  # type: ignore[arg-type]  # what this test is about
        lambda: Fault.response("400"),  # type: ignore[arg-type]  # what this test is about
    ]
    for mistake in mistakes:
        with pytest.raises((UsageError, ValueError, TypeError)):
            mistake()


async def test_a_port_that_is_taken_is_a_configuration_error(fake_suno: FakeSuno) -> None:
    """The error names the port."""
    port = int(fake_suno.base_url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"port: expected a free one, found {port}"):
        async with FakeSuno(port=port):
            pass


async def test_it_stops_at_once_while_a_request_hangs() -> None:
    """Nobody waits for an answer that was scripted never to come."""
    async with FakeSuno() as fake:
        fake.script(Fault.hang())
        call = asyncio.create_task(send(fake, GOOD))
        while not fake.requests:
            await asyncio.sleep(0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await call


def test_projects_without_pytest_asyncio_are_left_in_peace(tmp_path: Path) -> None:
    """The plugin is loaded in every project; a project with no asynchronous tests does not notice."""
    (tmp_path / "test_it.py").write_text(
        "def test_it():\n    pass\n\n\ndef test_with_a_fixture(persona_api):\n    pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
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


async def test_what_it_creates_can_be_read(fake_suno: FakeSuno) -> None:
    """Its document is a persona without any leftovers."""
    _, document = await send(fake_suno, GOOD)
    persona = loads(json.dumps(document))
    assert persona.extra == {}
    assert persona.clip is not None
    assert persona.clip.extra == {}
