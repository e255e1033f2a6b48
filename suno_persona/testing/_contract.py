"""The contract as the fake service applies it: a request in, a status and a body out; pure."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import attrs

from suno_persona.testing._faults import error_envelope

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


def json_object(request: ReceivedRequest) -> dict[str, Any] | None:
    """Return the JSON object in a request's body, if it is one."""
    try:
        document = request.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


@attrs.define
class RejectedError(Exception):
    """The service rejects the request with this status and body."""

    status: int
    body: bytes


def create(request: ReceivedRequest, *, api_key: str, create_path: str, number: int) -> bytes:
    """Return the persona of a request as JSON; `number` is its ordinal. Raises `RejectedError`."""
    return json.dumps(_persona(_checked(request, api_key, create_path), number)).encode()


def check_key(request: ReceivedRequest, api_key: str) -> None:
    """Raise `RejectedError` if a request lacks the key."""
    if request.headers.get("Authorization") != f"Bearer {api_key}":
        raise rejection(401, "invalid_api_key", "the API key is missing or wrong")


def _checked(request: ReceivedRequest, api_key: str, create_path: str) -> dict[str, Any]:
    if request.path != create_path:
        raise rejection(404, "not_found", f"the path must be {create_path}; got {request.path}")
    if request.method != "POST":
        raise rejection(405, "method_not_allowed", f"the method must be POST; got {request.method}")
    check_key(request, api_key)
    content_type = request.headers.get("Content-Type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise rejection(415, "unsupported_media_type", f"Content-Type must be application/json; got {content_type!r}")
    try:
        document = request.json()
    except ValueError:
        raise rejection(400, "invalid_json", "the body must be JSON") from None
    if not isinstance(document, dict):
        raise rejection(400, "invalid_request", "the body must be a JSON object")
    for name, (kind, form) in _MEMBERS.items():
        if type(document.get(name)) is not kind or document[name] in ("", []):
            raise rejection(400, "invalid_request", f"{name} must be {form}; got {document.get(name)!r}", name)
    if any(type(clip) is not str for clip in document["clips"]):
        raise rejection(400, "invalid_request", "clips must be a list of text", "clips")
    for name, clip in [
        ("root_clip_id", document["root_clip_id"]),
        *(("clips", clip) for clip in document["clips"]),
    ]:
        for prefix, (status, code, reason) in _REJECTED_CLIPS.items():
            if clip.startswith(prefix):
                raise rejection(status, code, f"clip {clip} {reason}", name)
    return document


def rejection(status: int, code: str, message: str, param: str | None = None) -> RejectedError:
    """Return the rejection of a request, as gateways word it."""
    return RejectedError(status, error_envelope(code, message, param=param))


def _persona(request: dict[str, Any], number: int) -> dict[str, Any]:
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
