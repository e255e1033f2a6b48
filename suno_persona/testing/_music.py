"""The next step as the fake service serves it: music with a persona, submitted and then fetched until it is done."""

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from suno_persona.models import Persona
from suno_persona.testing._contract import ReceivedRequest, check_key, json_object, rejection

_SUBMIT = ("/suno/submit/music", "/suno/generate")
_FETCH = "/suno/fetch/"


class Music:
    """The tasks that were submitted. The first fetch of a task finds it in progress, the next finds its two clips."""

    def __init__(self) -> None:
        self._tasks: dict[str, Iterator[dict[str, Any]]] = {}

    def serves(self, path: str) -> bool:
        """Return whether a path is one of music's."""
        return path in _SUBMIT or path.startswith(_FETCH)

    def respond(self, request: ReceivedRequest, personas: Iterable[Persona], *, api_key: str) -> bytes:
        """Return the body of the response. Raises `RejectedError`."""
        check_key(request, api_key)
        method = "POST" if request.path in _SUBMIT else "GET"
        if request.method != method:
            raise rejection(405, "method_not_allowed", f"the method must be {method}; got {request.method}")
        found = self._fetch(request.path) if method == "GET" else self._submit(request, personas)
        return json.dumps({"code": "success", "message": "", "data": found}).encode()

    def _submit(self, request: ReceivedRequest, personas: Iterable[Persona]) -> str:
        document = json_object(request)
        if document is None:
            raise rejection(400, "invalid_request", "the body must be a JSON object")
        if document.get("persona_id") not in [persona.id for persona in personas]:
            message = f"persona_id must be that of a persona; got {document.get('persona_id')!r}"
            raise rejection(400, "persona_not_found", message)
        for name in ("task", "artist_clip_id", "mv"):
            if not isinstance(document.get(name), str) or not document[name]:
                raise rejection(400, "invalid_request", f"{name} must be non-empty text; got {document.get(name)!r}")
        task = str(uuid.uuid4())
        self._tasks[task] = _states(task, [_clip(document), _clip(document)])
        return task

    def _fetch(self, path: str) -> dict[str, Any]:
        task = path.removeprefix(_FETCH)
        if task not in self._tasks:
            raise rejection(404, "task_not_exist", f"the task must exist; got {task!r}")
        return next(self._tasks[task])


def _states(task: str, clips: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what each fetch of a task finds."""
    state = {"task_id": task, "action": "MUSIC", "fail_reason": ""}
    yield {**state, "status": "IN_PROGRESS", "progress": "50%", "data": []}
    while True:
        yield {**state, "status": "SUCCESS", "progress": "100%", "data": clips}


def _clip(request: dict[str, Any]) -> dict[str, Any]:
    clip = str(uuid.uuid4())
    return {
        "id": clip,
        "title": request.get("title", ""),
        "status": "complete",
        "audio_url": f"https://cdn.example/{clip}.mp3",
        "video_url": f"https://cdn.example/{clip}.mp4",
        "metadata": {
            name: request.get(name, "") for name in ("tags", "prompt", "task", "persona_id", "artist_clip_id")
        },
    }
