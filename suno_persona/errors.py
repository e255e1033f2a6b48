"""What can go wrong, as one tree. Its first fork is the question users must answer: may a persona exist now?

PersonaError
├── ConfigurationError (ValueError)
├── InvalidRequestError (ValueError)
├── UsageError (RuntimeError)
├── JournalError
├── NotCreatedError
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
    """The root of every error that this package raises on purpose.

    Errors are made with keyword arguments, survive `pickle` and `copy`, and never hold the API key.

    >>> try:
    ...     raise RejectedError(message="no such clip", status=400, code="clip_not_found")
    ... except PersonaError as error:
    ...     print(error, error.may_have_created)
    HTTP 400 (clip_not_found): no such clip False
    """

    may_have_created: ClassVar[bool] = False
    """Whether a persona may exist because of the failed call."""

    message: str
    """What happened: the service's own words where it sent any."""

    request: CreatePersonaRequest | None = None
    """The request that failed; `None` where the error belongs to no request."""

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is otherwise rebuilt from positional arguments, which these classes refuse.
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return functools.partial(type(self), **fields), (), self.__dict__


class ConfigurationError(PersonaError, ValueError):
    """The key, the base URL or an option cannot be used. Nothing was sent."""


class InvalidRequestError(PersonaError, ValueError):
    """The request was refused before it was sent. The message names the field."""


class UsageError(PersonaError, RuntimeError):
    """The client is closed, or belongs to another event loop. Nothing was sent."""


class JournalError(PersonaError):
    """The record of a batch cannot be read or written. Nothing unrecorded was sent."""


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class _CallError(PersonaError):
    """What both sides of the fork carry: the answer, as far as one was received."""

    status: int | None = None
    """The HTTP status; `None` where no answer was received."""

    code: str | int | None = None
    """The `code` of the error body, as the service wrote it."""

    request_id: str | None = None
    """The service's id of the exchange, for its support: from a header or from the error body."""

    headers: Mapping[str, str] = attrs.field(factory=CIMultiDict, converter=CIMultiDict[str])
    """The response's headers; names are case-insensitive."""

    body: bytes = b""
    """The response's body as received, up to `max_response_size` bytes."""

    attempts: int = 1
    """How many times the request was tried."""

    def __str__(self) -> str:
        status = "" if self.status is None else f"HTTP {self.status}"
        code = "" if self.code is None else f"({self.code})"
        prefix = " ".join(filter(None, (status, code)))
        suffix = "" if self.request_id is None else f" [request id: {self.request_id}]"
        return f"{prefix}{': ' if prefix else ''}{self.message}{suffix}"


class NotCreatedError(_CallError):
    """There is certainly no persona: repeating the call is safe."""


class ConnectionFailedError(NotCreatedError):
    """The request never left: DNS, a refused connection, TLS, or a timeout while connecting."""


class RejectedError(NotCreatedError):
    """The service said no. Also a redirect, which is not followed, and a 2xx that holds an error."""


class AuthenticationError(RejectedError):
    """401: the service does not know the key."""


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
    """503: the service does not take requests now."""

    retry_after: float | None = None
    """Seconds to wait before the next request, from `Retry-After` (RFC 9110, section 10.2.3)."""


@attrs.define(kw_only=True, slots=False, repr=False, str=False)
class OutcomeUnknownError(_CallError):
    """A persona may exist: look before you repeat the call."""

    may_have_created: ClassVar[bool] = True
    """Whether a persona may exist because of the failed call."""

    persona_id: str | None = None
    """The id of the persona, where one could be found in what was received."""

    def __str__(self) -> str:
        found = f" with the id {self.persona_id}" if self.persona_id else ""
        return f"{super().__str__()} (a persona may exist{found}: look before you repeat)"


class ResponseTimeoutError(OutcomeUnknownError, TimeoutError):
    """The request was sent and no whole answer came in time."""


class ConnectionLostError(OutcomeUnknownError):
    """The request was sent, at least in part, and then the connection broke."""


class ServerError(OutcomeUnknownError):
    """5xx other than 503, the gateway timeouts 504 and 524 included."""


class UnreadableResponseError(OutcomeUnknownError):
    """The answer is no persona: a 2xx with another body, a body over the limit, or no HTTP at all."""
