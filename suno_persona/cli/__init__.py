"""The `suno-persona` command. Results go to stdout, errors to stderr in one line."""

import asyncio
import sys
from importlib.resources import files
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from suno_persona.cli.batch import batch
from suno_persona.cli.fleet import enqueue, results
from suno_persona.cli.journal import journal_app
from suno_persona.cli.rows import read_rows
from suno_persona.cli.running import forget_stdout, run
from suno_persona.client import PersonaAPI
from suno_persona.conversion import dumps
from suno_persona.models import CreatePersonaRequest, Persona

app: typer.Typer = typer.Typer(
    name="suno-persona",
    help="Turn generated songs into reusable personas.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show(persona: Persona, text: str) -> None:
    """Print what was created; where stdout does not take it, the id goes to stderr and is not lost."""
    if sys.stdout is None:  # as Python has it where the shell closed it
        print(f"suno-persona: created {persona.id}, and stdout is closed", file=sys.stderr)
        return
    try:
        print(text, flush=True)
    except OSError as error:
        print(f"suno-persona: created {persona.id}, which stdout did not take: {error}", file=sys.stderr)
        forget_stdout()


app.command()(batch)
app.command()(enqueue)
app.command()(results)
app.add_typer(journal_app, name="journal")


@app.command()
def create(
    root_clip_id: Annotated[str, typer.Option(metavar="ID", help="The clip to make it from.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The persona's name.")],
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it sounds like, in words.")],
    clip: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A clip that belongs to it; may be given again. The root clip unless given."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it.")] = False,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The service's address; SUNO_BASE_URL unless given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole persona as JSON.")] = False,
) -> None:
    """Create one persona and print its id. The key is read from SUNO_API_KEY."""

    async def work() -> Persona:
        request = CreatePersonaRequest(
            root_clip_id=root_clip_id,
            name=name,
            description=description,
            clips=clip or [root_clip_id],
            is_public=public,
        )
        async with PersonaAPI(base_url=base_url) as api:
            return await api.create(request)

    persona = run(work(), interrupted="a persona may exist, look before you repeat")
    _show(persona, dumps(persona).decode() if json else persona.id)


@app.command()
def fake(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for one that is free.")] = 8000,
) -> None:
    """Run the fake service on a loopback port, for curl and for clients in any language."""
    from suno_persona.testing import FakeSuno

    async def work() -> None:
        async with FakeSuno(port=port) as service:
            print(
                f"export SUNO_BASE_URL={service.base_url} SUNO_API_KEY={service.api_key}\n"
                "# The fake service is running with this address and key. Stop it with Ctrl-C. Try it with:\n"
                "#   suno-persona create --root-clip-id 54834687 --name Neon --description 'Night drive'\n"
                "# A clip id that starts with unknown-, uploaded- or foreign- is refused.",
                flush=True,
            )
            await asyncio.Event().wait()

    run(work())


@app.command()
def demo() -> None:
    """Create a few personas on the fake service: no key, no network."""
    from suno_persona.testing import FakeSuno

    async def work() -> None:
        with files("suno_persona").joinpath("personas.csv").open("rb") as rows:
            requests = [row for _, row in read_rows(rows, ".csv") if isinstance(row, CreatePersonaRequest)]
        async with FakeSuno() as service, PersonaAPI(service.api_key, base_url=service.base_url) as api:
            outcomes = [outcome async for outcome in api.create_many(requests)]
        table = Table(title=f"{len(requests)} requests, created with create_many on a fake service")
        table.add_column("name", no_wrap=True)
        table.add_column("persona id, or why there is none", overflow="fold")
        for outcome in sorted(outcomes, key=lambda outcome: outcome.index):
            table.add_row(
                outcome.request.name, outcome.persona.id if outcome.persona else f"[red]{escape(str(outcome.error))}[/]"
            )
        console = Console()
        console.print(table)
        created = next(outcome.persona.id for outcome in outcomes if outcome.persona)
        console.print("Next step: pass an id on as persona_id when you generate music:")
        console.print(f'  {{"persona_id": "{created}", ...}}')

    run(work())
