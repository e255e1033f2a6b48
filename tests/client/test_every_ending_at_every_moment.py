"""However a call ends, and whenever: a whole persona is returned, nothing sent is not created, an id is not lost.

The table on the page about faults is written from `EXPECTED` by `pytest --write-docs`.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import aiohttp
import attrs
import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import BASE, KEY, ONCE
from support.clock import Clock
from support.idle import idle
from support.resolver import Resolver
from support.written import assert_shown

from suno_persona import CreatePersonaRequest, NotCreatedError, OutcomeUnknownError, Persona, PersonaAPI, errors
from suno_persona._engine import Call
from suno_persona._response import Ended

ENDINGS = ("times out", "breaks", "is no HTTP", "is cancelled", "is closed", "a hook raises")
NO, MAYBE, FOUND, YES = "not created", "unknown", "unknown, with the id", "persona"

# What a call is when it ends so at that moment; `None` if it cannot end so there.
EXPECTED: dict[str, tuple[str | None, ...]] = {
    "looking up the host": (NO, NO, None, NO, NO, NO),
    "connecting": (NO, NO, NO, NO, NO, NO),
    "half of the request is sent": (MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE),
    "the request is sent": (MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, None),
    "the headers are received": (MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE),
    "half of the body is received": (MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, None),
    "half of the body is received, with the id": (FOUND, FOUND, FOUND, FOUND, FOUND, None),
    "the persona is received": (YES, YES, YES, YES, YES, YES),
}
FAILED, LOST = errors.ConnectionFailedError, errors.ConnectionLostError
KINDS: dict[str, tuple[type[Exception], ...]] = {  # by ending
    NO: (FAILED, FAILED, FAILED, NotCreatedError, errors.UsageError, NotCreatedError),
    MAYBE: (
        *(errors.ResponseTimeoutError, LOST, errors.UnreadableResponseError),
        *(OutcomeUnknownError, LOST, OutcomeUnknownError),
    ),
}
CASES = [
    (moment, ending, expected)
    for moment, row in EXPECTED.items()
    for ending, expected in zip(ENDINGS, row, strict=True)
    if expected is not None
]
HOOKS = {  # of a session, at which the caller's hook raises
    "looking up the host": "on_dns_resolvehost_start",
    "connecting": "on_connection_create_start",
    "half of the request is sent": "on_request_chunk_sent",
    "the headers are received": "on_request_end",
    "the persona is received": "on_request_end",
}
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return the first chunk of a response."""
    return HEAD + b"%x\r\n%b\r\n" % (len(data), data)


PARTS = {
    "the request is sent": b"",
    "the headers are received": HEAD,
    "half of the body is received": chunk(b'{"name": "Neon", '),
    "half of the body is received, with the id": chunk(b'{"id": "persona-1", "nam'),
    "the persona is received": chunk(b'{"id": "persona-1"}'),
}


@attrs.define
class Moment:
    """A moment that a call reaches, and what can end it there."""

    base_url: str
    break_off: Callable[[], None]
    send: Callable[[bytes], None] = lambda _: None
    """Send these bytes instead of what HTTP requires there."""
    description: str = "D"


@asynccontextmanager
async def looking_up(resolver: Resolver) -> AsyncIterator[Moment]:
    yield Moment(BASE, resolver.fail)


@asynccontextmanager
async def connecting(_: Resolver) -> AsyncIterator[Moment]:
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)  # and no TLS handshake

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield Moment(url, lambda: writers[0].close(), lambda data: writers[0].write(data))
        for writer in writers:
            writer.close()


