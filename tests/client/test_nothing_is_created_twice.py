# ruff: noqa: E501 - a row of the table is a line
"""The fault matrix: whatever breaks, nothing is created twice and nothing is lost.

No request that may have created a persona is sent again, and every persona that was created is returned, or the
error says that it may exist. The rows of `FAULTS` are the table in `docs/explanation/faults.md`;
`pytest --write-docs` rewrites it.
"""

import asyncio
import gzip
import itertools
import ssl
import zlib
from collections.abc import Callable

import attrs
import pytest
import trustme
from soak import soak
from support.broken_service import Act, BrokenService, Exchange, reset
from support.calls import REQUEST
from support.clock import Clock
from support.held_service import client
from support.written import assert_shown

from suno_persona import OutcomeUnknownError, Persona, PersonaError, RejectedError, RetryPolicy, ServerError, errors

PAGE = "explanation/faults.md"
RETRY = RetryPolicy(attempts=3, wait_initial=0)


@attrs.frozen
class Fault:
    """One row: what the service does to the first request, and the outcome of the call."""

    does: str
    act: Act
    outcome: type[Persona | PersonaError]
    requests: int = 1
    personas: int = 0
    hangs: bool = False


def sends(response: Callable[[Exchange], bytes], then: str = "close") -> Act:
    """Send these bytes, then close, reset or keep the connection, or wait until the client leaves."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(response(exchange))
        match then:
            case "close":
                exchange.close()
            case "reset":
                exchange.reset()
            case "hang":
                await exchange.until_the_client_leaves()

    return act


def head(*headers: str, status: str = "200 OK") -> bytes:
    """Return a status line and headers."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def complete(body: bytes, *headers: str, status: str = "200 OK") -> Act:
    """Send a complete response with a body that is no persona."""
    return sends(lambda _: head(*headers, f"Content-Length: {len(body)}", status=status) + body, then="keep")


def created(change: Callable[[bytes], bytes], then: str = "close") -> Act:
    """Create the persona, then send its response with this change."""
    return sends(lambda exchange: change(exchange.response()), then)


def wrapped(*headers: str, by: Callable[[bytes], bytes], then: str = "close") -> Act:
    """Create the persona, and send its document in another way."""
    return sends(lambda exchange: head(*headers) + by(exchange.create()), then)


def chunks(*parts: bytes) -> bytes:
    """Return a chunked body without its end (RFC 9112, section 7.1)."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def without_end(start: bytes, more: bytes) -> Act:
    """Create the persona, send how a response starts, and then more of it, for ever."""

    async def act(exchange: Exchange) -> None:
        exchange.create()
        await exchange.send(start)
        while not exchange.reader.at_eof():
            await exchange.send(more)
            await asyncio.sleep(0)

    return act


def bomb() -> bytes:
    """Return 64 MB of spaces, compressed to a few kilobytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(b" " * 1_000_000) for _ in range(64)), packer.flush()])


LOST, UNREADABLE, TIMEOUT = errors.ConnectionLostError, errors.UnreadableResponseError, errors.ResponseTimeoutError

