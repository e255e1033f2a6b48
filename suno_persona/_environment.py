"""The settings of a client as text: the variables of the environment, and the command's options, which come first.

The command and the workers make their clients here. It knows no typer.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

import attrs
from yarl import URL

from suno_persona import _options as options
from suno_persona._client import PersonaAPI, use_proxy
from suno_persona._retry import RetryPolicy
from suno_persona._secret import Secret

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _flag(name: str, text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise options.invalid(name, "true or false", repr(text))
    return text.lower() in _TRUE


def _count(name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text, re.ASCII):
        raise options.invalid(name, "an integer >= 1", repr(text))
    return int(text)


def _seconds(name: str, text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}", text, re.ASCII):
        raise options.invalid(name, "non-negative seconds", repr(text))
    return float(text)


def _rate(name: str, text: str) -> tuple[int, int]:
    if not (rate := re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text, re.ASCII)):
        raise options.invalid(name, "requests/seconds, such as 60/60", repr(text))
    return int(rate[1]), int(rate[2])


def _text(name: str, text: str) -> str:
    return text


@attrs.frozen
class Setting:
    """One of the settings: an option of the command, and a variable of the environment."""

    name: str
    variable: str
    group: str
    """The heading of the help under which it is listed."""

    help: str
    parse: Callable[[str, str], object]
    """Return the value in a text, or raise `ConfigurationError` under the name of its source."""

    metavar: str | None = None
    """What its value is called; `None` for a flag."""

    default: str | None = None
    """The default, as the help shows it."""

    @property
    def option(self) -> str:
        """The option of the command."""
        return f"--{self.name.replace('_', '-')}"


_SERVICE, _LIMITS = "Service", "Limits and retries"
_RETRY = RetryPolicy()
_NOWHERE = {"create_path": None, "allow_insecure": False}

SETTINGS = (
    Setting("base_url", "SUNO_BASE_URL", _SERVICE, "The base URL of the service.", _text, "URL"),
    Setting(
        "create_path",
        "SUNO_CREATE_PATH",
        _SERVICE,
        "The path of its endpoint below the base URL.",
        _text,
        "PATH",
        options.DEFAULT_CREATE_PATH,
    ),
    Setting(
        "allow_insecure",
        "SUNO_ALLOW_INSECURE",
        _SERVICE,
        "Send the key over http:// to a host that is not this machine.",
        _flag,
    ),
    Setting(
        "trust_env",
        "SUNO_TRUST_ENV",
        _SERVICE,
        "Use the proxies that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name.",
        _flag,
    ),
    Setting(
        "timeout",
        "SUNO_TIMEOUT",
        _LIMITS,
        "How long an attempt may take; 0 is no limit.",
        _seconds,
        "SECONDS",
        f"{options.DEFAULT_TIMEOUT.total:g}",
    ),
    Setting(
        "max_connections",
        "SUNO_MAX_CONNECTIONS",
        _LIMITS,
        "How many requests may be in flight at once.",
        _count,
        "N",
        f"{options.DEFAULT_MAX_CONNECTIONS}",
    ),
    Setting(
        "rate_limit",
        "SUNO_RATE_LIMIT",
        _LIMITS,
        "How many requests may start in so many seconds, such as 10/1.",
        _rate,
        "N/SECONDS",
        "no limit",
    ),
    Setting(
        "attempts",
        "SUNO_ATTEMPTS",
        _LIMITS,
        "How many attempts a request has, if the first create nothing.",
        _count,
        "N",
        f"{_RETRY.attempts}",
    ),
    Setting(
        "wait_max",
        "SUNO_WAIT_MAX",
        _LIMITS,
        "How long to wait before another attempt; a service that asks for more gets no other.",
        _seconds,
        "SECONDS",
        f"{_RETRY.wait_max:g}",
    ),
    Setting("verbose", "SUNO_VERBOSE", "", "Log every attempt and every wait to stderr.", _flag),
)


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a client, as far as they differ from its own defaults."""

    typed: Mapping[str, str] | None
    """The options that were typed, by the names of the settings; `None` where there are no options."""

    values: Mapping[str, Any]
    """The values that were set, by the names of the settings."""

    sources: Mapping[str, str]
    """The option or variable that each of the values comes from."""

    @property
    def is_verbose(self) -> bool:
        """Whether attempts and waits are logged."""
        return bool(self.values.get("verbose"))

    @property
    def max_connections(self) -> int:
        """How many requests may be in flight at once."""
        return int(self.values.get("max_connections", options.DEFAULT_MAX_CONNECTIONS))

    def arguments(self) -> list[str]:
        """Return the options that were typed, to be typed again."""
        words: list[str] = []
        for setting in SETTINGS:
            if (text := (self.typed or {}).get(setting.name)) is not None:
                words += [setting.option] if setting.metavar is None else [setting.option, text]
        return words

    def client(self) -> PersonaAPI:
        """Make the client. Raises `ConfigurationError`, which names the option or the variable that is unusable."""
        if not Secret(os.environ.get("SUNO_API_KEY", "")):
            raise options.invalid("SUNO_API_KEY", "the service's key", "none")
        if not self.values.get("base_url"):
            raise options.invalid(self._either("--base-url", "SUNO_BASE_URL"), "the service's address", "none")
        where = self._arguments("base_url", "create_path", "allow_insecure")
        names = {**self.sources, "allow_insecure": self._either("--allow-insecure", "SUNO_ALLOW_INSECURE=true")}
        url = options.endpoint(**{**_NOWHERE, **where}, names=names)
        client = PersonaAPI(
            **where,
            **self._arguments("timeout", "max_connections"),
            retry=RetryPolicy(**self._arguments("attempts", "wait_max")),
            rate_limit=self._rate_limit(),
        )
        use_proxy(client, _proxy(url) if self.values.get("trust_env") else None)
        return client

    def _either(self, option: str, variable: str) -> str:
        return variable if self.typed is None else f"{option} or {variable}"

    def _arguments(self, *names: str) -> dict[str, Any]:
        return {name: self.values[name] for name in names if name in self.values}

    def _rate_limit(self) -> "AsyncLimiter | None":
        if "rate_limit" not in self.values:
            return None
        from aiolimiter import AsyncLimiter

        return AsyncLimiter(*self.values["rate_limit"])


def read_settings(typed: Mapping[str, str | None] | None = None) -> Settings:
    """Read the options that were `typed`, by the names of the settings, and the environment for the others.

    Raises `ConfigurationError` for a value that cannot be used; its message begins with the option or the variable.
    """
    texts = None if typed is None else {name: text for name, text in typed.items() if text is not None}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        source, text = setting.variable, os.environ.get(setting.variable) or None
        if texts is not None and setting.name in texts:
            source, text = setting.option, texts[setting.name]
        if text is not None:
            values[setting.name] = setting.parse(source, text)
            sources[setting.name] = source
    return Settings(typed=texts, values=values, sources=sources)


def _proxy(url: URL) -> URL | None:
    """Return the proxy that the environment names for a URL. Its value may have a password, and is not shown."""
    if proxy_bypass(url.host_port_subcomponent or "") or not (text := getproxies().get(url.scheme)):
        return None
    try:
        proxy = URL(text)
        if proxy.scheme in ("http", "https") and proxy.host:
            return proxy
    except ValueError:
        pass
    name, required = f"{url.scheme.upper()}_PROXY", "an address such as http://proxy.example:3128"
    raise options.invalid(name, required, "something else")
