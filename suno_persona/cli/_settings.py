"""The options of the commands that send: one for each setting of a client, under headings of their own in the help."""

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from suno_persona._environment import SETTINGS, Setting, Settings, read_settings
from suno_persona.cli._running import printable, reporting_errors

__all__ = ["AcceptNewKeyOption", "Command", "Settings", "log_to_stderr", "takes_settings"]

AcceptNewKeyOption: TypeAlias = Annotated[
    bool,
    typer.Option("--accept-new-key", help="Bind the journal to this API key: one that was rotated in the account."),
]
"""What a command that sends may do with a journal of another key."""


class Command(TyperCommand):
    """A command whose help lists its options under their headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options, one section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            heading = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets what they say as its argument `settings`."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "settings"]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        with reporting_errors():
            given = {setting.name: _text(arguments.pop(setting.name)) for setting in SETTINGS}
            settings = read_settings(given)
        if settings.is_verbose:
            log_to_stderr("suno_persona", logging.DEBUG)
        command(**arguments, settings=settings)

    parameters = [*own, *_parameters()]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _parameters() -> Iterable[inspect.Parameter]:
    for setting in SETTINGS:
        kind = bool if setting.metavar is None else str | None
        default = False if setting.metavar is None else None
        names = [setting.option, *(["-v"] if setting.name == "verbose" else [])]
        option = typer.Option(
            *names, metavar=setting.metavar, help=_help(setting), rich_help_panel=setting.group, show_default=False
        )
        yield inspect.Parameter(
            setting.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


def _help(setting: Setting) -> str:
    # As typer writes it. The variable is not typer's: its errors would not say what the value must be.
    default = f"default: {setting.default}; " if setting.default else ""
    return f"{setting.help}  [{default}env var: {setting.variable}]"


def _text(value: str | bool | None) -> str | None:
    return value if isinstance(value, str) else "true" if value else None


class _Stderr(logging.Handler):
    """Writes to what stderr is at the moment: a progress bar replaces it, to stay below the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        print(printable(self.format(record)), file=sys.stderr)


class _Line(logging.Formatter):
    """Formats a record as one line: tracebacks are for programs' authors."""

    def formatException(self, ei: object) -> str:  # noqa: N802 - as logging calls it
        """Leave a traceback out."""
        return ""


def log_to_stderr(name: str, level: int) -> None:
    """Print what a logger logs from this level on."""
    handler = _Stderr()
    handler.setFormatter(_Line("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.setLevel(level)