FAULTS = [
    # The connection
    Fault("closes without a response", sends(lambda _: b""), LOST),
    Fault("creates, then closes without a response", created(lambda _: b""), LOST, personas=1),
    Fault("creates, then resets without a response", created(lambda _: b"", "reset"), LOST, personas=1),
    Fault("creates, then closes in the body", created(lambda whole: whole[:-9]), LOST, personas=1),
    Fault("creates, responds, then closes", created(bytes), Persona, personas=1),
    # Time
    Fault("hangs before it creates", sends(lambda _: b"", "hang"), TIMEOUT, hangs=True),
    Fault("creates, then hangs", created(lambda _: b"", "hang"), TIMEOUT, personas=1, hangs=True),
    Fault("creates, then hangs in the body", created(lambda a: a[:-9], "hang"), TIMEOUT, personas=1, hangs=True),
    Fault("creates, then trickles without end", without_end(head("Content-Length: 1000000"), b"x"), TIMEOUT, personas=1, hangs=True),
    Fault("creates, then sends 1xx without end", without_end(b"", head(status="100 Continue")), TIMEOUT, personas=1, hangs=True),
    # The length of the body
    Fault("creates, and promises more bytes than it sends", wrapped("Content-Length: 999", by=bytes), Persona, personas=1),
    Fault("creates, and promises fewer bytes than it sends", wrapped("Content-Length: 9", by=bytes), UNREADABLE, personas=1),
    Fault("creates, and ends the body by closing", wrapped(by=bytes), Persona, personas=1),
    Fault("creates, and ends the chunks properly", wrapped("Transfer-Encoding: chunked", by=lambda body: chunks(body[:5], body[5:]) + b"0\r\n\r\n", then="keep"), Persona, personas=1),
    Fault("creates, and never ends the chunks", wrapped("Transfer-Encoding: chunked", by=chunks), Persona, personas=1),
    Fault("creates, and sends a chunk without a size", wrapped("Transfer-Encoding: chunked", by=lambda body: b"zz\r\n" + body), UNREADABLE, personas=1),
    # Not HTTP
    Fault("creates, then sends garbage", created(lambda _: b"\x16\x03\x01\x02\x00garbage\r\n\r\n"), UNREADABLE, personas=1),
    Fault("creates, and sends a header of a megabyte", wrapped("X: " + "x" * 1_000_000, by=bytes), UNREADABLE, personas=1),
    Fault("creates, and sends a few 1xx before its response", created(lambda a: head(status="103 Early Hints") * 3 + a), Persona, personas=1),
    Fault("returns 101 Switching Protocols", complete(b"", "Upgrade: x", "Connection: upgrade", status="101 Switching"), UNREADABLE),
    # The body
    Fault("returns 200 with HTML", complete(b"<title>Welcome</title>"), UNREADABLE),
    Fault("returns 200 with nothing", complete(b""), UNREADABLE),
    Fault("returns 200 with an error", complete(b'{"error": {"message": "no such clip"}}'), RejectedError),
    Fault("creates, and wraps the persona", wrapped(by=lambda body: b'{"code": 200, "data": %b}' % body), Persona, personas=1),
    Fault("creates, and compresses the persona", wrapped("Content-Encoding: gzip", by=gzip.compress), Persona, personas=1),
    Fault("creates, and breaks the compression", wrapped("Content-Encoding: gzip", by=lambda body: b"\x00" + gzip.compress(body, mtime=0)), UNREADABLE, personas=1),
    Fault("returns with 64 MB in a gzip bomb", complete(bomb(), "Content-Encoding: gzip"), UNREADABLE),
    Fault("returns with 30 MB", complete(b" " * 30_000_000), UNREADABLE),
    # Error statuses
    Fault("returns 400", complete(b'{"detail": "no"}', status="400 Bad Request"), RejectedError),
    Fault("returns 400, cut off", sends(lambda _: head("Content-Length: 99", status="400 No") + b"no"), RejectedError),
    Fault("returns 429 once", complete(b"", "Retry-After: 0", status="429 Slow"), Persona, requests=2, personas=1),
    Fault("returns 503 once", complete(b"", status="503 Busy"), Persona, requests=2, personas=1),
    Fault("returns 429 with Retry-After of an hour", complete(b"", "Retry-After: 3600", status="429 Slow"), errors.RateLimitedError),
    Fault("returns 500", complete(b"", status="500 Oops"), ServerError),
    Fault("creates, then returns 500", sends(lambda e: (e.create(), head("Content-Length: 0", status="500 Oops"))[1], "keep"), ServerError, personas=1),
    # Redirects
    Fault("redirects to the path without its slash (308)", complete(b"", "Location: /suno/persona/create", status="308 Moved"), Persona, requests=2, personas=1),
    Fault("redirects to itself (308)", complete(b"", "Location: /suno/persona/create/", status="308 Moved"), RejectedError),
    Fault("redirects as GET to the path without its slash (302)", complete(b"", "Location: /suno/persona/create", status="302 Found"), RejectedError),
    Fault("redirects to another host (308)", complete(b"", "Location: http://127.0.0.2/suno/persona/create", status="308 Moved"), RejectedError),
    Fault("redirects to a host that cannot be read (308)", complete(b"", "Location: https://xn--gw.example/", status="308 Moved"), RejectedError),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.does)
