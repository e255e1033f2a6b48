"""The simulated service, and the transport to it."""

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from multidict import CIMultiDict
from yarl import URL

from simulation.invariants import Attempt, named
from suno_persona._response import Exchange
from suno_persona.journal._states import Binding

if TYPE_CHECKING:
    from simulation.world import World

_URL = URL("https://gateway.example/suno/persona/create/")
_NONE: CIMultiDict[str] = CIMultiDict()
_SOON: CIMultiDict[str] = CIMultiDict({"Retry-After": "1"})
_LATE: CIMultiDict[str] = CIMultiDict({"Retry-After": "1000"})

# The faults, each with its weight.
_FAULTS = {
    "rejected": 3,
    "rate limited": 2,
    "rate limited for long": 1,
    "unavailable": 2,
    "error in a 200": 1,
    "no connection": 3,
    "lost before it arrived": 2,
    "lost after it arrived": 2,
    "failed": 2,
    "failed after it created": 2,
    "times out": 3,
    "cut": 1,
    "unreadable": 1,
}
_NAMES, _WEIGHTS = list(_FAULTS), list(_FAULTS.values())
_REFUSALS = {
    "rejected": (400, _NONE, b"{}"),
    "rate limited": (429, _SOON, b"{}"),
    "rate limited for long": (429, _LATE, b"{}"),
    "unavailable": (503, _NONE, b"{}"),
    "error in a 200": (200, _NONE, b'{"code": 400, "error": {"message": "no"}}'),
    "failed": (500, _NONE, b"{}"),
}


def no_response(ending: Literal["lost", "timeout"], *, sent: bool = True) -> Exchange:
    """Return an exchange that ended without a response."""
    ended = Exchange(_URL)
    ended.sent, ended.ending, ended.reason = sent, ending, f"it is {ending}"
    return ended


def response(status: int, headers: CIMultiDict[str], body: bytes) -> Exchange:
    """Return an exchange that ended with a response."""
    ended = Exchange(_URL)
    ended.sent = ended.is_whole = True
    ended.status, ended.headers, ended.received = status, headers, body
    return ended


def send(world: "World", binding: Binding, *, may_repeat: bool) -> "asyncio.Future[Exchange]":
    """Send one request of the running process, and return a future of what is known of it at its end."""
    process = world.running
    task: Any = asyncio.current_task()
    key = process.keys.get(task)
    attempt = world.checks.sending(process, key, may_repeat=may_repeat)
    if binding not in world.store.bindings:
        world.checks.fail(f"{process} sends to {binding}, and the journal belongs to {world.store.binding}")
    ended: asyncio.Future[Exchange] = process.loop.create_future()
    fault = "none"
    if world.faults and world.random() < world.faults:
        (fault,) = world.rng.choices(_NAMES, _WEIGHTS)
    world.note(process, "sends {}, fault: {}", named(str(key)), fault)
    process.ambushed()
    _InFlight(world, str(key), attempt, ended, fault).begin()
    return ended


class _InFlight:
    """One request in flight, and its response."""

    def __init__(
        self, world: "World", key: str, attempt: Attempt, ended: "asyncio.Future[Exchange]", fault: str
    ) -> None:
        self._world = world
        self._key = key
        self._attempt = attempt
        self._ended = ended
        self._fault = fault

    def begin(self) -> None:
        actions = self._world.actions
        match self._fault:
            case "no connection":
                actions.append(self._fail_to_connect)
            case "lost before it arrived":
                actions.append(self._lose)
            case "times out":  # on either side first: both orders are possible
                actions.append(self._arrive)
                actions.append(self._time_out)
            case _:
                actions.append(self._arrive)

    def _arrive(self) -> None:
        world, attempt, fault = self._world, self._attempt, self._fault
        if (self._ended.cancelled() or not attempt.process.is_alive) and world.random() < 0.5:
            attempt.is_over = True  # its connection was closed before the service read it
            return
        attempt.is_over = True
        if fault in _REFUSALS:
            world.actions.append(self._respond)
            return
        attempt.persona_id = f"p{world.steps}"
        world.note("service", "creates {} for {}", attempt.persona_id, named(self._key))
        world.checks.recorded(self._key, world.store.records.get(self._key))
        if fault == "lost after it arrived":
            world.actions.append(self._lose)
        elif fault != "times out":
            world.actions.append(self._respond)

    def _respond(self) -> None:
        self._world.note("service", "responds to {}'s {}", self._attempt.process, named(self._key))
        refusal = _REFUSALS.get(self._fault)
        if refusal is not None:
            self._end(response(*refusal), is_refused=self._fault != "failed")
            return
        body = b"<html>" if self._fault == "unreadable" else b'{"id":"%b"}' % str(self._attempt.persona_id).encode()
        whole = response(500 if self._fault == "failed after it created" else 200, _NONE, body)
        if self._fault == "cut":
            whole.received, whole.is_whole, whole.ending, whole.reason = body[:-1], False, "lost", "it is cut"
        self._end(whole)

    def _fail_to_connect(self) -> None:
        self._attempt.is_over = True
        self._end(no_response("lost", sent=False), is_refused=True)

    def _lose(self) -> None:
        self._attempt.is_over = True
        self._end(no_response("lost"))

    def _time_out(self) -> None:
        self._end(no_response("timeout"))

    def _end(self, ended: Exchange, *, is_refused: bool = False) -> None:
        if not self._ended.done() and self._attempt.process.is_alive:
            self._attempt.is_refused = is_refused
            self._ended.set_result(ended)
