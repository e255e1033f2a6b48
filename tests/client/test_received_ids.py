"""An id that was received is returned, raised, recorded or logged, whatever happens to its call and its reader."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from cattrs import Converter
from support.broken_service import BrokenService, Exchange
from support.calls import KEY, ONCE, REQUEST, failure, requests
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import idle, turns

from suno_persona import Persona, PersonaAPI, UnreadableResponseError
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


COUNT = 8


@contextmanager
def blocking() -> Iterator[tuple[str, threading.Event, Callable[[], None]]]:
    """Run a service in a thread; yield its address, whether all requests have arrived, and what responds to all."""
    received, may_respond = threading.Event(), threading.Event()

    def serve() -> None:
        connections = [server.accept()[0] for _ in range(COUNT)]
        for connection in connections:
            read = b""
            while b"}" not in read:
                read += connection.recv(10_000)
        received.set()
        may_respond.wait()
        for number, connection in enumerate(connections):
            body = b'{"id": "persona-%d"}' % number
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            connection.close()

    def respond() -> None:
        may_respond.set()
        thread.join()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", received, respond
        respond()


async def test_a_process_that_was_suspended_beyond_its_timeouts_loses_no_response(advance: Clock) -> None:
    """A timeout fires only after the loop has read what is in the sockets."""
    with blocking() as (url, received, respond):
        async with PersonaAPI(KEY, base_url=url, retry=ONCE, timeout=60) as api:
            calls = [asyncio.create_task(api.create(request)) for request in requests(COUNT)]
            await asyncio.to_thread(received.wait)
            respond()  # blocks the loop, as a suspended process or a long computation does
            advance(3600)
            personas = await asyncio.gather(*calls)
    assert sorted(persona.id for persona in personas) == [f"persona-{number}" for number in range(COUNT)]


def with_hook(hook: Any, kind: type) -> Converter:
    """Return a converter with a hook of a user's."""
    converter = make_converter()
    converter.register_structure_hook(kind, hook)
    return converter


def broken_hook(value: object, _: type) -> object:
    raise KeyError("a bug of the user's")


async def test_a_converter_whose_hook_raises_costs_no_id(fake_suno: FakeSuno) -> None:
    """The error has the id and the body, and the hook's exception with its traceback as its cause."""
    converter = with_hook(broken_hook, Persona)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        error = await failure(api)
    assert (type(error), error.persona_id) == (UnreadableResponseError, fake_suno.personas[0].id)
    assert fake_suno.personas[0].id.encode() in error.body
    traceback = error.__cause__.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code.co_name == "broken_hook"


async def test_the_id_behind_megabytes_of_a_broken_body_is_found(fake_suno: FakeSuno) -> None:
    """All of the body is searched, up to `max_response_size`."""
    large = b'{"persona_clips": [' + b'{"clip": {"id": "c"}}, ' * 50_000 + b'], "id": "persona-1", "name'
    fake_suno.script(Fault.response(200, large))
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=ONCE) as api:
        error = await failure(api)
    assert (type(error), error.persona_id) == (UnreadableResponseError, "persona-1")


@pytest.mark.parametrize("size", [10, 100_000])
async def test_only_a_large_body_is_read_in_a_thread(size: int, fake_suno: FakeSuno) -> None:
    """The event loop goes on while a large one is read. A converter of the caller's reads both, with its hooks."""
    threads: set[bool] = set()

    def read(value: str, _: type) -> str:
        threads.add(threading.current_thread() is threading.main_thread())
        return value.upper()

    fake_suno.script(Fault.response(200, b'{"id": "persona-1", "name": "%b"}' % (b"x" * size)))
    converter = with_hook(read, str)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        assert (await api.create(REQUEST)).name == "X" * size
    assert threads == {size == 10}
