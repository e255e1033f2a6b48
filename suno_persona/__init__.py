"""Turn a generated song into a reusable persona, with `await`."""

from suno_persona.batch import Outcome
from suno_persona.client import PersonaAPI
from suno_persona.conversion import dumps, loads
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
from suno_persona.models import Clip, ClipMetadata, CreatePersonaRequest, Persona, PersonaClip
from suno_persona.retry import RetryPolicy

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
]
