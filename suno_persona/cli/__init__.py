"""The `suno-persona` command. Results go to stdout, errors to stderr as one line."""

import sys
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from suno_persona._client import PersonaAPI
from suno_persona.cli._batch import batch
from suno_persona.cli._create import create
from suno_persona.cli._distributed import enqueue
from suno_persona.cli._fake import fake
from suno_persona.cli._journal import journal_app
from suno_persona.cli._results import results
from suno_persona.cli._rows import Row, read_rows
from suno_persona.cli._running import discard_stdout, report, requests_in_words, run, tolerate_stderr
from suno_persona.cli._settings import Command
from suno_persona.cli._worker import worker

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)  # typer has no public name for it
_ORDER = ("create", "batch", "journal", "enqueue", "worker", "results", "demo", "fake")


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)  # typer lists groups last


app: typer.Typer = typer.Typer(
    name="suno-persona",
    cls=_Commands,
    help="Turn generated songs into reusable personas.",
    epilog="""\b
    Environment:
      SUNO_API_KEY      the API key
      SUNO_BASE_URL     the base URL of the service
      SUNO_JOURNAL_URL  the journal: a file or a database URL
      SUNO_*            other settings: see create --help

    \b
    Exit status:
      0    success: every persona was created
      1    some personas were certainly not created
      2    usage, settings, input or output cannot be used
      3    some outcomes are unknown: check before you retry
      130  interrupted""",
    context_settings={"help_option_names": ["-h", "--help"], "color": False},  # rich colours, and honours NO_COLOR
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command, and report what ends it in one line."""
    tolerate_stderr()
    try:
        status = app(standalone_mode=False)
    except _UsageError as error:
        words = " ".join(error.format_message().split()).removesuffix(".")
        report(f"{words}{f' (see {error.ctx.command_path} --help)' if error.ctx else ''}")
        status = error.exit_code
    except OSError as error:
        report(str(error))
        discard_stdout()
        status = 2
    sys.exit(status)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"suno-persona {version('suno-persona')}")
        raise typer.Exit


@app.callback()
def _without_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


app.command(cls=Command)(create)
app.command(cls=Command)(batch)
app.command()(enqueue)
app.command(cls=Command)(worker)
app.command()(results)
app.add_typer(journal_app, name="journal")


app.command()(fake)


@app.command()
def demo() -> None:
    """Create a few personas on the fake service.

    It needs no key and no network.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from suno_persona.testing import FakeSuno

    async def work() -> None:
        with files("suno_persona").joinpath("personas.csv").open("rb") as rows:
            requests = [row.request for row in read_rows(rows, ".csv") if isinstance(row, Row)]
        async with FakeSuno() as service, PersonaAPI(service.api_key, base_url=service.base_url) as api:
            outcomes = [outcome async for outcome in api.create_many(requests)]
        table = Table(title=f"{requests_in_words(len(requests))} sent with create_many to a fake service")
        table.add_column("name", no_wrap=True)
        table.add_column("persona id or error", overflow="fold")
        for outcome in sorted(outcomes, key=lambda outcome: outcome.index):
            table.add_row(
                outcome.request.name, outcome.persona.id if outcome.persona else f"[red]{escape(str(outcome.error))}[/]"
            )
        console = Console()
        console.print(table)
        created = next(outcome.persona.id for outcome in outcomes if outcome.persona)
        console.print("Next step: pass an id as persona_id when you generate music:")
        console.print(f'  {{"persona_id": "{created}", ...}}')

    run(work())
