"""What the simulated processes run: batches, and people who resolve in-doubt requests."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, cast
from unittest import mock

import aiohttp
import attrs
from yarl import URL

from simulation import service, store
from simulation.world import Process, World
from suno_persona import CreatePersonaRequest, JournalError, RetryPolicy, journal
from suno_persona._admission import Admission
from suno_persona._batch import Batch
from suno_persona._engine import Engine
from suno_persona._response import Exchange, Reader
from suno_persona._secret import Secret
from suno_persona._transport import Transport
from suno_persona.journal import Entry, Journal, _writer
from suno_persona.journal._states import Binding

_URLS = {host: URL(f"https://{host}/suno/persona/create/") for host in ("gateway.example", "other.example")}
ONCE = RetryPolicy(attempts=1)


@attrs.frozen(kw_only=True)
class Client:
    """The settings of a process."""

    requests: Sequence[CreatePersonaRequest]
    retry_unknown: bool = False
    host: str = "gateway.example"
    account: str = "account"
    accept_new_key: bool = False
    policy: RetryPolicy = ONCE
    max_connections: int = 2
    stop_after: int = 100
    """The number of outcomes after which its reader stops."""


class _Key(Secret):
    """An API key whose fingerprint costs nothing, and is the name of the account."""

    def __init__(self, account: str) -> None:
        super().__init__(f"key-of-{account}")
        self._account = account

    def fingerprint(self, salt: bytes) -> str:
        return self._account


_KEYS = {account: _Key(account) for account in ("account", "another")}


class _Transport:
    """Sends requests to the simulated service."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def open(self) -> None: ...

    async def post(self, exchange: Exchange, *_: object) -> None:
        client, url = self._client, exchange.url
        binding = Binding(f"https://{url.host}{url.raw_path.rstrip('/')}", client.account)
        ended = service.send(world_of[0], binding, may_repeat=client.policy.retry_unknown)
        try:
            await ended
        except asyncio.CancelledError as cancellation:
            exchange.sent, exchange.ending, exchange.reason = True, "cancelled", "cancelled while in flight"
            exchange.cancellation = cancellation
        if not ended.cancelled():  # what is known counts, although the call is cancelled
            vars(exchange).update(vars(ended.result()))


def engine(client: Client) -> Engine:
    """Return an engine that sends its requests to the simulated service."""
    return Engine(
        transport=cast("Transport", _Transport(client)),
        reader=Reader(secret=_KEYS[client.account], max_response_size=1000, wait_max=client.policy.wait_max),
        admission=Admission(client.max_connections, client.policy, None),
        retry=client.policy,
        timeout=aiohttp.ClientTimeout(),
        url=_URLS[client.host],
    )


class BatchProcess(Process):
    """A process that runs a batch."""

    def __init__(self, world: World, name: str, client: Client, *, ahead: float = 0.0) -> None:
        super().__init__(world, name, ahead=ahead)
        self.client = client
        self.yielded = 0
        self._batch: Batch | None = None
        self.start(self._run())

    def cancel(self) -> None:
        """Cancel the reader."""
        self.world.note(self, "is cancelled")
        self.main.cancel()

    def stop(self) -> None:
        """Stop gracefully."""
        self.world.note(self, "is stopped")
        if self._batch is not None:
            self._batch.stop()

    async def _run(self) -> None:
        client = self.client
        opened = Journal("journal.db", retry_unknown=client.retry_unknown, accept_new_key=client.accept_new_key)
        batch = Batch(client.requests, engine(client), max_connections=client.max_connections, journal=opened)
        async with batch:
            self._batch = batch
            async for outcome in batch:
                self.yielded += 1
                self.world.checks.outcome(self, outcome)
                if self.yielded >= client.stop_after:
                    break


class Person(Process):
    """A person who looks at the service and resolves in-doubt requests; a hasty one does so while they may be sent."""

    def __init__(self, world: World, name: str, *, hasty: bool, looks: int) -> None:
        super().__init__(world, name)
        self._looks = looks
        self._hasty = hasty
        self.start(self._run())

    async def _run(self) -> None:
        async with Journal("journal.db") as opened:
            for _ in range(self._looks):
                async for entry in opened.entries():
                    await self._look(opened, entry)

    async def _look(self, opened: Journal, entry: Entry) -> None:
        fate = self.world.checks.fate(entry.key)
        fate.was_sendable = fate.may_be_sent()
        fate.claims_seen = len(fate.holders)
        if self._hasty if fate.was_sendable else entry.state in ("claimed", "unknown") or entry.by_hand:
            persona_id = fate.personas[0] if fate.personas else None
            try:
                await opened.resolve(entry.key, persona_id=persona_id, not_created=persona_id is None)
            except JournalError as error:
                self.world.note(self, "fails to resolve: {}", error)


class _Thread:
    """Replaces the journal's thread: each process of the world has its own."""

    def __init__(self, *_: object) -> None:
        self._process = world_of[0].running

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> "Future[Any]":
        return self._process.submit(partial(function, *args, **kwargs))

    def shutdown(self, *, wait: bool) -> None: ...


_claim = _writer.Run.claim
world_of: list[World] = []


async def _observed_claim(run: _writer.Run, key: str, body: bytes) -> Any:
    world_of[0].running.keys[asyncio.current_task()] = key
    return await _claim(run, key, body)


@contextmanager
def simulated() -> Iterator[None]:
    """Run the package in the world that was last passed to `enter`."""
    with (
        mock.patch.object(journal, "Storage", store.Storage),
        mock.patch.object(_writer, "ThreadPoolExecutor", _Thread),
        mock.patch.object(journal, "database_url", str),
        mock.patch.object(_writer.Run, "claim", _observed_claim),
        mock.patch.object(logging.getLogger("suno_persona"), "disabled", True),
    ):
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(lambda _: None, lambda _: None)  # the generators of crashed processes end silently
        yield
        sys.set_asyncgen_hooks(*hooks)


def enter(world: World) -> None:
    """Make this world the current one."""
    world_of[:] = [world]
    store.Storage.store = world.store
