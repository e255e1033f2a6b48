"""A service on a loopback port that behaves as the contract says."""

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import attrs
from aiohttp import web
from multidict import CIMultiDict

from suno_persona.conversion import loads
from suno_persona.errors import ConfigurationError, UsageError
from suno_persona.models import Persona
from suno_persona.testing._faults import Fault, error_envelope

_MEMBERS: dict[str, tuple[type, str]] = {
    "root_clip_id": (str, "non-empty text"),
    "name": (str, "non-empty text"),
    "description": (str, "non-empty text"),
    "clips": (list, "a non-empty list"),
    "is_public": (bool, "true or false"),
}

# The contract: a clip must exist, must not come from the uploader, and cannot be used across accounts.
_REJECTED_CLIPS = {
    "unknown-": (404, "clip_not_found", "does not exist"),
    "uploaded-": (400, "clip_from_uploader", "was uploaded and cannot become a persona"),
    "foreign-": (403, "clip_of_other_account", "belongs to another account"),
}


@attrs.frozen(kw_only=True)
class ReceivedRequest:
    """A request as the fake service received it."""

    method: str
    """The method: `"POST"`."""

    path: str
    """The path with its query."""

    headers: Mapping[str, str] = attrs.field(hash=False)
    """The headers; names are case-insensitive."""

    body: bytes
    """The body."""

    def json(self) -> object:
        """Return the body as a JSON value. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)


@attrs.define
class _RejectedError(Exception):
    status: int
    body: bytes


class FakeSuno:
    """A fake service for your tests. It checks each request as the contract says, and creates its persona.

    It rejects a clip whose id starts with `unknown-`, `uploaded-` or `foreign-` as one that does not exist, came from
    the uploader or belongs to another account. Every other clip exists.

    >>> import asyncio
    >>> from suno_persona import CreatePersonaRequest, PersonaAPI
    >>> async def main():
    ...     request = CreatePersonaRequest(
    ...         root_clip_id="54834687", name="Neon", description="Night drive"
    ...     )
    ...     async with FakeSuno() as fake:
    ...         async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
    ...             await api.create(request)
    ...         return fake.personas[0].name, fake.requests[0].method
    >>> asyncio.run(main())
    ('Neon', 'POST')
    """

    def __init__(
        self,
        *,
        api_key: str = "sk-fake-0123456789",
        create_path: str = "/suno/persona/create/",
        port: int = 0,
    ) -> None:
        self.api_key: str = api_key
        """The key that a request must have."""
        self.requests: list[ReceivedRequest] = []
        """Every request received, in order, the rejected ones included."""
        self.personas: list[Persona] = []
        """Every persona created, in order, those included whose response was lost."""
        self._create_path = create_path
        self._port = port
        self._faults: deque[Fault] = deque()
        self._runner: web.AppRunner | None = None

    def script(self, *faults: Fault) -> None:
        """Fail the next requests with these faults, one each, in order."""
        for fault in faults:
            if not isinstance(fault, Fault):
                raise UsageError(message=f"faults must be Fault objects; got {fault!r}")
        self._faults.extend(faults)

    def clear_script(self) -> None:
        """Discard the faults that no request has met yet."""
        self._faults.clear()

    @property
    def base_url(self) -> str:
        """The base URL of the service. Raises `UsageError` if it is not running."""
        if self._runner is None:
            raise UsageError(
                message="FakeSuno must be running; got one that is not: use `async with FakeSuno() as fake`"
            )
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise UsageError(message="FakeSuno must not be running yet; got one that is: make another one")
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
        except OSError as error:
            await runner.cleanup()
            message = f"port must be free; got {self._port} ({error.strerror})"
            raise ConfigurationError(message=message) from error
        self._stopping = asyncio.Event()
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            self._stopping.set()
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        request = ReceivedRequest(
            method=http.method, path=http.path_qs, headers=CIMultiDict(http.headers), body=await http.read()
        )
        self.requests.append(request)
        fault = self._faults.popleft() if self._faults else Fault(creates=True)
        status, body = self._serve(request) if fault.creates else (200, b"")
        if fault.status is not None:
            status, body = fault.status, fault.body
        headers = CIMultiDict({"Content-Type": "application/json", "X-Request-Id": uuid.uuid4().hex})
        headers.update(fault.headers)
        match fault.ending:
            case "hanging":
                await self._stopping.wait()
                http.protocol.force_close()
            case "closed":
                http.protocol.force_close()
            case "cut":
                headers["Content-Length"] = str(len(body))
                response = web.StreamResponse(status=status, headers=headers)
                await response.prepare(http)
                await response.write(body[: len(body) // 2])
                http.protocol.force_close()
                return response
        return web.Response(status=status, body=body, headers=headers)

    def _serve(self, request: ReceivedRequest) -> tuple[int, bytes]:
        try:
            document = self._checked(request)
        except _RejectedError as error:
            return error.status, error.body
        body = json.dumps(_persona(document, number=len(self.personas) + 1)).encode()
        self.personas.append(loads(body))
        return 200, body

    def _checked(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.path != self._create_path:
            raise _reject(404, "not_found", f"the path must be {self._create_path}; got {request.path}")
        if request.method != "POST":
            raise _reject(405, "method_not_allowed", f"the method must be POST; got {request.method}")
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            raise _reject(401, "invalid_api_key", "the API key is missing or wrong")
        content_type = request.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise _reject(415, "unsupported_media_type", f"Content-Type must be application/json; got {content_type!r}")
        try:
            document = request.json()
        except ValueError:
            raise _reject(400, "invalid_json", "the body must be JSON") from None
        if not isinstance(document, dict):
            raise _reject(400, "invalid_request", "the body must be a JSON object")
        for name, (kind, form) in _MEMBERS.items():
            if type(document.get(name)) is not kind or document[name] in ("", []):
                raise _reject(400, "invalid_request", f"{name} must be {form}; got {document.get(name)!r}", name)
        if any(type(clip) is not str for clip in document["clips"]):
            raise _reject(400, "invalid_request", "clips must be a list of text", "clips")
        for name, clip in [
            ("root_clip_id", document["root_clip_id"]),
            *(("clips", clip) for clip in document["clips"]),
        ]:
            for prefix, (status, code, reason) in _REJECTED_CLIPS.items():
                if clip.startswith(prefix):
                    raise _reject(status, code, f"clip {clip} {reason}", name)
        return document


def _reject(status: int, code: str, message: str, param: str | None = None) -> _RejectedError:
    return _RejectedError(status, error_envelope(code, message, param=param))


def _persona(request: dict[str, Any], *, number: int) -> dict[str, Any]:
    clips = request["clips"]
    return {
        "id": str(uuid.uuid4()),
        "name": request["name"],
        "description": request["description"],
        "root_clip_id": request["root_clip_id"],
        "clip": _clip(request["root_clip_id"]),
        "user_display_name": "Fake Account",
        "user_handle": "fakeaccount",
        "user_image_url": "https://cdn.example/avatar.webp",
        "persona_clips": [{"clip": _clip(clip), "id": 1000 * number + index} for index, clip in enumerate(clips)],
    }


def _clip(clip_id: object) -> dict[str, Any]:
    return {
        "id": clip_id,
        "video_url": f"https://cdn.example/{clip_id}.mp4",
        "audio_url": f"https://cdn.example/{clip_id}.mp3",
        "image_url": f"https://cdn.example/image_{clip_id}.jpeg",
        "image_large_url": f"https://cdn.example/image_large_{clip_id}.jpeg",
        "major_model_version": "v4",
        "model_name": "chirp-v4",
        "metadata": {
            "tags": "electronic pop, tropical house fusion",
            "prompt": "",
            "type": "gen",
            "duration": 190,
            "refund_credits": False,
            "stream": True,
        },
        "is_liked": False,
        "user_id": "00000000-0000-4000-8000-000000000001",
        "display_name": "Fake Account",
        "handle": "fakeaccount",
        "is_handle_updated": False,
        "avatar_image_url": "https://cdn.example/avatar.webp",
        "is_trashed": False,
        "created_at": "2024-12-23T10:34:30.144Z",
        "status": "complete",
        "title": "A generated song",
        "play_count": 0,
        "upvote_count": 0,
        "is_public": False,
    }
