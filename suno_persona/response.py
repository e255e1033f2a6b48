"""What an answer means: status, headers and bytes become a `Persona` or the right error.

Pure: no aiohttp, no awaits. It reads errors in every shape that gateways use, and raises nothing but
the errors of `suno_persona.errors`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

import attrs
from multidict import CIMultiDict
from yarl import URL

from suno_persona.conversion import parse_json, to_persona
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
from suno_persona.secret import Secret


@attrs.frozen(kw_only=True)
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
    document = None
    try:
        document = parse_json(response.body)
        if not _is_error_envelope(document):
            return to_persona(document)
        reason = "it is an error"
    except ValueError as error:
        reason = str(error)
    says = _words(document) or _text(response)
    unreadable = UnreadableResponseError(message=f"the answer is no persona ({reason}); it says: {says}")
    unknown = _unknown(unreadable, response, document)
    # An error that holds the id of a persona does not certainly mean that there is none.
    if reason == "it is an error" and unknown.persona_id is None:
        raise _answered(RejectedError, response, document)
    raise unknown


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
    return isinstance(document, dict) and _member(document.get("error"), "code") == "invalid_request"


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
    return _with_answer(kind(message=_words(document) or _text(response)), response, document)


def _unknown(error: OutcomeUnknownError, response: Response, document: object) -> OutcomeUnknownError:
    error.persona_id = find_persona_id(response.body)
    return _with_answer(error, response, document)


def _with_answer(error: _E, response: Response, document: object) -> _E:
    error.status = response.status
    error.headers = response.headers
    error.body = response.body
    error.code = _code(document)
    error.request_id = request_id(response.headers, document)
    return error


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _code(document: object) -> str | int | None:
    for place in (_member(document, "error"), document, _member(document, "detail")):
        code = _member(place, "code")
        if isinstance(code, str | int) and not isinstance(code, bool):
            return one_line(code) if isinstance(code, str) else code
    return None


_REQUEST_ID_HEADERS = ("X-Request-Id", "Request-Id", "X-Oneapi-Request-Id", "CF-Ray")


def request_id(headers: Mapping[str, str], document: object = None) -> str | None:
    """The service's id of the exchange, from a header or else from the body."""
    found = next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), _member(document, "request_id"))
    return one_line(found) if isinstance(found, str) else None


_WORD_MEMBERS = ("message", "msg", "error", "errors", "detail", "error_description", "title", "reason")


def _words(value: object, depth: int = 5) -> str:
    """The sentence in an error body of any shape; empty where there is none."""
    if depth == 0:
        return ""
    match value:
        case str():
            return one_line(value)
        case list():
            return one_line("; ".join(filter(None, (_words(item, depth - 1) for item in value[:20]))))
        case dict():
            words = next(filter(None, (_words(value.get(name), depth - 1) for name in _WORD_MEMBERS)), "")
            # FastAPI names the place of an error beside its message.
            place = _place(value.get("loc"))
            return f"{one_line(place)}: {words}" if place and words else words
        case _:
            return ""


def _text(response: Response) -> str:
    """A body that is no JSON, or JSON without a sentence, as one line of text."""
    text = response.body[:4096].decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        title = re.search(r"(?i)<title[^>]*>([^<]*)", text)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    if words := one_line(text):
        return words
    try:
        return HTTPStatus(response.status).phrase
    except ValueError:
        return "the answer holds no words"


def _place(loc: object) -> str:
    parts = loc if isinstance(loc, list) else []
    return ".".join(str(part) for part in parts if isinstance(part, str | int))


def one_line(text: str) -> str:
    """Text from outside as one printable line of at most 500 characters; the whole is in `body`."""
    text = " ".join("".join(character if character.isprintable() else " " for character in text[:2000]).split())
    return text if len(text) <= 500 else f"{text[:499]}…"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date (RFC 9110, section 10.2.3); `None` for anything else."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    # The service's own clock, where it tells it, is the one that the date was read off.
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


# Never fails on a quote that is not closed: so the search takes one pass, whatever the bytes.
_LEXEME = r'(?s)"((?:[^"\\]|\\.)*+)("?)|[{}\[\],:]'
_WRAPPERS = {"data", "persona", "response", "result"}


def find_persona_id(body: bytes) -> str | None:
    """The persona's id in an answer that is no persona: wrapped in another object, cut off or broken.

    Only an id in the place of the persona's own counts, never one of a clip.

    >>> find_persona_id(b'{"code": 0, "data": {"id": "fd213afd"}}')
    'fd213afd'
    >>> find_persona_id(b'{"clip": {"id": "54834687"}, "id": "fd213') is None
    True
    """
    return next(_own_ids(body.decode("utf-8", "replace")), None)


def _own_ids(text: str) -> Iterator[str]:
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return
    foreign: list[bool] = []  # for each open object or list, whether it belongs to something else than the persona
    name, named = "", False  # the last text, and whether a colon followed it
    for token in re.finditer(_LEXEME, text):
        match token[0]:
            case "{" | "[":
                foreign.append(bool(foreign) and (foreign[-1] or not named or name not in _WRAPPERS))
                name, named = "", False
            case "}" | "]":
                del foreign[-1:]
                name, named = "", False
            case ",":
                name, named = "", False
            case ":":
                named = True
            case _ if not named:
                name = token[1]
            case _ if name in ("id", "persona_id") and token[2] and foreign[-1:] == [False]:
                try:
                    value = json.loads(token[0])
                except ValueError:
                    continue
                if value:
                    yield value
            case _:
                pass