async def test_nothing_is_created_twice_and_nothing_is_lost(fault: Fault, advance: Clock) -> None:
    """The outcome, the requests that the service received and the personas that it created are those of the table."""
    async with BrokenService(fault.act) as service, client(service, retry=RETRY) as api:
        call = asyncio.create_task(api.create(REQUEST))
        if fault.hangs:
            while not service.requests:
                await asyncio.sleep(0)
            advance(61)
        (result,) = await asyncio.gather(call, return_exceptions=True)
    assert type(result) is fault.outcome
    assert len(service.requests) == fault.requests
    assert len(service.personas) == fault.personas
    if isinstance(result, PersonaError):
        assert result.may_have_created or not service.personas


def test_the_docs_show_every_fault(pytestconfig: pytest.Config) -> None:
    """The page lists the faults that are tested here, by what the call does after them."""
    groups: dict[str, str] = {}
    for fault in sorted(FAULTS, key=lambda fault: fault.outcome.__name__):
        name, retries = fault.outcome.__name__, f", with {fault.requests} requests" if fault.requests > 1 else ""
        known = "a persona may exist" if issubclass(fault.outcome, OutcomeUnknownError) else "there is none"
        does = f"Returns the persona{retries}" if fault.outcome is Persona else f"Raises `{name}`: {known}"
        groups[does] = f"{groups.get(does, '')}- {fault.does}\n"
    lists = "\n".join(f"### {does}\n\n{faults}" for does, faults in groups.items())
    assert_shown(pytestconfig, PAGE, lists, start="<!-- the faults -->\n\n")


def cut_off_after(sent: int, end: str) -> Act:
    """Create the persona, send this many bytes of the response, then close or reset the connection."""
    return created(lambda whole: whole[:sent], end)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_response_may_be_cut_off_at_any_byte(end: str) -> None:
    """Until its last byte arrives, the outcome is unknown, and nothing is retried."""
    ids = []
    for sent in itertools.count():
        async with BrokenService(cut_off_after(sent, end)) as service, client(service, retry=RETRY) as api:
            outcome = await api.outcome(REQUEST)
        assert (len(service.requests), service.personas) == (1, ["Neon"])
        if outcome.persona is not None:
            break
        assert isinstance(outcome.error, LOST)
        ids.append(outcome.error.persona_id)
    assert ids == [None] * ids.count(None) + ["persona-1"] * ids.count("persona-1")
    assert ids[-1] == "persona-1", "the id is complete before the response is"


def hangs_up_after(received: int, end: str) -> Act:
    """Read this many bytes of what the client sends, then close or reset the connection."""

    async def act(exchange: Exchange) -> None:
        await exchange.reader.readexactly(received)
        exchange.writer.close() if end == "close" else reset(exchange.writer)

    return act


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_request_may_be_cut_off_at_any_byte(end: str) -> None:
    """Once sending has begun, it is unknown what arrived, and nothing is retried."""
    for received in range(300):
        async with (
            BrokenService(on_connect=hangs_up_after(received, end)) as service,
            client(service, retry=RETRY) as api,
        ):
            with pytest.raises(LOST):
                await api.create(REQUEST)
        assert service.connections == 1
        assert service.personas == []


async def test_with_an_untrusted_certificate_nothing_is_sent() -> None:
    """The connection fails before the first byte of the request, on every attempt."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with BrokenService(tls=context) as service, client(service, retry=RETRY) as api:
        with pytest.raises(errors.ConnectionFailedError) as caught:
            await api.create(REQUEST)
    assert caught.value.attempts == 3
    assert service.requests == []


@pytest.mark.slow
async def test_a_thousand_calls_among_faults_and_cancellations_are_all_accounted_for() -> None:
    """Nothing is created twice, nothing is lost, nothing hangs, and nothing is left behind; see `nox -s soak`."""
    outcomes = await soak(1000, seed=1)
    assert {"Persona", "CancelledError", "ConnectionLostError", "ServerError"} <= outcomes.keys()