@asynccontextmanager
async def half_sent(_: Resolver) -> AsyncIterator[Moment]:
    """A server that does not read, and a request that its buffers cannot hold."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def accepted() -> socket.socket:
            connections.append(server.accept()[0])
            return connections[0]

        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield Moment(url, lambda: accepted().close(), lambda data: accepted().sendall(data), "D" * 20_000_000)
        for connection in connections:
            connection.close()


@asynccontextmanager
async def received(part: bytes, _: Resolver) -> AsyncIterator[Moment]:
    """A service that has received the request, and sends this part of its response."""
    exchanges: list[Exchange] = []

    async def respond(exchange: Exchange) -> None:
        await exchange.send(part)
        exchanges.append(exchange)
        await exchange.until_the_client_leaves()

    async with BrokenService(respond) as service:
        yield Moment(service.base_url, lambda: exchanges[0].reset(), lambda data: exchanges[0].writer.write(data))


MOMENTS: dict[str, Callable[[Resolver], AbstractAsyncContextManager[Moment]]] = {
    "looking up the host": looking_up,
    "connecting": connecting,
    "half of the request is sent": half_sent,
    **{moment: partial(received, part) for moment, part in PARTS.items()},
}


async def raising(*_: object) -> None:
    raise LookupError("a bug in a hook of the caller's")


def session(resolver: Resolver, hook: str | None) -> aiohttp.ClientSession:
    """Return a session of the caller's, with a hook that raises or none."""
    trace = aiohttp.TraceConfig()
    if hook is not None:
        getattr(trace, hook).append(raising)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver), trace_configs=[trace])


async def end(ending: str, moment: Moment, api: PersonaAPI, call: asyncio.Task[Ended], advance: Clock) -> None:
    """End a call."""
    match ending:
        case "times out":
            advance(61)
        case "breaks":
            moment.break_off()
        case "is no HTTP":
            moment.send(b"what?\r\n\r\n")
            await idle()
            advance(61)  # aiohttp does not raise in a reader of the body if no chunk follows
        case "is cancelled":
            call.cancel()
        case "is closed":
            await api.close()


def label(ended: Ended) -> str:
    """Return what a call is, in the words of the table."""
    if isinstance(ended.result, Persona):
        return YES
    if isinstance(ended.result, NotCreatedError):
        return NO
    return FOUND if ended.persona_id else MAYBE


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize(("at", "ending", "expected"), CASES)
async def test_a_call_that_ends_at_a_moment_is_what_the_table_says(
    at: str, ending: str, expected: str, advance: Clock
) -> None:
    """Persona, not created or unknown: with the error's class, and with the id if it was received."""
    resolver, hook = Resolver(), HOOKS[at] if ending == "a hook raises" else None
    async with MOMENTS[at](resolver) as moment, session(resolver, hook) as used:
        api = PersonaAPI(KEY, retry=ONCE, base_url=moment.base_url, session=used)
        request = CreatePersonaRequest(root_clip_id="c", name="Neon", description=moment.description)
        call = asyncio.create_task(api.send(Call(request)))
        await idle()
        await end(ending, moment, api, call, advance)
        ended = await call
    assert label(ended) == expected
    assert ended.persona_id == ("persona-1" if expected in (YES, FOUND) else None)
    assert (ended.cancellation is not None) is (ending == "is cancelled")
    if not isinstance(ended.result, Persona):
        assert ended.result.request is request
        is_wrapped = ending == "a hook raises" and at == "half of the request is sent"  # by aiohttp, in its own
        is_late = ending == "is no HTTP" and at in list(PARTS)[1:]
        shown = "breaks" if is_wrapped else "times out" if is_late else ending
        assert type(ended.result) is KINDS[MAYBE if expected == FOUND else expected][ENDINGS.index(shown)]
        if ending == "is closed":
            assert re.search(r"the client .* closed", ended.result.message)
        if ending == "a hook raises" and not is_wrapped:
            assert isinstance(ended.result.__cause__, LookupError)
            assert ended.result.__cause__.__traceback__ is not None


def test_the_page_shows_the_table(pytestconfig: pytest.Config) -> None:
    """The page about faults has the same table."""
    head = "| the call ... while | " + " | ".join(ENDINGS) + " |"
    rows = [f"| {moment} | {' | '.join(cell or '' for cell in row)} |" for moment, row in EXPECTED.items()]
    table = "\n".join([head, "|" + " --- |" * (len(ENDINGS) + 1), *rows])
    assert_shown(pytestconfig, "explanation/faults.md", table, start="<!-- endings and moments -->\n\n", end="\n\n")
