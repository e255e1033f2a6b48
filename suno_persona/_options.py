"""The client's arguments: checked once, with an error that says what was found and what is expected.

The key is a `Secret` from its first line here on, and no message shows it.
"""

import ipaddress
import os
import re
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from yarl import URL

from suno_persona._secret import Secret
from suno_persona.errors import ConfigurationError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from suno_persona.journal import Journal


def mask(api_key: object) -> object:
    """The argument in a form that any traceback may show; never fails."""
    if api_key is None:
        return None
    return Secret(api_key) if isinstance(api_key, str) else type(api_key)


def key(masked: object) -> Secret:
    """The key, from `mask(api_key)` or from `SUNO_API_KEY`."""
    found = Secret(os.environ.get("SUNO_API_KEY", "")) if masked is None else masked
    if not isinstance(found, Secret):
        raise _refuse("api_key", "text", getattr(found, "__name__", "another type"))
    if found[:7].lower() in ("bearer", "bearer "):
        found = Secret(found[7:])
    if not found:
        raise _refuse("api_key", "the service's key, as api_key= or in SUNO_API_KEY", "none")
    for place, character in enumerate(found, start=1):
        if not "!" <= character <= "~":
            what = "a character that is not ASCII" if character > "\x7f" else "a space or control character"
            raise _refuse("api_key", "visible ASCII characters only", f"{what} at place {place} of {len(found)}")
    return found


def endpoint(base_url: object, create_path: object, *, allow_insecure: object) -> URL:
    """The address that requests go to, from `base_url` or `SUNO_BASE_URL`."""
    insecure = flag("allow_insecure", allow_insecure)
    base_url = os.environ.get("SUNO_BASE_URL", "") if base_url is None else base_url
    if not isinstance(base_url, str):
        raise _refuse("base_url", "text", type(base_url).__name__)
    if not base_url:
        raise _refuse("base_url", "the service's address, as base_url= or in SUNO_BASE_URL", "none")
    if (
        not isinstance(create_path, str)
        or not create_path.isprintable()
        or not re.fullmatch(r"(/(?!\.\.?(/|$))[^/?#\\\s]*)+", create_path)
    ):
        raise _refuse(
            "create_path", "a path that starts with '/', without '?', '#', '..' or white space", repr(create_path)
        )
    if not base_url.isprintable() or " " in base_url:
        raise _refuse("base_url", "no white space or control characters", "some")
    try:
        url = URL(f"{base_url.rstrip('/')}{create_path}")
    except ValueError as error:
        raise _refuse("base_url", "an address such as 'https://gateway.example'", str(error)) from None
    if url.scheme not in ("http", "https") or not url.host:
        # Not shown: it may be a key in the wrong place.
        raise _refuse("base_url", "an address such as 'https://gateway.example'", "a text that is none")
    if url.user is not None or url.password is not None:
        raise _refuse("base_url", "no user name or password", f"some before {url.host!r}")
    if url.query_string or url.fragment:
        raise _refuse("base_url", "no '?' or '#'", "some")
    try:
        url.host.encode("idna")
    except UnicodeError as error:
        raise _refuse("base_url", "a host name", f"{url.host!r} ({error})") from None
    if url.scheme == "http" and not insecure and not _is_loopback(url.host):
        raise _refuse(
            "base_url",
            "https://, which keeps the key from others on the way, or allow_insecure=True",
            f"http:// to {url.host!r}",
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f".{host.rstrip('.')}".endswith(".localhost")  # RFC 6761, section 6.3
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def seconds(name: str, value: object, expected: str = "seconds from 0 on") -> None:
    """Check for a finite number from 0 on."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise _refuse(name, expected, repr(value))


def flag(name: str, value: object) -> bool:
    """A `bool`, and nothing that is merely true."""
    if not isinstance(value, bool):
        raise _refuse(name, "True or False", repr(value))
    return value


def count(name: str, value: object) -> int:
    """A whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refuse(name, "a whole number from 1 on", repr(value))
    return value


def timeouts(timeout: object) -> aiohttp.ClientTimeout:
    """The bounds of one HTTP request. As in aiohttp, 0 means no bound."""
    if not isinstance(timeout, aiohttp.ClientTimeout):
        raise _refuse("timeout", "an aiohttp.ClientTimeout, such as aiohttp.ClientTimeout(total=60)", repr(timeout))
    for name in ("total", "connect", "sock_connect", "sock_read"):
        if (bound := getattr(timeout, name)) is not None:
            seconds(f"timeout.{name}", bound, "seconds from 0 on, or None")
    return timeout


_T = TypeVar("_T")


def instance(name: str, value: object, kind: type[_T]) -> _T:
    """An object of a class."""
    if not isinstance(value, kind):
        raise _refuse(name, f"an object of {kind.__name__}", repr(value))
    return value


def rate_limit(limit: object) -> "AsyncLimiter | None":
    """The caller's rate limit, where there is one."""
    if limit is None:
        return None
    # Not imported before somebody uses it: it would be a third of what importing this package costs.
    from aiolimiter import AsyncLimiter

    limiter = instance("rate_limit", limit, AsyncLimiter)
    if limiter.max_rate < 1:
        raise _refuse("rate_limit", "one that lets a request pass (max_rate from 1 on)", f"max_rate={limiter.max_rate}")
    return limiter


def session(session: object) -> aiohttp.ClientSession | None:
    """The caller's session, where there is one."""
    if session is None:
        return None
    if not isinstance(session, aiohttp.ClientSession):
        raise _refuse("session", "an aiohttp.ClientSession", repr(session))
    if "Expect" in session.headers:
        raise _refuse(
            "session", "one without the header Expect, with which the key leaves before the body", "one with it"
        )
    if session.auth is not None:
        raise _refuse("session", "one without auth=, which would replace the key", "one that has it")
    return session


def journal(journal: object) -> "Journal | None":
    """The caller's journal, where there is one."""
    if journal is None:
        return None
    from suno_persona.journal import Journal  # which needs an extra

    return instance("journal", journal, Journal)


def _refuse(name: str, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(message=f"{name}: expected {expected}, found {found}")
