"""An id that was received is returned, raised, recorded or logged, whatever happens to its call and its reader."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from cattrs import Converter
from support.broken_service import BrokenService, Exchange
from support.calls import KEY, ONCE, requests
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import idle, turns

from suno_persona import CreatePersonaRequest, Persona, PersonaAPI, UnreadableResponseError
from suno_persona._engine import Call
from suno_persona.conversion import make_converter
from suno_persona.testing import FakeSuno, Fault


async def test_a_call_cancelled_as_its_persona_arrives_returns_or_reports_it(request_: CreatePersonaRequest) -> None:
    """From the turn of the loop that reads the response on, the persona is there, though its call is cancelled."""
    found: list[tuple[bool, bool]] = []
    for passes in range(12):
        async with HeldService() as service, client(service) as api:
            call = asyncio.create_task(api.send(Call(request_)))
            await service.until(1)
            service.respond(0)
            await turns(passes)
            call.cancel()
            ended = await call if not call.done() or not call.cancelled() else None
        found.append((ended is not None and isinstance(ended.result, Persona), bool(ended and ended.cancellation)))
    assert (True, True) in found, "a cancelled call had its persona"
    first = next(number for number, (has_persona, _) in enumerate(found) if has_persona)
    assert all(has_persona for has_persona, _ in found[first:]), "and none had lost it later"


async def test_a_cancelled_call_logs_the_id_that_it_received(
    request_: CreatePersonaRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """The cancellation is raised, and one line at WARNING has the id."""

    async def respond_in_part(exchange: Exchange) -> None:
        await exchange.send(exchange.response()[:-1])
        await exchange.until_the_client_leaves()

    caplog.set_level(logging.WARNING, "suno_persona")
    for call_with in ("create", "outcome"):
        async with BrokenService(respond_in_part) as service, client(service) as api:
            call = asyncio.create_task(getattr(api, call_with)(request_))
            await idle()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    logged = [record.getMessage() for record in caplog.records if record.name == "suno_persona"]
    assert logged == ["persona persona-1 was created, and its call was cancelled"] * 2


async def test_a_cancelled_call_without_an_id_logs_nothing(
    request_: CreatePersonaRequest, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no id to log."""
    async with client(service) as api:
        call = asyncio.create_task(api.create(request_))
        await service.until(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not [record for record in caplog.records if record.name == "suno_persona" and record.levelname == "WARNING"]


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


class Blocking:
    """A service in a thread that responds to all requests at once, when the test says so."""

    def __init__(self, count: int) -> None:
        self.received = threading.Event()
        self.respond = threading.Event()
        self.responded = threading.Event()
        self._count = count

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run it, and yield its address."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=self._serve, args=[server])
            thread.start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
            thread.join()

    def _serve(self, server: socket.socket) -> None:
        connections = [server.accept()[0] for _ in range(self._count)]
        for connection in connections:
            read = b""
            while b"}" not in read:
                read += connection.recv(10_000)
        self.received.set()
        self.respond.wait()
        for number, connection in enumerate(connections):
            body = b'{"id": "persona-%d"}' % number
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.responded.set()
        for connection in connections:
            connection.close()


async def test_a_process_that_was_suspended_beyond_its_timeouts_loses_no_response(advance: Clock) -> None:
    """A timeout fires only after the loop has read what is in the sockets."""
    blocking = Blocking(8)
    with blocking.running() as url:
        async with PersonaAPI(KEY, base_url=url, retry=ONCE, timeout=60) as api:
            calls = [asyncio.create_task(api.create(request)) for request in requests(8)]
            await asyncio.to_thread(blocking.received.wait)
            blocking.respond.set()
            blocking.responded.wait()  # blocks the loop, as a suspended process or a long computation does
            advance(3600)
            personas = await asyncio.gather(*calls)
    assert sorted(persona.id for persona in personas) == [f"persona-{number}" for number in range(8)]


def with_hook(hook: Any, kind: type) -> Converter:
    """Return a converter with a hook of a user's."""
    converter = make_converter()
    converter.register_structure_hook(kind, hook)
    return converter


def broken_hook(value: object, _: type) -> object:
    raise KeyError("a bug of the user's")


async def test_a_converter_whose_hook_raises_costs_no_id(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """The error has the id and the body, and the hook's exception with its traceback as its cause."""
    converter = with_hook(broken_hook, Persona)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        with pytest.raises(UnreadableResponseError) as caught:
            await api.create(request_)
    assert caught.value.persona_id == fake_suno.personas[0].id
    assert fake_suno.personas[0].id.encode() in caught.value.body
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    frames = []
    traceback = cause.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "broken_hook"


async def test_a_converter_of_the_callers_reads_personas(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """What its hooks return is in the persona."""
    converter = with_hook(lambda value, _: value.upper(), str)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        assert (await api.create(request_)).name == "NEON"


async def test_the_id_behind_megabytes_of_a_broken_body_is_found(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """All of the body is searched, up to `max_response_size`."""
    large = b'{"persona_clips": [' + b'{"clip": {"id": "c"}}, ' * 100_000 + b'], "id": "persona-1", "name'
    fake_suno.script(Fault.response(200, large))
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=ONCE) as api:
        outcome = await api.outcome(request_)
    assert isinstance(outcome.error, UnreadableResponseError)
    assert outcome.error.persona_id == "persona-1"


@pytest.mark.parametrize("size", [10, 100_000])
async def test_only_a_large_body_is_read_in_a_thread(
    size: int, fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """The event loop goes on while a large one is read, and a usual one costs no change of threads."""
    threads: set[bool] = set()

    def read(value: object, _: type) -> object:
        threads.add(threading.current_thread() is threading.main_thread())
        return value

    fake_suno.script(Fault.response(200, b'{"id": "persona-1", "name": "%b"}' % (b"x" * size)))
    converter = with_hook(read, str)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        assert (await api.create(request_)).id == "persona-1"
    assert threads == {size == 10}
