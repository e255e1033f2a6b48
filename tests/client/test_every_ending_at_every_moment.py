"""However a call ends, and whenever: a whole persona is returned, nothing sent is not created, an id is not lost.

The table on the page about faults is written from `EXPECTED` by `pytest --write-docs`.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import KEY, ONCE
from support.clock import Clock
from support.idle import idle
from support.resolver import Resolver
from support.written import assert_shown

from suno_persona import (
    ConnectionFailedError,
    ConnectionLostError,
    CreatePersonaRequest,
    NotCreatedError,
    OutcomeUnknownError,
    Persona,
    PersonaAPI,
    ResponseTimeoutError,
    UnreadableResponseError,
    UsageError,
)
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
KINDS: dict[str, dict[str, type[Exception]]] = {
    NO: {
        "times out": ConnectionFailedError,
        "breaks": ConnectionFailedError,
        "is no HTTP": ConnectionFailedError,
        "is cancelled": NotCreatedError,
        "is closed": UsageError,
        "a hook raises": NotCreatedError,
    },
    MAYBE: {
        "times out": ResponseTimeoutError,
        "breaks": ConnectionLostError,
        "is no HTTP": UnreadableResponseError,
        "is cancelled": OutcomeUnknownError,
        "is closed": ConnectionLostError,
        "a hook raises": OutcomeUnknownError,
    },
}

CASES = [
    (moment, ending, expected)
    for moment, row in EXPECTED.items()
    for ending, expected in zip(ENDINGS, row, strict=True)
    if expected is not None
]
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


class HookError(Exception):
    """What a hook of the caller's session raises."""


@attrs.define
class Moment:
    """A call that has reached a moment, and what can end it there."""

    api: PersonaAPI
    call: asyncio.Task[Ended]
    break_off: Callable[[], None]
    send: Callable[[bytes], None]
    """Send these bytes instead of what HTTP requires there."""


@asynccontextmanager
async def looking_up(hook: bool) -> AsyncIterator[Moment]:
    resolver = Resolver(forever=True)
    trace = aiohttp.TraceConfig()
    if hook:
        trace.on_dns_resolvehost_start.append(raising)
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        api = PersonaAPI(KEY, retry=ONCE, base_url="https://gateway.example", session=session)
        call = start(api)
        await idle()
        yield Moment(api, call, resolver.fail, lambda _: None)


@asynccontextmanager
async def connecting(hook: bool) -> AsyncIterator[Moment]:
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)  # and no TLS handshake

    trace = aiohttp.TraceConfig()
    if hook:
        trace.on_connection_create_start.append(raising)
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server, traced(trace) as session:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        api = PersonaAPI(KEY, retry=ONCE, base_url=url, session=session)
        call = start(api)
        await idle()
        yield Moment(api, call, lambda: writers[0].close(), lambda data: writers[0].write(data))
        for writer in writers:
            writer.close()


@asynccontextmanager
async def half_sent(hook: bool) -> AsyncIterator[Moment]:
    """A server that does not read, and a request that its buffers cannot hold."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        trace = aiohttp.TraceConfig()
        if hook:
            trace.on_request_chunk_sent.append(raising)
        async with traced(trace) as session:
            api = PersonaAPI(KEY, retry=ONCE, base_url=f"http://127.0.0.1:{server.getsockname()[1]}", session=session)
            call = start(api, description="D" * 20_000_000)
            await idle()
            connection, _ = server.accept()
            with connection:
                yield Moment(api, call, connection.close, connection.sendall)


def received(moment: str) -> Callable[[bool], contextlib.AbstractAsyncContextManager[Moment]]:
    """Return what reaches a moment after the request is sent."""

    @asynccontextmanager
    async def reached(hook: bool) -> AsyncIterator[Moment]:
        exchanges: list[Exchange] = []

        async def respond(exchange: Exchange) -> None:
            await exchange.send(PARTS[moment])
            exchanges.append(exchange)
            await exchange.until_the_client_leaves()

        trace = aiohttp.TraceConfig()
        if hook:
            trace.on_request_end.append(raising)
        async with BrokenService(respond) as service, traced(trace) as session:
            api = PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, session=session)
            call = start(api)
            await idle()
            yield Moment(api, call, lambda: exchanges[0].reset(), lambda data: exchanges[0].writer.write(data))

    return reached


MOMENTS: dict[str, Callable[[bool], contextlib.AbstractAsyncContextManager[Moment]]] = {
    "looking up the host": looking_up,
    "connecting": connecting,
    "half of the request is sent": half_sent,
    **{moment: received(moment) for moment in PARTS},
}


async def raising(*_: object) -> None:
    raise HookError("of the caller")


@asynccontextmanager
async def traced(trace: aiohttp.TraceConfig) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        yield session


def start(api: PersonaAPI, **members: Any) -> asyncio.Task[Ended]:
    """Start a call."""
    request = CreatePersonaRequest(**{"root_clip_id": "c", "name": "Neon", "description": "D", **members})
    return asyncio.create_task(api.send(Call(request)))


async def end(moment: Moment, ending: str, advance: Clock) -> None:
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
            moment.call.cancel()
        case "is closed":
            await moment.api.close()


def label(ended: Ended) -> str:
    """Return what a call is, in the words of the table."""
    if isinstance(ended.result, Persona):
        return YES
    if isinstance(ended.result, NotCreatedError):
        return NO
    return FOUND if ended.persona_id else MAYBE


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize(("moment", "ending", "expected"), CASES)
async def test_a_call_that_ends_at_a_moment_is_what_the_table_says(
    moment: str, ending: str, expected: str, advance: Clock
) -> None:
    """Persona, not created or unknown: with the error's class, and with the id if it was received."""
    async with MOMENTS[moment](ending == "a hook raises") as reached:
        await end(reached, ending, advance)
        ended = await reached.call
    assert label(ended) == expected
    assert ended.persona_id == ("persona-1" if expected in (YES, FOUND) else None)
    assert (ended.cancellation is not None) is (ending == "is cancelled")
    if not isinstance(ended.result, Persona):
        is_wrapped = ending == "a hook raises" and moment == "half of the request is sent"  # by aiohttp, in its own
        is_late = ending == "is no HTTP" and moment in list(PARTS)[1:]
        shown = "breaks" if is_wrapped else "times out" if is_late else ending
        assert type(ended.result) is KINDS[MAYBE if expected == FOUND else expected][shown]
        if ending == "is closed":
            assert "the client" in ended.result.message
            assert "closed" in ended.result.message
        if ending == "a hook raises" and not is_wrapped:
            assert isinstance(ended.result.__cause__, HookError)
            assert ended.result.__cause__.__traceback__ is not None


def test_the_page_shows_the_table(pytestconfig: pytest.Config) -> None:
    """The page about faults has the same table."""
    head = "| the call ... while | " + " | ".join(ENDINGS) + " |"
    rows = [f"| {moment} | {' | '.join(cell or '' for cell in row)} |" for moment, row in EXPECTED.items()]
    table = "\n".join([head, "|" + " --- |" * (len(ENDINGS) + 1), *rows])
    assert_shown(pytestconfig, "explanation/faults.md", table, start="<!-- endings and moments -->\n\n", end="\n\n")
