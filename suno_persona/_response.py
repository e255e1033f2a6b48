"""What an answer means: status, headers and bytes become a `Persona` or the right error.

Pure: no aiohttp, no awaits. It reads errors in every shape that gateways use, and raises nothing but
the errors of `suno_persona.errors`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import attrs
from multidict import CIMultiDict
from yarl import URL

from suno_persona._error_body import code_of, find_persona_id, member, one_line, request_id, text_of, words_of
from suno_persona._secret import Secret
from suno_persona.conversion import parse_json, read_at_once, to_persona
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
    """An answer, as far as it was received."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    flaw: OutcomeUnknownError | None = None
    """Why the body is not whole; `None` where it is."""


def read_persona(response: Response) -> Persona:
    """Give the persona that a response holds, or raise the error that it means."""
    if not 200 <= response.status < 300:
        raise _refusal(response)
    if response.flaw is not None:
        raise _unknown(attrs.evolve(response.flaw), response, None) from response.flaw.__cause__
    if (persona := read_at_once(response.body)) is not None:  # which has no member of an error
        return persona
    document = None
    try:
        document = parse_json(response.body)
        if not _is_error_envelope(document):
            return to_persona(document)
    except ValueError as error:
        reason = str(error)
    else:
        # An error that holds the id of a persona does not certainly mean that there is none.
        if find_persona_id(response.body) is None:
            raise _answered(RejectedError, response, document)
        reason = "it is an error"
    says = words_of(document) or text_of(response.status, response.body)
    message = f"the answer is no persona ({reason}); it says: {says}"
    raise _unknown(UnreadableResponseError(message=message), response, document)


def without_secret(response: Response, secret: Secret) -> Response:
    """The same response with every echo of a secret masked: some gateways repeat the key in their errors."""
    return attrs.evolve(
        response,
        headers=CIMultiDict((secret.mask(name), secret.mask(value)) for name, value in response.headers.items()),
        body=secret.mask(response.body.decode("latin-1")).encode("latin-1"),
    )


def slash_redirect(url: URL, response: Response) -> URL | None:
    """The target of the one redirect that is followed, `None` for any other answer: a 307 or 308, which keep
    method and body (RFC 9110, sections 15.4.8 and 15.4.9), to the same origin and to a path that differs
    only by its trailing slash.
    """
    if response.status not in (307, 308):
        return None
    try:
        target = url.join(URL(response.headers.get("Location", ""))).with_fragment(None)
    except ValueError:
        return None
    path = url.raw_path
    expected = url.with_path(path.removesuffix("/") if path.endswith("/") else f"{path}/", encoded=True)
    return expected if _address(target) == _address(expected) else None


def _address(url: URL) -> tuple[object, ...]:
    # Two URLs that differ by an explicit default port are not equal to yarl.
    return url.scheme, url.user, url.password, url.host, url.port, url.raw_path_qs


_REFUSALS: dict[int, type[RejectedError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitedError,
    503: ServiceUnavailableError,
}


def _refusal(response: Response) -> RejectedError | OutcomeUnknownError:
    """The error that a status other than 2xx means. The status decides, whatever became of the body."""
    try:
        document = parse_json(response.body)
    except ValueError:
        document = None
    status = response.status
    if status < 200:
        return _answered(UnreadableResponseError, response, document)
    if status < 400:
        return _redirected(response, document)
    if 500 <= status < 600 and _is_invalid_request(document):
        return _answered(RejectedError, response, document)
    if status < 500 or status in _REFUSALS:
        error = _answered(_REFUSALS.get(status, RejectedError), response, document)
        if isinstance(error, RateLimitedError | ServiceUnavailableError):
            error.retry_after = _retry_after(response.headers)
        return error
    return _answered(ServerError, response, document)


def _redirected(response: Response, document: object) -> RejectedError:
    error = _answered(RejectedError, response, document)
    if location := response.headers.get("Location"):
        error.message = (
            f"the service redirects to {one_line(location)}, which is not followed; "
            "set base_url to the address that serves the endpoint itself"
        )
    return error


def _is_invalid_request(document: object) -> bool:
    # A 5xx with this code says that the request was malformed, so that nothing ran.
    return isinstance(document, dict) and member(document.get("error"), "code") == "invalid_request"


_SUCCESS = {"0", "ok", "success", "succeeded"}


def _is_error_envelope(document: object) -> bool:
    """Whether a 2xx says no: it holds an `error` object, or a `code` that is not one of success."""
    if not isinstance(document, dict):
        return False
    error, code = document.get("error"), document.get("code")
    if isinstance(error, dict) and error:
        return True
    if type(code) not in (int, str) or code == "":
        return False
    text = str(code).lower()
    return text not in _SUCCESS and not re.fullmatch("2[0-9][0-9]", text)


_E = TypeVar("_E", RejectedError, OutcomeUnknownError)


def _answered(kind: type[_E], response: Response, document: object) -> _E:
    """An error of the given kind in the service's own words."""
    return _with_answer(kind(message=words_of(document) or text_of(response.status, response.body)), response, document)


def _unknown(error: OutcomeUnknownError, response: Response, document: object) -> OutcomeUnknownError:
    error.persona_id = find_persona_id(response.body)
    return _with_answer(error, response, document)


def _with_answer(error: _E, response: Response, document: object) -> _E:
    error.status = response.status
    error.headers = response.headers
    error.body = response.body
    error.code = code_of(document)
    error.request_id = request_id(response.headers, document)
    return error


_A_YEAR = 366 * 24 * 3600.0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date (RFC 9110, section 10.2.3); `None` for anything else."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", value):
        wait = float(value)
    elif until := _http_date(value):
        # The service's own clock, where it tells it, is the one that the date was read off.
        now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
        wait = max(0.0, (until - now).total_seconds())
    else:
        return None
    return wait if wait <= _A_YEAR else None  # beyond it is no wait, but a point in time written as a number


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
