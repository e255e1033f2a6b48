"""Exchanges as the transport fills them, and what they mean."""

import json
from collections.abc import Mapping
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from suno_persona import CreatePersonaRequest, Persona
from suno_persona._response import Ended, Exchange, Reader
from suno_persona._secret import Secret

from .calls import KEY

URL_ = URL("https://gateway.example/suno/persona/create/")
REQUEST = CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")
READER = Reader(secret=Secret(KEY), max_response_size=4 * 1024 * 1024, wait_max=30)


def exchange(
    body: object = b"", status: int | None = 200, headers: Mapping[str, str] | None = None, **known: Any
) -> Exchange:
    """Return a complete exchange with a response: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = Exchange(known.pop("url", URL_))
    filled = {"sent": True, "is_whole": True, **known}
    vars(found).update(status=status, headers=CIMultiDict(headers or {}), received=data, **filled)
    return found


def ended(found: Exchange, reader: Reader = READER, attempts: int = 1) -> Ended:
    """Return how a call ended whose last attempt was this exchange."""
    return reader.read(found, REQUEST, attempts)


def persona(found: Exchange, reader: Reader = READER) -> Persona:
    """Return the persona of an exchange, or raise its error."""
    result = ended(found, reader).result
    if isinstance(result, Persona):
        return result
    raise result
