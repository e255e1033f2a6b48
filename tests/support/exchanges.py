"""Exchanges as the transport fills them, and what they mean."""

import json
from collections.abc import Mapping
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from suno_persona import Persona, PersonaError
from suno_persona._response import Ended, Exchange, Reader
from suno_persona._secret import Secret

from .calls import BASE, KEY, REQUEST

URL_ = URL(f"{BASE}/suno/persona/create/")
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


def ended(found: Exchange, attempts: int = 1) -> Ended:
    """Return how a call ended whose last attempt was this exchange."""
    return READER.read(found, REQUEST, attempts)


def persona(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Persona:
    """Return the persona that a response means."""
    result = ended(exchange(body, status, headers)).result
    assert isinstance(result, Persona)
    return result


def error(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Any:
    """Return the error that a response means; the test states its class."""
    result = ended(exchange(body, status, headers)).result
    assert isinstance(result, PersonaError)
    return result


def id_in(body: bytes) -> str | None:
    """Return the id that is found in a response that breaks off."""
    return ended(exchange(body, is_whole=False, ending="lost")).persona_id
