"""`suno-persona create`: one persona, and a word about it whatever happens."""

import asyncio
import signal
import sys
from typing import Annotated, cast

import typer

from suno_persona._client import PersonaAPI, engine_of
from suno_persona._engine import Call
from suno_persona.cli import _waiting as waiting
from suno_persona.cli._running import discard_stdout, json_for, printable, report, run
from suno_persona.cli._settings import Settings, takes_settings
from suno_persona.cli._stopping import stopping
from suno_persona.conversion import dumps
from suno_persona.models import CreatePersonaRequest, Persona


@takes_settings
def create(
    root_clip_id: Annotated[str, typer.Option(metavar="ID", help="The clip to create the persona from.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The persona's name.")],
    description: Annotated[str, typer.Option(metavar="TEXT", help="The voice and style in words.")],
    settings: Settings,
    clip: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A clip of the persona; may be used more than once. Default: the root clip."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the persona public.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the persona as JSON instead of its id.")] = False,
) -> None:
    """Create one persona and print its id.

    The key is read from SUNO_API_KEY.
    """

    async def work() -> int:
        request = CreatePersonaRequest(
            root_clip_id=root_clip_id,
            name=name,
            description=description,
            clips=clip or [root_clip_id],
            is_public=public,
        )
        return await _create(settings.client(), Call(request), as_json=json)

    raise typer.Exit(run(work()))


async def _create(api: PersonaAPI, call: Call, *, as_json: bool) -> int:
    """Create a persona and print it. Returns the exit status."""
    engine, loop = engine_of(api), asyncio.get_running_loop()
    task = cast("asyncio.Task[int]", asyncio.current_task())

    def interrupted() -> tuple[int, list[str]]:
        found = "a persona may exist; check before you retry" if call.may_have_created else "no persona was created"
        status = 130 if signals[0] is signal.SIGINT else 3 if call.may_have_created else 1
        return status, [f"interrupted: {found}"]

    persona: Persona | None = None
    with stopping(lambda _: loop.call_soon_threadsafe(task.cancel), lambda: None, interrupted) as signals:
        try:
            async with api:
                async with waiting.shown(lambda: waiting.attempt(engine, call)):
                    persona = await engine.create(call)
                _print_created(persona, dumps(persona).decode() if as_json else printable(persona.id))
        except asyncio.CancelledError:
            if persona is None:
                status, lines = interrupted()
                report(*lines)
                return status
    return 0


def _print_created(persona: Persona, text: str) -> None:
    """Print the text on stdout; if that fails, print the id on stderr, so that it is not lost."""
    if sys.stdout is None:  # the shell closed it
        report(f"created {persona.id}, but stdout is closed")
        return
    try:
        print(json_for(sys.stdout, text), flush=True)
    except OSError as error:
        report(f"created {persona.id}, but stdout cannot be written: {error}")
        discard_stdout()
