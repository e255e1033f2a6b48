"""The options that all commands that send have in common: one for each argument of a client."""

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import attrs
import click

from suno_persona import _options as options
from suno_persona._client import PersonaAPI
from suno_persona._retry import RetryPolicy
from suno_persona.cli._running import printable
from suno_persona.errors import ConfigurationError

_RETRY = RetryPolicy()


class _ClientOption(click.Option):
    """An option of the client."""


class SendingCommand(click.Command):
    """A command whose help lists the options of its client apart from its own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in two sections."""
        listed = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for heading, is_of_client in (("Options", False), ("Client options", True)):
            records = [each.get_help_record(ctx) for each in listed if isinstance(each, _ClientOption) is is_of_client]
            with formatter.section(heading):
                formatter.write_dl([record for record in records if record is not None])


class Rate(click.ParamType[str]):
    """A rate limit, as text that `limiter` reads."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check for REQUESTS/SECONDS."""
        if not re.fullmatch(r"[1-9]\d{0,8}/[1-9]\d{0,8}", value, re.ASCII):
            self.fail(f"{value!r} is not REQUESTS/SECONDS, such as 10/1.", param, ctx)
        return str(value)


def _option(name: str, help_text: str, metavar: str | None = None, **more: Any) -> Callable[[Any], Any]:
    variable = f"SUNO_{name.removeprefix('--').replace('-', '_').upper()}"
    names, is_flag = [name, "-v"] if name == "--verbose" else [name], metavar is None
    more = {"show_default": True, "show_envvar": True, "envvar": variable, "metavar": metavar, **more}
    return click.option(*names, cls=_ClientOption, help=help_text, is_flag=is_flag, **more)


_COUNT, _SECONDS = click.IntRange(min=1), click.FloatRange(min=0)
_TIMEOUT, _CONNECT = options.DEFAULT_TIMEOUT.total, options.DEFAULT_TIMEOUT.sock_connect
_OPTIONS = (
    _option("--base-url", "Address of the service.", "URL", required=True),
    _option("--create-path", "Path of the endpoint.", "PATH", default=options.DEFAULT_CREATE_PATH),
    _option("--allow-insecure", "Send the key over http:// to another machine."),
    _option("--proxy", "HTTP proxy. A URL with a password is safer in the variable.", "URL"),
    _option("--trust-env", "Use the proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name."),
    _option("--timeout", "Time limit of an attempt; 0 for none.", "SECONDS", type=_SECONDS, default=_TIMEOUT),
    _option("--connect-timeout", "Time limit of connecting; 0 for none.", "SECONDS", type=_SECONDS, default=_CONNECT),
    _option("--max-connections", "Maximum requests in flight.", "N", type=_COUNT, default=32),
    _option("--rate-limit", "Rate limit, such as 10/1.", "REQUESTS/SECONDS", type=Rate(), show_default="no limit"),
    _option("--attempts", "Maximum attempts per request.", "N", type=_COUNT, default=_RETRY.attempts),
    _option(
        "--wait-initial",
        "Longest wait before the first retry; it doubles.",
        "SECONDS",
        type=_SECONDS,
        default=_RETRY.wait_initial,
    ),
    _option(
        "--wait-max",
        "Longest wait between attempts. A longer Retry-After fails at once.",
        "SECONDS",
        type=_SECONDS,
        default=_RETRY.wait_max,
    ),
    _option("--max-response-size", "Largest response.", "BYTES", type=_COUNT, default=4 * 1024 * 1024),
    _option("--verbose", "Log every attempt to stderr."),
)


def _option_name(match: re.Match[str]) -> str:
    return f"--{match[0].removesuffix('=True').replace('_', '-')}"


@attrs.frozen(kw_only=True)
class ClientOptions:
    """The values of these options."""

    base_url: str
    create_path: str
    allow_insecure: bool
    proxy: str | None = attrs.field(repr=False)
    trust_env: bool
    timeout: float
    connect_timeout: float
    max_connections: int
    rate_limit: str | None
    attempts: int
    wait_initial: float
    wait_max: float
    max_response_size: int
    verbose: bool

    def client(self, *, retry_unknown: bool = False) -> PersonaAPI:
        """Make the client. Raises `ConfigurationError`."""
        from aiolimiter import AsyncLimiter

        if not os.environ.get("SUNO_API_KEY"):
            raise ConfigurationError(message="SUNO_API_KEY must be the service's key; got none")
        try:
            return PersonaAPI(
                base_url=self.base_url,
                create_path=self.create_path,
                allow_insecure=self.allow_insecure,
                proxy=self.proxy,
                trust_env=self.trust_env,
                timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=self.connect_timeout),
                max_connections=self.max_connections,
                rate_limit=AsyncLimiter(*map(int, self.rate_limit.split("/"))) if self.rate_limit else None,
                retry=RetryPolicy(self.attempts, self.wait_initial, self.wait_max, retry_unknown),
                max_response_size=self.max_response_size,
            )
        except ConfigurationError as error:  # as users of the command know the arguments
            message = re.sub(r"\A(base_url|create_path|proxy)\b|allow_insecure=True", _option_name, error.message)
            raise ConfigurationError(message=message) from None

    def log(self, level: int = logging.WARNING) -> None:
        """Log to stderr from this level on; with --verbose, every attempt."""
        log_to_stderr("suno_persona", logging.DEBUG if self.verbose else level)


def client_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options to a command, which gets their values as its argument `client`."""

    @functools.wraps(command)
    def with_client(*arguments: Any, **values: Any) -> int:
        own = {field.name: values.pop(field.name) for field in attrs.fields(ClientOptions)}
        return command(*arguments, client=ClientOptions(**own), **values)

    for option in reversed(_OPTIONS):
        with_client = option(with_client)
    return with_client


class _Stderr(logging.Handler):
    """Writes lines, without tracebacks, to what stderr is at the moment: a progress bar replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        time = logging.Formatter().formatTime(record, "%H:%M:%S")
        print(printable(f"{time} {record.getMessage()}"), file=sys.stderr)


def log_to_stderr(name: str, level: int) -> None:
    """Print what a logger logs from this level on."""
    logger = logging.getLogger(name)
    logger.addHandler(_Stderr())
    logger.setLevel(level)
