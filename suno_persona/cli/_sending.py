"""One run of `batch` over its rows: what it sends, counts and writes, and what stops it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import attrs

from suno_persona._batch import Batch, Ending, Recorded
from suno_persona._batch import Run as BatchRun
from suno_persona._client import PersonaAPI, engine_of, open_batch
from suno_persona._engine import Account
from suno_persona.cli._output import Output, state_of
from suno_persona.cli._rows import CheckedRows, Row
from suno_persona.cli._running import status_of
from suno_persona.cli._stopping import again, ended_at_once, stopping
from suno_persona.cli._waiting import cool_down
from suno_persona.errors import ConfigurationError, InvalidRequestError, JournalError
from suno_persona.models import CreatePersonaRequest, Outcome, Persona

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal

_TICK = 0.5  # seconds between looks at what the batch waits for


@attrs.frozen(eq=False)
class _Watched:
    """A journal that notes which requests its runs found recorded, and which are in flight."""

    _journal: "Journal"
    recorded: set[str | None] = attrs.field(init=False, factory=set)
    in_flight: set[str | None] = attrs.field(init=False, factory=set)
    """The keys of the requests that were claimed and have no outcome yet."""

    async def __aenter__(self) -> Self:
        await self._journal.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._journal.__aexit__(kind, error, traceback)

    async def begin(self, account: Account) -> BatchRun:
        """Begin a run that is watched."""
        return _WatchedRun(await self._journal.begin(account), self)


@attrs.frozen(eq=False)
class _WatchedRun:
    """A run of a watched journal."""

    _run: BatchRun
    _watched: _Watched

    def key(self, body: bytes) -> str:
        """Return the run's key."""
        return self._run.key(body)

    async def claim(self, key: str, body: bytes) -> Recorded | None:
        """Claim a request, and note how that ended."""
        recorded = await self._run.claim(key, body)
        (self._watched.in_flight if recorded is None else self._watched.recorded).add(key)
        return recorded

    def settle(
        self, key: str, result: Persona | BaseException, **ending: Unpack[Ending]
    ) -> "Awaitable[Recorded | None]":
        """Settle a request."""
        return self._run.settle(key, result, **ending)


@attrs.define(eq=False)
class Run:
    """One run over the rows: it counts and writes outcomes until every row has one, or until it is stopped."""

    rows: CheckedRows
    output: Output
    display: "Display"
    limit: int | None
    """How many personas it may create; what may have created one counts, too."""

    max_unknown: int
    """How many unknown outcomes in a row stop it."""

    resume: list[str]
    """What to print about a run that was stopped."""

    signals: list[signal.Signals] = attrs.field(init=False, factory=list)
    failure: str | None = attrs.field(init=False, default=None)
    """Why it could not go on."""

    stopped: str | None = attrs.field(init=False, default=None)
    """Why it stopped by itself."""

    _pending: dict[int, Row] = attrs.field(init=False, factory=dict)
    """The rows that have no outcome yet, by their index."""

    _spent: int = attrs.field(init=False, default=0)
    _unknown_in_a_row: int = attrs.field(init=False, default=0)
    _batch: Batch | None = attrs.field(init=False, default=None)
    _progressed: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)

    async def work(self, api: PersonaAPI, journal: "Journal") -> None:
        """Create the personas. What stops the run is in `failure`, `stopped` or `signals` afterwards."""
        call_soon, watched = asyncio.get_running_loop().call_soon_threadsafe, _Watched(journal)

        def abandoned() -> tuple[int, list[str]]:
            return self.status(), [ended_at_once(len(watched.in_flight)), *self.resume]

        with stopping(
            lambda which: call_soon(self._stop, which), lambda: call_soon(self._cancel), abandoned
        ) as self.signals:
            try:
                async with api, open_batch(api, self._requests(), watched) as self._batch:
                    if self.signals:  # before there was a batch
                        self._batch.stop()
                    with self.display:
                        await self._follow(self._batch, watched, api)
            except (JournalError, InvalidRequestError) as error:
                self.failure = self.failure or str(error)

    def status(self) -> int:
        """Return the exit status."""
        if self.failure is not None:
            return 2
        return 128 + self.signals[0] if self.signals else status_of(self.display.summary.counts)

    async def _follow(self, batch: Batch, watched: _Watched, api: PersonaAPI) -> None:
        ticking = asyncio.create_task(self._tick(api))
        try:
            async for outcome in batch:
                is_recorded = outcome.key in watched.recorded
                watched.recorded.discard(outcome.key)
                watched.in_flight.discard(outcome.key)
                self._add(outcome, is_recorded=is_recorded)
                if self.failure is not None or self._unknown_in_a_row >= self.max_unknown:
                    batch.stop()
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])

    async def _tick(self, api: PersonaAPI) -> None:
        """Show what the batch waits for."""
        while True:
            self.display.wait(cool_down(engine_of(api).admission))
            await asyncio.sleep(_TICK)

    def _stop(self, which: signal.Signals) -> None:
        self.display.print(f"finishing the calls in flight; {again(which)} to cancel them")
        if self._batch is not None:
            self._batch.stop()

    def _cancel(self) -> None:
        if self._batch is not None:
            self._batch.cancel()

    async def _requests(self) -> AsyncIterator[CreatePersonaRequest]:
        """Yield the requests; with a limit, no more than may be sent, whatever becomes of those before."""
        for index, row in enumerate(self.rows):
            while self.limit is not None and self._spent + len(self._pending) >= self.limit:
                if self._spent >= self.limit:
                    self.stopped = f"stopped, as --limit is {self.limit}"
                    return
                self._progressed.clear()
                await self._progressed.wait()
            self._pending[index] = row
            yield row.request

    def _add(self, outcome: Outcome, *, is_recorded: bool) -> None:
        row, state = self._pending.pop(outcome.index), state_of(outcome)
        if not is_recorded:
            self._spent += state != "not_created"
            self._unknown_in_a_row = self._unknown_in_a_row + 1 if state == "unknown" else 0
        self._progressed.set()
        self.display.add(outcome, row.line, is_recorded=is_recorded)
        if self._unknown_in_a_row == self.max_unknown:
            why = f"{self.max_unknown} outcomes in a row are unknown (--max-unknown)"
            self.stopped = self.stopped or f"stopped, as {why}; the last one: {outcome.error}"
        if self.failure is None:
            try:
                self.output.add(outcome, row.line, row.custom_id)
            except ConfigurationError as error:
                self.failure = str(error)
