"""The fake service also accepts requests for music with a persona, in the shape that gateways share."""

from typing import Any

import aiohttp
import pytest

from suno_persona import CreatePersonaRequest, PersonaAPI
from suno_persona.testing import FakeSuno


async def call(fake: FakeSuno, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """Send a request, by default with the service's key, and return the status and the document."""
    settings: dict[str, Any] = {"headers": {"Authorization": f"Bearer {fake.api_key}"}, **options}
    async with aiohttp.request(method, f"{fake.base_url}{path}", **settings) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", ["/suno/submit/music", "/suno/generate"])
async def test_a_task_is_submitted_and_fetched_until_it_is_done(
    path: str, fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """It is in progress at first, and then has two clips that name the persona; other tasks do not matter."""
    persona = await persona_api.create(request_)
    song = {"mv": "chirp-v4-tau", "title": "Last Train", **persona.music_fields()}
    _, submitted = await call(fake_suno, "POST", path, json=song)
    _, other = await call(fake_suno, "POST", path, json=song)
    assert (submitted["code"], submitted["message"]) == ("success", "")
    assert submitted["data"] != other["data"]
    fetched = [(await call(fake_suno, "GET", f"/suno/fetch/{submitted['data']}"))[1]["data"] for _ in range(3)]
    assert [task["status"] for task in fetched] == ["IN_PROGRESS", "SUCCESS", "SUCCESS"]
    assert [len(task["data"]) for task in fetched] == [0, 2, 2]
    for clip in fetched[-1]["data"]:
        assert clip["title"] == "Last Train"
        assert clip["metadata"]["persona_id"] == persona.id
    assert len(fake_suno.personas) == 1
    assert len(fake_suno.requests) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"persona_id": "other"}, "persona_id must be that of a persona; got 'other'"),
        ({"persona_id": None}, "persona_id must be that of a persona; got None"),
        ({"mv": ""}, "mv must be non-empty text; got ''"),
        ({"task": None}, "task must be non-empty text; got None"),
        ({"artist_clip_id": 12}, "artist_clip_id must be non-empty text; got 12"),
    ],
)
async def test_an_incomplete_music_request_is_rejected(
    change: dict[str, Any],
    message: str,
    fake_suno: FakeSuno,
    persona_api: PersonaAPI,
    request_: CreatePersonaRequest,
) -> None:
    """The message names the member."""
    persona = await persona_api.create(request_)
    song = {"mv": "chirp-v4-tau", **persona.music_fields(), **change}
    status, document = await call(fake_suno, "POST", "/suno/submit/music", json=song)
    assert (status, document["error"]["message"]) == (400, message)


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("POST", "/suno/submit/music", {"data": b"{"}, (400, "invalid_request")),
        ("POST", "/suno/submit/music", {"json": []}, (400, "invalid_request")),
        ("GET", "/suno/submit/music", {}, (405, "method_not_allowed")),
        ("POST", "/suno/fetch/task", {}, (405, "method_not_allowed")),
        ("GET", "/suno/fetch/task", {}, (404, "task_not_exist")),
        ("GET", "/suno/fetch/task", {"headers": {}}, (401, "invalid_api_key")),
    ],
)
async def test_an_invalid_music_request_is_rejected(
    method: str, path: str, options: dict[str, Any], expected: tuple[int, str], fake_suno: FakeSuno
) -> None:
    """It is rejected like any other invalid request to the service."""
    status, document = await call(fake_suno, method, path, **options)
    assert (status, document["error"]["code"]) == expected
