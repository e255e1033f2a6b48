"""The `suno-persona` command. Results go to stdout, errors to stderr as one line."""

import os
import sys

import click
from click.shell_completion import shell_complete

from suno_persona._version import VERSION
from suno_persona.cli._batch import batch
from suno_persona.cli._create import create
from suno_persona.cli._fake import demo, fake
from suno_persona.cli._fleet import enqueue, results, worker
from suno_persona.cli._journal import journal
from suno_persona.cli._mcp import mcp
from suno_persona.cli._running import OrderedGroup, discard_stdout, prepare_streams, report, status_of_error
from suno_persona.errors import PersonaError

_COMPLETE = "_SUNO_PERSONA_COMPLETE"
_NAME = "suno-persona"


@click.group(
    _NAME,
    cls=OrderedGroup,
    commands={each.name or "": each for each in (create, batch, journal, enqueue, worker, results, mcp, demo, fake)},
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
    Environment:
      SUNO_API_KEY      the API key
      SUNO_BASE_URL     the address of the service
      SUNO_JOURNAL_URL  the journal: a file or a database URL
      SUNO_*            other options: see create --help

    \b
    Exit status:
      0    success: every persona was created
      1    some personas were certainly not created
      2    usage, configuration, input or output is invalid
      3    some outcomes are unknown: check before you retry
      130  interrupted""",
)
@click.version_option(VERSION, message=f"{_NAME} %(version)s")
def app() -> None:
    """Turn generated songs into reusable personas."""


def main() -> None:
    """Run the command, and report what ends it in one line."""
    prepare_streams()
    sys.exit(_run())


def _run() -> int:
    """Run the command. Returns its exit status."""
    try:
        if instruction := os.environ.get(_COMPLETE):
            return shell_complete(app, {}, _NAME, _COMPLETE, instruction)
        # `app.main` would end with status 1 if the reader of stdout has left.
        with app.make_context(_NAME, sys.argv[1:]) as context:
            status = app.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()  # while an error can still be reported
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        words = " ".join(error.format_message().split()).removesuffix(".")
        report(f"{words}{f' (see {error.ctx.command_path} --help)' if error.ctx else ''}")
        return error.exit_code
    except PersonaError as error:
        report(str(error))
        return status_of_error(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as after `| head -1`
        discard_stdout()
        return 0
    except OSError as error:
        report(str(error))
        discard_stdout()
        return 2
    return int(status or 0)
