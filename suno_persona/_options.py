"""Arguments and environment variables, checked once; each error states the requirement and the value found.

The key is a `Secret` from its first line here on, and no message shows it.
"""

import ipaddress
import os
import re
from typing import TYPE_CHECKING, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from suno_persona._secret import Secret
from suno_persona._version import VERSION
from suno_persona.errors import ConfigurationError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter
    from cattrs import Converter

DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
DEFAULT_MAX_CONNECTIONS = 32
DEFAULT_CREATE_PATH = "/suno/persona/create/"

_T = TypeVar("_T")


def mask(secret: object) -> object:
    """Return a secret argument in a form that any traceback may show; never fails."""
    if secret is None:
        return None
    return Secret(secret) if isinstance(secret, str) else type(secret)


def key(masked: object) -> Secret:
    """Return the key, from `mask(api_key)` or from `SUNO_API_KEY`."""
    found = Secret(os.environ.get("SUNO_API_KEY", "")) if masked is None else masked
    if isinstance(found, Secret):
        found = Secret(re.sub(r"(?i)\ABearer(?: |\Z)", "", found.reveal()))
    if not isinstance(found, Secret):
        raise invalid("api_key", "a str", f"a value of type {getattr(found, '__name__', 'unknown')}")
    if not found:
        raise invalid("api_key", "the service's key, as api_key= or in SUNO_API_KEY", "none")
    if (flaw := found.flaw()) is not None:
        raise ConfigurationError(message=f"{'SUNO_API_KEY' if masked is None else 'api_key'} {flaw}")
    return found


def endpoint(base_url: object, create_path: object, *, allow_insecure: object) -> URL:
    """Return the URL that requests are sent to, from the arguments or `SUNO_BASE_URL` and `SUNO_CREATE_PATH`."""
    insecure = flag("allow_insecure", allow_insecure)
    name = "base_url"
    if base_url is None:
        base_url, name = os.environ.get("SUNO_BASE_URL", ""), "SUNO_BASE_URL"
    if not isinstance(base_url, str):
        raise invalid(name, "a str", f"a value of type {type(base_url).__name__}")
    if not base_url:
        raise invalid("base_url", "the service's address, as base_url= or in SUNO_BASE_URL", "none")
    path = _path(create_path)
    required = "an address such as 'https://gateway.example'"
    try:
        url = URL(f"{base_url.rstrip('/')}{path}")
        host = url.host or ""  # decoded only now, which may fail
        host.encode("idna")
    except (ValueError, IndexError) as error:
        raise invalid(name, required, str(error)) from None
    for is_wrong, found in (  # the address itself is not shown: it may be the key, passed by mistake
        (" " in base_url or not base_url.isprintable(), "white space or a control character in it"),
        ("://" not in base_url, "no https:// in it"),
        (url.scheme not in ("http", "https") or not host, "another scheme, or no host"),
        (url.user is not None or url.password is not None, f"a user name or a password before {host!r}"),
        (bool(url.query_string or url.fragment), "'?' or '#' in it"),
    ):
        if is_wrong:
            raise invalid(name, required, found)
    if url.scheme == "http" and not insecure and not is_loopback(host):
        required = "https://, which keeps the key from others on the way, unless allow_insecure=True"
        raise invalid(name, required, f"http:// to {host!r}")
    return url


def _path(create_path: object) -> str:
    name = "create_path"
    if create_path is None:
        create_path, name = os.environ.get("SUNO_CREATE_PATH") or DEFAULT_CREATE_PATH, "SUNO_CREATE_PATH"
    if (
        isinstance(create_path, str)
        and create_path.isprintable()
        and re.fullmatch(r"(/(?!\.\.?(/|$))[^/?#\\\s]*)+", create_path)
    ):
        return create_path
    raise invalid(name, "a path that begins with '/', without '?', '#', '..' or white space", repr(create_path))


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f".{host.rstrip('.')}".endswith(".localhost")  # RFC 6761, section 6.3
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def seconds(name: str, value: object, required: str = "non-negative seconds") -> None:
    """Check for a finite number >= 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise invalid(name, required, repr(value))


def flag(name: str, value: object) -> bool:
    """Return a `bool`; nothing that is merely truthy."""
    if not isinstance(value, bool):
        raise invalid(name, "True or False", repr(value))
    return value


def count(name: str, value: object) -> int:
    """Return an integer >= 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise invalid(name, "an integer >= 1", repr(value))
    return value


