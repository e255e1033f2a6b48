"""The `suno-persona` command: create one persona, run the fake service, show a demo.

Results go to stdout, errors to stderr in one line. The exit status is that of `_exit_status`.
"""

import asyncio
import csv
import io
import os
import sys
from collections.abc import Coroutine
from importlib.resources import files
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from suno_persona.client import PersonaAPI
from suno_persona.conversion import dumps
from suno_persona.errors import NotCreatedError, OutcomeUnknownError, PersonaError
from suno_persona.models import CreatePersonaRequest, Persona
from suno_persona.testing import FakeSuno

app: typer.Typer = typer.Typer(
    name="suno-persona",
    help="Turn generated songs into reusable personas.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_T = TypeVar("_T")


def _run(work: Coroutine[None, None, _T], interrupted: str = "") -> _T:
    """Run a command's work, and turn what stops it into one line and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no terminal is too old for an answer that was paid for
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        if interrupted:
            print(f"suno-persona: interrupted: {interrupted}", file=sys.stderr)
        raise typer.Exit(130) from None
    except PersonaError as error:
        print(f"suno-persona: {error}", file=sys.stderr)
        raise typer.Exit(_exit_status(error)) from None


def _show(persona: Persona, text: str) -> None:
    """Print what was created; where stdout does not take it, the id goes to stderr and is not lost."""
    if sys.stdout is None:  # as Python has it where the shell closed it
        print(f"suno-persona: created {persona.id}, and stdout is closed", file=sys.stderr)
        return
    try:
        print(text, flush=True)
    except OSError as error:
        print(f"suno-persona: created {persona.id}, which stdout did not take: {error}", file=sys.stderr)
        # Python flushes it once more at the end, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_status(error: PersonaError) -> int:
    """1: not created; 3: nobody knows; 2: usage, configuration or input, so that nothing was sent."""
    match error:
        case NotCreatedError():
            return 1
        case OutcomeUnknownError():
            return 3
        case _:
            return 2


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

    persona = _run(work(), interrupted="a persona may exist, look before you repeat")
    _show(persona, dumps(persona).decode() if json else persona.id)


@app.command()
def fake(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for one that is free.")] = 8000,
) -> None:
    """Run the fake service on a loopback port, for curl and for clients in any language."""

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

    _run(work())


@app.command()
def demo() -> None:
    """Create a few personas on the fake service: no key, no network."""

    async def work() -> None:
        rows = csv.DictReader(io.StringIO(files("suno_persona").joinpath("personas.csv").read_text("utf-8")))
        requests = [
            CreatePersonaRequest(root_clip_id=row["root_clip_id"], name=row["name"], description=row["description"])
            for row in rows
        ]
        async with FakeSuno() as service, PersonaAPI(service.api_key, base_url=service.base_url) as api:
            results = await asyncio.gather(*(api.create(request) for request in requests), return_exceptions=True)
        table = Table(title=f"{len(requests)} requests, created with asyncio.gather on a fake service")
        table.add_column("name", no_wrap=True)
        table.add_column("persona id, or why there is none", overflow="fold")
        for request, result in zip(requests, results, strict=True):
            table.add_row(request.name, result.id if isinstance(result, Persona) else f"[red]{escape(str(result))}[/]")
        console = Console()
        console.print(table)
        created = next(result.id for result in results if isinstance(result, Persona))
        console.print("Next step: pass an id on as persona_id when you generate music:")
        console.print(f'  {{"persona_id": "{created}", ...}}')

    _run(work())
