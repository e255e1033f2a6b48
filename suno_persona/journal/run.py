"""One run over the requests of a batch: which key each one has, whether it may be sent, and what is recorded of it."""

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from suno_persona._batch import Send
from suno_persona._engine import Call
from suno_persona.errors import JournalError
from suno_persona.journal.claims import Claims
from suno_persona.journal.entry import Entry, created, entry_of, not_created
from suno_persona.journal.store import Settled, now
from suno_persona.models import Persona


class Keys:
    """The keys of a batch's requests, which are the same whenever it is run, in any order."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def next(self, body: bytes) -> str:
        """The key of the next request, by its wire body: a hash, and its place among the identical ones so far."""
        digest = hashlib.sha256(body).digest()
        self._seen[digest] += 1
        return f"{digest.hex()}:{self._seen[digest]}"


class Run:
    """One run over the requests of a batch: gives each its key, and sends it if nobody did."""

    def __init__(self, claims: Claims, *, resend_refused: bool, retry_unknown: bool) -> None:
        self._claims = claims
        self._holder = uuid.uuid4().hex
        # What other processes do from here on, this run does not do again.
        self._since = now() if resend_refused else ""
        self._resend_unknown = retry_unknown
        self._keys = Keys()
        self._recording: dict[Call, tuple[Settled, asyncio.Future[None]]] = {}

    def key(self, call: Call) -> str:
        """The key of the next request."""
        return self._keys.next(call.body)

    async def send(self, call: Call, send: Send) -> Persona:
        """Send a call after its claim is committed, and begin to record its outcome; or give what is recorded of it.

        Raises a `JournalError` where the claim cannot be committed: nothing was sent.
        """
        entry = await self.claim(call)
        return await self.send_claimed(call, send) if entry is None else entry.result()

    async def claim(self, call: Call) -> Entry | None:
        """Commit that a call is about to be sent; or give what is recorded of it, and it must not be sent."""
        row = await self._claims.claim(
            call.key,
            call.body.decode(),
            holder=self._holder,
            since=self._since,
            retry_unknown=self._resend_unknown,
        )
        return None if row is None else entry_of(row)

    async def send_claimed(self, call: Call, send: Send) -> Persona:
        """Send a call whose claim is committed, and begin to record its outcome."""
        try:
            persona = await send(call)
        except BaseException as error:
            self._record(call, not_created(call, error))
            raise
        self._record(call, created(persona))
        return persona

    async def give_up(self, entry: Entry) -> None:
        """Record as unknown what somebody else claimed of whom no outcome is expected any more.

        If an outcome comes of it after all, that is recorded.
        """
        settled = Settled("unknown", reason=f"no outcome was recorded: {entry.claimed_by} was stopped")
        await asyncio.shield(self._claims.settle(entry.key, settled, holder=entry.holder))

    async def recorded(self, call: Call, waits: Iterable[float] = ()) -> None:
        """Wait until the outcome of a call is committed. Where it cannot be, the claim stays: a `JournalError`.

        Before that, it tries again after each of the `waits`, in seconds.
        """
        if (recording := self._recording.pop(call, None)) is None:
            return
        settled, done = recording
        for wait in waits:
            with suppress(JournalError):
                await asyncio.shield(done)
                return
            await asyncio.sleep(wait)
            done = self._settle(call, settled)
        await asyncio.shield(done)

    def _record(self, call: Call, settled: Settled) -> None:
        self._recording[call] = settled, self._settle(call, settled)

    def _settle(self, call: Call, settled: Settled) -> "asyncio.Future[None]":
        return self._claims.settle(call.key, settled, holder=self._holder)