def timeouts(timeout: object) -> aiohttp.ClientTimeout:
    """Return the bounds of one HTTP request, from aiohttp's class or from seconds. As in aiohttp, 0 means no bound."""
    if isinstance(timeout, int | float) and not isinstance(timeout, bool):
        seconds("timeout", timeout)
        return aiohttp.ClientTimeout(total=timeout, sock_connect=DEFAULT_TIMEOUT.sock_connect)
    if not isinstance(timeout, aiohttp.ClientTimeout):
        raise invalid("timeout", "seconds or an aiohttp.ClientTimeout", repr(timeout))
    for name in ("total", "connect", "sock_connect", "sock_read"):
        if (bound := getattr(timeout, name)) is not None:
            seconds(f"timeout.{name}", bound, "non-negative seconds or None")
    return timeout


def instance(name: str, value: object, kind: type[_T]) -> _T:
    """Return an instance of a class."""
    if not isinstance(value, kind):
        raise invalid(name, f"an instance of {kind.__name__}", repr(value))
    return value


def rate_limit(limit: object) -> "AsyncLimiter | None":
    """Return the caller's rate limit, if any."""
    if limit is None:
        return None
    # A third of the cost of importing this package: import it only if it is used.
    from aiolimiter import AsyncLimiter

    limiter = instance("rate_limit", limit, AsyncLimiter)
    if limiter.max_rate < 1:
        raise invalid("rate_limit", "a limiter with max_rate >= 1", f"max_rate={limiter.max_rate}")
    return limiter


def session(session: object) -> aiohttp.ClientSession | None:
    """Return the caller's session, if any."""
    if session is None:
        return None
    session = instance("session", session, aiohttp.ClientSession)
    if "Expect" in session.headers:
        raise invalid("session", "one without the header Expect, which sends the key before the body", "one with it")
    if session.auth is not None:
        raise invalid("session", "one without auth=, which would replace the key", "one with it")
    return session


def headers(session: aiohttp.ClientSession | None) -> dict[str, str]:
    """Return the headers of each request, but the key. The `User-Agent` of the caller's session stays."""
    ours = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}  # which `_response` can read
    if session is None or "User-Agent" not in session.headers:
        ours["User-Agent"] = f"suno-persona/{VERSION}"
    return ours


def converter(converter: object) -> "Converter | None":
    """Return the caller's converter, if any."""
    if converter is None:
        return None
    from cattrs import Converter

    return instance("converter", converter, Converter)


_PROXY = "the URL of an HTTP proxy, such as http://proxy.example:3128"


def proxy(masked: object, url: URL, *, trust_env: object) -> Secret | None:
    """Return the proxy to the endpoint, if any: from `mask(proxy)`, or from the environment."""
    name, found = "proxy", masked
    if flag("trust_env", trust_env) and masked is None and not proxy_bypass(url.host_port_subcomponent or ""):
        name, found = _proxy_of_environment(url.scheme)
    if found is None or is_loopback(url.host or ""):
        return None
    if not isinstance(found, Secret):
        raise invalid(name, _PROXY, f"a value of type {getattr(found, '__name__', 'unknown')}")
    if not _is_proxy(found):
        raise invalid(name, _PROXY, "something else")
    return found


def _proxy_of_environment(scheme: str) -> tuple[str, Secret | None]:
    proxies = getproxies()
    for name in (scheme, "all"):
        if address := proxies.get(name):
            return f"{name.upper()}_PROXY", Secret(address)
    return "", None


def _is_proxy(secret: Secret) -> bool:
    try:
        url = URL(secret.reveal())
        return url.scheme in ("http", "https") and bool(url.host)
    except (ValueError, IndexError):
        return False


def invalid(name: str, required: str, found: str) -> ConfigurationError:
    """Return the error for a value that cannot be used."""
    return ConfigurationError(message=f"{name} must be {required}; got {found}")
