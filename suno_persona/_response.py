"""What a response means: status, headers and bytes become a `Persona` or the right error.

Pure: no aiohttp, no awaits. It reads errors in every shape that gateways use, and raises nothing but the errors of
`suno_persona.errors`.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import attrs
from multidict import CIMultiDict
from yarl import URL

from suno_persona._error_body import (
    WRAPPERS,
    code_of,
    find_persona_id,
    is_failure,
    member,
    message_of,
    one_line,
    request_id,
    text_of,
    unwrapped,
)
from suno_persona._secret import Secret
from suno_persona.conversion import load_usual, parse_json, to_persona
from suno_persona.errors import (
    AuthenticationError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitedError,
    RejectedError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
)
from suno_persona.models import Persona


@attrs.define(kw_only=True)
class Response:
    """A response, as far as it was received."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    flaw: OutcomeUnknownError | None = None
    """Why the body is incomplete; `None` where it is complete."""


def read_usual(response: Response) -> Persona | None:
    """Return the persona of a success that holds nothing but a persona's own members; `None` for any other response."""
    return load_usual(response.body) if 200 <= response.status < 300 and response.flaw is None else None


def without_secret(response: Response, secret: Secret) -> Response:
    """Return the response with every echo of a secret masked: some gateways include the key in their errors."""
    headers = CIMultiDict((secret.mask(name), secret.mask(value)) for name, value in response.headers.items())
    return attrs.evolve(response, headers=headers, body=secret.masked(response.body))


def read_persona(response: Response) -> tuple[Persona, str | None]:
    """Return the persona in a response, and the `request_id` in its body; or raise the error that it means."""
    if not 200 <= response.status < 300:
        raise _failure(response)
    if response.flaw is not None:
        raise _unknown(attrs.evolve(response.flaw), response, None) from response.flaw.__cause__
    document = None
    try:
        document = parse_json(response.body)
        if not is_failure(document):
            return to_persona(unwrapped(document)), request_id({}, document)
    except ValueError as error:
        reason = str(error)
    else:
        if not _may_hold_persona(document):
            raise _error(RejectedError, response, document)
        reason = "it is an error, beside what may be a persona"
    said = message_of(document) or text_of(response.status, response.body)
    message = f"the response is not a persona ({reason}); it says: {said}"
    raise _unknown(UnreadableResponseError(message=message), response, document)


def _may_hold_persona(document: object) -> bool:
    """Return whether there is anything in an error that could be a persona, or its id: more than text or nothing."""
    inner = (member(document, name) for name in WRAPPERS)
    return any(value and not isinstance(value, str) for value in inner) or find_persona_id(b"", document) is not None


def slash_redirect(url: URL, response: Response) -> URL | None:
    """Return the target of the one redirect that is followed, and `None` for any other response.

    That is a 307 or 308, which keep method and body (RFC 9110, sections 15.4.8 and 15.4.9), to the same origin and a
    path that differs only by its trailing slash.
    """
    if response.status not in (307, 308):
        return None
    try:
        target = _address(url.join(URL(response.headers.get("Location", ""))))
    except (ValueError, IndexError):  # also of a host that yarl decodes only when it is asked for
        return None
    path = url.raw_path
    other = url.with_path(path.removesuffix("/") if path.endswith("/") else f"{path}/", encoded=True)
    return other if target == _address(other) else None


def _address(url: URL) -> tuple[object, ...]:
    # Two URLs that differ by an explicit default port are not equal to yarl.
    return url.scheme, url.user, url.password, url.host, url.port, url.raw_path_qs


_ERRORS: dict[int, type[RejectedError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitedError,
    503: ServiceUnavailableError,
}


_LARGEST_ERROR = 256 * 1024  # bytes; parsing more would block the event loop, and no gateway says so much


def _failure(response: Response) -> RejectedError | OutcomeUnknownError:
    """Return the error that a status other than 2xx means. The status decides, whatever the body says."""
    document = None
    if len(response.body) <= _LARGEST_ERROR:
        with suppress(ValueError):
            document = parse_json(response.body)
    status = response.status
    if status < 200:
        return _error(UnreadableResponseError, response, document)
    if status < 400:
        return _redirected(response, document)
    if 500 <= status < 600 and _is_invalid_request(document):
        return _error(RejectedError, response, document)
    if status < 500 or status in _ERRORS:
        error = _error(_ERRORS.get(status, RejectedError), response, document)
        if isinstance(error, RateLimitedError | ServiceUnavailableError):
            error.retry_after = _retry_after(response.headers)
        return error
    return _error(ServerError, response, document)


def _redirected(response: Response, document: object) -> RejectedError:
    error = _error(RejectedError, response, document)
    if location := response.headers.get("Location"):
        error.message = (
            f"the service redirects to {one_line(location)}, which is not followed; "
            "set base_url to the address that serves the endpoint"
        )
    return error


def _is_invalid_request(document: object) -> bool:
    # A 5xx with this code says that the request was malformed: nothing ran.
    return isinstance(document, dict) and member(document.get("error"), "code") == "invalid_request"


_E = TypeVar("_E", RejectedError, OutcomeUnknownError)


def _error(kind: type[_E], response: Response, document: object) -> _E:
    """Return an error of this kind, with the service's own message."""
    message = message_of(document) or text_of(response.status, response.body)
    return _with_response(kind(message=message), response, document)


def _unknown(error: OutcomeUnknownError, response: Response, document: object) -> OutcomeUnknownError:
    error.persona_id = find_persona_id(response.body, document)
    return _with_response(error, response, document)


def _with_response(error: _E, response: Response, document: object) -> _E:
    error.status = response.status
    error.headers = response.headers
    error.body = response.body
    error.code = code_of(document)
    error.request_id = request_id(response.headers, document)
    return error


_A_YEAR = 366 * 24 * 3600.0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date (RFC 9110, section 10.2.3); `None` of anything else."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", value):
        wait = float(value)
    elif until := _http_date(value):
        # The date is by the service's clock, and so is `Date`, where it is sent.
        now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
        wait = max(0.0, (until - now).total_seconds())
    else:
        return None
    return wait if wait <= _A_YEAR else None  # a longer one is a timestamp, not a delay


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
