"""`suno-persona mcp`: tools for agents. The same call again returns what the journal has recorded, and pays once."""

import asyncio
import inspect
import logging
import os
import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from suno_persona._client import PersonaAPI
from suno_persona._version import VERSION
from suno_persona.cli._client_options import ClientOptions, SendingCommand, client_options
from suno_persona.cli._records import journal_option, resolve_command, state_of
from suno_persona.cli._stopping import stopping
from suno_persona.errors import ConfigurationError, PersonaError
from suno_persona.models import CreatePersonaRequest, Outcome

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from suno_persona.journal import Journal

_TICK = 1.0  # seconds between progress notifications
_INSTRUCTIONS = (
    "Each new persona costs money or credits, and cannot be deleted here. Calling create_persona again with the same"
    " arguments is safe: it returns what was recorded. Follow next_step. Do not change the arguments to get around an"
    " unknown outcome: that may pay twice."
)
_NEXT_STEPS = {
    "created": "Add music_fields to the request that generates music.",
    "not_created": "There is no persona. Correct what the reason names; calling again sends the request again.",
    "unknown": "A persona may exist, and may have been paid for. Calling again sends nothing until a person decides."
    " Ask the user to look for {name!r} in the account, and then to run: {command} --persona-id ID (or --not-created)",
}


@dataclass(frozen=True)
class PersonaRecord:
    """What the journal has of a request. The fields are the members of a tool's structured output."""

    state: Literal["created", "not_created", "unknown"]
    persona_id: str | None
    music_fields: dict[str, str] | None
    reason: str | None
    next_step: str
    recorded: bool
    key: str
    name: str
    root_clip_id: str


@click.command(cls=SendingCommand)
@journal_option
@client_options
def mcp(*, client: ClientOptions, journal: str) -> int:
    """Serve tools for agents: MCP over stdio.

    An agent that calls create_persona again with the same arguments gets the recorded persona, and pays once. Only a
    person can retry an unknown outcome: see journal resolve. The key is read from SUNO_API_KEY.
    """
    from suno_persona.journal import Journal

    async def work() -> int:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop(_: object) -> None:
            loop.call_soon_threadsafe(stopped.set)

        with stopping(stop, None, lambda: (1, ["ended at once: see journal unknown"]), is_last=True) as signals:
            async with opened_server(client.client(), Journal(journal), journal) as server:
                logging.getLogger("suno_persona").propagate = False  # the SDK also prints what reaches the root logger
                serving = asyncio.create_task(server.run_stdio_async())
                ending = asyncio.create_task(stopped.wait())
                await asyncio.wait([serving, ending], return_when=asyncio.FIRST_COMPLETED)
        if signals:
            os._exit(128 + signals[0])  # a thread of the SDK still reads stdin
        await serving
        return 0

    client.log(logging.INFO)
    return asyncio.run(work())


@asynccontextmanager
async def opened_server(api: PersonaAPI, journal: "Journal", url: str) -> "AsyncIterator[MCPServer[Any]]":
    """Open an MCP server whose tools use a client and a journal. At its end, wait for the calls in flight.

    Raises `ConfigurationError` if the SDK is not installed, and `JournalError` if the journal belongs to another
    account.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver import Context
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ModuleNotFoundError as error:
        raise ConfigurationError(message="mcp needs the mcp extra: pip install 'suno-persona[mcp]'") from error
    from suno_persona.cli._progress import cool_down

    server: MCPServer[Any] = MCPServer("suno-persona", instructions=_INSTRUCTIONS, version=VERSION, log_level="WARNING")
    calls: dict[CreatePersonaRequest, asyncio.Task[Outcome]] = {}
    reads = {"read_only_hint": True, "destructive_hint": False, "idempotent_hint": True, "open_world_hint": False}
    creates = {**reads, "read_only_hint": False, "open_world_hint": True}

    @contextmanager
    def raising_tool_errors() -> Iterator[None]:
        try:
            yield
        except PersonaError as error:
            raise ToolError(str(error)) from error

    async def create(request: CreatePersonaRequest) -> Outcome:
        try:
            async with aclosing(api.create_many([request], journal=journal)) as outcomes:
                return await anext(outcomes)  # also if it cannot be recorded
        finally:
            del calls[request]

    async def create_persona(
        root_clip_id: str,
        name: str,
        description: str,
        context: Context,
        clips: list[str] | None = None,
        is_public: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> PersonaRecord:
        """Create a persona, a reusable voice and style, from a generated clip. Costs money or credits, once.

        The same arguments again cost nothing: they return the recorded persona, or wait for the call in flight. Only
        what was certainly not created is sent again. If the state is "unknown", follow next_step.

        root_clip_id is a generated clip of this account; an uploaded one is rejected. clips are the ids of the
        persona's clips, by default the root clip alone. is_public publishes the persona to everybody: pass it only if
        the user asked for that. extra are more members of the request, for services that take them.
        """
        with raising_tool_errors():
            request = CreatePersonaRequest(
                root_clip_id=root_clip_id,
                name=name,
                description=description,
                clips=[root_clip_id] if clips is None else clips,
                is_public=is_public,
                extra=extra or {},
            )
            call = calls[request] = calls.get(request) or asyncio.create_task(create(request))
            started = time.monotonic()
            while not call.done():
                message = cool_down(api) or "waiting for the response"
                await context.report_progress(time.monotonic() - started, message=message)
                await asyncio.wait([call], timeout=_TICK)  # cancelled with this request, unlike the call
            return _record(call.result(), url)

    async def list_personas(limit: int = 20, after: str = "") -> list[PersonaRecord]:
        """List recorded personas, at most `limit`. Sends nothing. For more, pass the key of the last one as `after`."""
        found: list[PersonaRecord] = []
        with raising_tool_errors():
            async for entry in journal.entries("created"):
                if len(found) == limit:
                    break
                if entry.key > after:
                    found.append(_record(entry.outcome(0), url))
        return found

    async def unknown_outcomes() -> list[PersonaRecord]:
        """List the requests whose persona may exist: a person must check. Includes those in flight. Sends nothing."""
        with raising_tool_errors():
            return [_record(entry.outcome(0), url) async for entry in journal.entries("unknown", "claimed")]

    for tool, title, hints in (
        (create_persona, "Create a persona", creates),
        (list_personas, "List the personas", reads),
        (unknown_outcomes, "List unknown outcomes", reads),
    ):
        server.add_tool(tool, description=inspect.getdoc(tool), annotations=ToolAnnotations(title=title, **hints))
    async with api, journal:
        await journal.begin(api.account)
        try:
            yield server
        finally:
            if calls:
                await asyncio.wait(calls.values())


def _record(outcome: Outcome, url: str) -> PersonaRecord:
    state, persona, key = state_of(outcome), outcome.persona, outcome.key or ""
    command = shlex.join(resolve_command(key, url))
    return PersonaRecord(
        state=state,
        persona_id=persona.id if persona else getattr(outcome.error, "persona_id", None),
        music_fields=persona.music_fields() if persona else None,
        reason=None if outcome.error is None else str(outcome.error),
        next_step=_NEXT_STEPS[state].format(name=outcome.request.name, command=command),
        recorded=outcome.recorded,
        key=key,
        name=outcome.request.name,
        root_clip_id=outcome.request.root_clip_id,
    )
