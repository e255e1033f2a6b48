"""An id that was received is returned, raised, recorded or logged, whatever happens to its call and its reader."""

import asyncio
import logging
import socket
import threading
import traceback
from contextlib import aclosing

import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import KEY, ONCE, REQUEST, failure, requests
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import idle, turns

from suno_persona import OutcomeUnknownError, Persona, PersonaAPI
from suno_persona._engine import Call
from suno_persona.conversion import make_converter
from suno_persona.testing import FakeSuno, Fault


async def test_a_call_cancelled_as_its_persona_arrives_returns_or_reports_it() -> None:
    """From the turn of the loop that reads the response on, the persona is there, though its call is cancelled."""
    found: list[tuple[bool, bool]] = []
    for passes in range(12):
        async with HeldService() as service, client(service) as api:
            call = asyncio.create_task(api.send(Call(REQUEST)))
            await service.until(1)
            service.respond(0)
            await turns(passes)
            call.cancel()
            ended = await call if not call.done() or not call.cancelled() else None
        found.append((ended is not None and isinstance(ended.result, Persona), bool(ended and ended.cancellation)))
    assert (True, True) in found, "a cancelled call had its persona"
    first = next(number for number, (has_persona, _) in enumerate(found) if has_persona)
    assert all(has_persona for has_persona, _ in found[first:]), "and none had lost it later"


@pytest.mark.parametrize("missing", [1, None])
async def test_a_cancelled_call_logs_the_id_that_it_received(
    missing: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The cancellation is raised, and one line at WARNING has the id; without an id there is nothing to log."""

    async def respond_in_part(exchange: Exchange) -> None:
        await exchange.send(exchange.response()[: -(missing or 1000)])
        await exchange.until_the_client_leaves()

    caplog.set_level(logging.WARNING, "suno_persona")
    async with BrokenService(then=respond_in_part) as service, client(service) as api:
        for call_with in (api.create, api.outcome):
            call = asyncio.ensure_future(call_with(REQUEST))
            await idle()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    logged = [record.getMessage() for record in caplog.records if record.name == "suno_persona"]
    ids = ["persona-1", "persona-2"] if missing else []
    assert logged == [f"persona {found} was created, and its call was cancelled" for found in ids]


async def test_the_ids_that_the_reader_of_a_batch_left_are_logged(
    fake_suno: FakeSuno, persona_api: PersonaAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Each persona that was created is either yielded or in one line at WARNING."""
    caplog.set_level(logging.WARNING, "suno_persona")
    yielded: list[str] = []

    async def read_some() -> None:
        async with aclosing(persona_api.create_many(requests(40))) as outcomes:
            async for outcome in outcomes:
                yielded.append(outcome.result().id)
                if len(yielded) == 10:
                    await fake_suno.wait_for_requests(20)
                    raise LookupError

    with pytest.raises(LookupError):
        await read_some()
    logged = [message.split()[1] for message in caplog.messages if "its outcome was not read" in message]
    assert sorted(yielded + logged) == sorted(persona.id for persona in fake_suno.personas)
    assert len(logged) >= 10


async def test_a_process_that_was_suspended_beyond_its_timeouts_loses_no_response(advance: Clock) -> None:
    """A timeout fires only after the loop has read what is in the sockets, also if that takes more than one pass."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)  # which has room for a whole response
        async with PersonaAPI(KEY, base_url=f"http://127.0.0.1:{server.getsockname()[1]}", retry=ONCE) as api:
            calls = [asyncio.create_task(api.create(request)) for request in requests(8)]
            await idle()
            for number in range(8):  # blocks the loop, as a suspended process or a long computation does
                connection, _ = server.accept()
                with connection:
                    while not connection.recv(10_000).endswith(b"}"):
                        pass
                    body = b'{"id": "persona-%d", "name": "%b"}' % (number, b"x" * 200_000)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            advance(3600)
            personas = await asyncio.gather(*calls)
    assert sorted(persona.id for persona in personas) == [f"persona-{number}" for number in range(8)]


def broken(*_: object) -> object:
    raise KeyError("a bug")


@pytest.mark.parametrize("whose", ["a hook of the caller's", "the package"])
async def test_a_bug_while_a_response_is_read_costs_no_id(
    whose: str, fake_suno: FakeSuno, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome is unknown, with the id, and the bug's exception is the cause, with its traceback."""
    converter = None
    if whose == "the package":
        fake_suno.script(Fault.response(200, b'{"output": {"persona_id": "persona-1"}}'))
        monkeypatch.setattr("suno_persona._error_body.message_of", broken)
    else:
        fake_suno.script(Fault.response(200, b'{"id": "persona-1"}'))
        converter = make_converter()
        converter.register_structure_hook(Persona, broken)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        error = await failure(api)
    assert isinstance(error, OutcomeUnknownError)
    assert (error.persona_id, error.status) == ("persona-1", 200)
    assert error.__cause__ is not None
    assert traceback.extract_tb(error.__cause__.__traceback__)[-1].name == "broken"


@pytest.mark.parametrize("size", [10, 100_000])
async def test_only_a_large_body_is_read_in_a_thread(size: int, fake_suno: FakeSuno) -> None:
    """The event loop goes on while a large one is read. A converter of the caller's reads both, with its hooks."""
    threads: set[bool] = set()

    def read(value: str, _: type) -> str:
        threads.add(threading.current_thread() is threading.main_thread())
        return value.upper()

    fake_suno.script(Fault.response(200, b'{"id": "persona-1", "name": "%b"}' % (b"x" * size)))
    converter = make_converter()
    converter.register_structure_hook(str, read)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        assert (await api.create(REQUEST)).name == "X" * size
    assert threads == {size == 10}
