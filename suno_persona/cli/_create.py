"""`suno-persona create`: one persona, whose id is printed once its response has arrived."""

import asyncio
import atexit
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from suno_persona._client import PersonaAPI
from suno_persona._engine import Call
from suno_persona.cli._client_options import ClientOptions, SendingCommand, client_options
from suno_persona.cli._running import discard_stdout, print_json, printable, report
from suno_persona.cli._stopping import stopping
from suno_persona.conversion import to_dict
from suno_persona.errors import NotCreatedError
from suno_persona.models import CreatePersonaRequest, Persona


@click.command(cls=SendingCommand)
@click.option("--root-clip-id", required=True, metavar="ID", help="The clip to create the persona from.")
@click.option("--name", required=True, metavar="NAME", help="The persona's name.")
@click.option("--description", required=True, metavar="TEXT", help="The voice and style in words.")
@click.option("--clip", "clips", multiple=True, metavar="ID", help="A clip of the persona; once for each.")
@click.option("--public", "is_public", is_flag=True, help="Publish the persona.")
@click.option("--json", "as_json", is_flag=True, help="Print the persona as JSON instead of its id.")
@click.option("--retry-unknown", is_flag=True, help="Retry unknown outcomes. This may create a second persona.")
@client_options
def create(client: ClientOptions, *, clips: tuple[str, ...], as_json: bool, retry_unknown: bool, **members: Any) -> int:
    """Create one persona and print its id.

    The persona has the root clip alone, unless --clip names others. The key is read from SUNO_API_KEY.
    """
    request = CreatePersonaRequest(clips=clips or (members["root_clip_id"],), **members)
    client.log(logging.INFO)
    _keep_output()
    return asyncio.run(_create(client.client(retry_unknown=retry_unknown), Call(request), as_json=as_json))


async def _create(api: PersonaAPI, call: Call, *, as_json: bool) -> int:
    """Create a persona and print it. Returns the exit status."""
    loop = asyncio.get_running_loop()
    sending = loop.create_task(api.send(call))  # a signal cancels this task alone: nothing else is cut off

    def interrupted(*, is_created: bool = True, persona_id: str | None = None) -> tuple[int, list[str]]:
        known = f" with the id {persona_id}" if persona_id else ""
        found = f"a persona may exist{known}; check before you retry" if is_created else "no persona was created"
        status = 130 if signals[0] is signal.SIGINT else 3 if is_created else 1
        return status, [f"interrupted: {found}"]

    with stopping(
        lambda _: loop.call_soon_threadsafe(sending.cancel),
        None,
        lambda: interrupted(is_created=not call.is_waiting),
        is_last=True,
    ) as signals:
        ended = await sending
        if isinstance(ended.result, Persona):
            _print_created(ended.result, as_json=as_json)
        await api.close()
    if isinstance(ended.result, Persona):
        return 0
    if ended.cancellation is None:
        raise ended.result
    is_created = not isinstance(ended.result, NotCreatedError)
    status, lines = interrupted(is_created=is_created, persona_id=ended.persona_id)
    report(*lines)
    return status


def _print_created(persona: Persona, *, as_json: bool) -> None:
    """Print a persona on stdout; if that fails, print its id on stderr, so that it is not lost."""
    if sys.stdout is None:  # the shell closed it
        report(f"created {persona.id}, but stdout is closed")
        return
    try:
        if as_json:
            print_json(to_dict(persona))
        else:
            print(printable(persona.id), flush=True)
    except OSError as error:
        report(f"created {persona.id}, but stdout cannot be written: {error}")
        discard_stdout()


def _keep_output() -> None:
    """Keep a terminal from discarding, on Ctrl-C, output that it has not shown yet (POSIX, NOFLSH)."""
    if sys.platform == "win32" or sys.stdout is None or not sys.stdout.isatty():
        return
    import termios

    terminal = sys.stdout.fileno()
    with suppress(OSError, termios.error):
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return  # a process in the background would be stopped
        before = termios.tcgetattr(terminal)
        termios.tcsetattr(terminal, termios.TCSANOW, [*before[:3], before[3] | termios.NOFLSH, *before[4:]])

        @atexit.register  # as late as possible: by then it has shown everything
        def restore() -> None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(terminal, termios.TCSANOW, before)
