"""Turn a generated song into a reusable persona, with `await`."""

from suno_persona._client import PersonaAPI
from suno_persona._retry import RetryPolicy
from suno_persona.conversion import dumps, loads, to_dict
from suno_persona.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    InvalidRequestError,
    JournalError,
    NotCreatedError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ResponseTimeoutError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
    UsageError,
)
from suno_persona.models import Clip, ClipMetadata, CreatePersonaRequest, Outcome, Persona, PersonaClip

__all__ = [
    "AuthenticationError",
    "Clip",
    "ClipMetadata",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "CreatePersonaRequest",
    "InvalidRequestError",
    "JournalError",
    "NotCreatedError",
    "NotFoundError",
    "Outcome",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "Persona",
    "PersonaAPI",
    "PersonaClip",
    "PersonaError",
    "RateLimitedError",
    "RejectedError",
    "ResponseTimeoutError",
    "RetryPolicy",
    "ServerError",
    "ServiceUnavailableError",
    "UnreadableResponseError",
    "UsageError",
    "dumps",
    "loads",
    "to_dict",
]
