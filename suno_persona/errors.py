"""The errors, as one tree. Its first fork is the question that matters: may a persona exist now?

PersonaError
├── ConfigurationError (ValueError)
├── JournalError
├── NotCreatedError
│   ├── InvalidRequestError (ValueError)
│   ├── UsageError (RuntimeError)
│   ├── ConnectionFailedError
│   └── RejectedError
│       ├── AuthenticationError
│       ├── PermissionDeniedError
│       ├── NotFoundError
│       ├── RateLimitedError
│       └── ServiceUnavailableError
└── OutcomeUnknownError
    ├── ResponseTimeoutError (TimeoutError)
    ├── ConnectionLostError
    ├── ServerError
    └── UnreadableResponseError
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs
from multidict import CIMultiDict

if TYPE_CHECKING:
    from suno_persona.models import CreatePersonaRequest


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class PersonaError(Exception):
    """The base class of every error that this package raises on purpose.

    Errors take keyword arguments, survive `pickle` and `copy`, and never contain the API key.

    >>> try:
    ...     raise RejectedError(message="no such clip", status=400, code="clip_not_found")
    ... except PersonaError as error:
    ...     print(error, error.may_have_created)
    HTTP 400 (clip_not_found): no such clip False
    """

    may_have_created: ClassVar[bool] = False
    """Whether the failed call may have created a persona."""

    message: str
    """The reason, in the service's own words if it sent any."""

    request: CreatePersonaRequest | None = None
    """The request that failed; `None` if the error belongs to no request."""

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # By default an exception is rebuilt from positional arguments, which these classes do not take.
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return functools.partial(type(self), **fields), (), self.__dict__


class ConfigurationError(PersonaError, ValueError):
    """The key, the base URL or an option is unusable."""


class JournalError(PersonaError):
    """The journal cannot be read or written, or belongs to another service. Nothing unrecorded was sent."""


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class _CallError(PersonaError):
    """The attributes of both sides of the fork: the response, as far as it was received."""

    status: int | None = None
    """The HTTP status; `None` if no response was received."""

    code: str | int | None = None
    """The `code` in the error body, as the service wrote it."""

    request_id: str | None = None
    """The service's id of the exchange, which its support asks for: from a header or from the body."""

    headers: Mapping[str, str] = attrs.field(factory=CIMultiDict, converter=CIMultiDict[str])
    """The response headers; names are case-insensitive."""

    body: bytes = b""
    """The response body as received, up to `max_response_size` bytes."""

    attempts: int = 0
    """How many attempts the call made: HTTP requests, followed redirects not counted."""

    def __str__(self) -> str:
        status = "" if self.status is None else f"HTTP {self.status}"
        code = "" if self.code is None else f"({self.code})"
        prefix = " ".join(filter(None, (status, code)))
        suffix = "" if self.request_id is None else f" [request id: {self.request_id}]"
        attempts = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        return f"{prefix}{': ' if prefix else ''}{self.message}{suffix}{attempts}"


class NotCreatedError(_CallError):
    """The call certainly created no persona, so it is safe to retry."""


class InvalidRequestError(NotCreatedError, ValueError):
    """The request cannot be sent as it is. The message names the field."""


class UsageError(NotCreatedError, RuntimeError):
    """The client is closed or belongs to another event loop, or an object is used in a way that it does not support."""


class ConnectionFailedError(NotCreatedError):
    """The request never left: DNS, connection refused, TLS, or a timeout while connecting."""


class RejectedError(NotCreatedError):
    """The service rejected the request. Also a redirect that is not followed, and a 2xx that holds an error."""


class AuthenticationError(RejectedError):
    """401: the service does not accept the key."""


class PermissionDeniedError(RejectedError):
    """403: the key may not do this, or not with this clip."""


class NotFoundError(RejectedError):
    """404: no such endpoint, or no such clip."""


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class RateLimitedError(RejectedError):
    """429: too many requests."""

    retry_after: float | None = None
    """Seconds to wait before the next request, from `Retry-After` (RFC 9110, section 10.2.3)."""


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class ServiceUnavailableError(RejectedError):
    """503: the service does not accept requests at the moment."""

    retry_after: float | None = None
    """Seconds to wait before the next request, from `Retry-After` (RFC 9110, section 10.2.3)."""


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class OutcomeUnknownError(_CallError):
    """A persona may exist: check before you retry."""

    may_have_created: ClassVar[bool] = True
    """Whether the failed call may have created a persona."""

    persona_id: str | None = None
    """The persona's id, if one was found in the response."""

    def __str__(self) -> str:
        found = f" with the id {self.persona_id}" if self.persona_id else ""
        return f"{super().__str__()} (a persona may exist{found}: check before retrying)"


class ResponseTimeoutError(OutcomeUnknownError, TimeoutError):
    """The request was sent, and no complete response arrived in time."""


class ConnectionLostError(OutcomeUnknownError):
    """The request was sent, at least in part, and then the connection broke."""


class ServerError(OutcomeUnknownError):
    """5xx other than 503, the gateway timeouts 504 and 524 included."""


class UnreadableResponseError(OutcomeUnknownError):
    """The response is not a persona: a 2xx with another body, a body over the size limit, or not HTTP at all."""
