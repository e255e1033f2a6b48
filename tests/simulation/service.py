"""The simulated service and the network to it: replaces `_transport.post`."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict

from simulation.invariants import Attempt, named
from suno_persona._response import Response
from suno_persona.errors import ConnectionFailedError, ConnectionLostError, ResponseTimeoutError
from suno_persona.journal._states import Account

if TYPE_CHECKING:
    from simulation.world import World

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


async def exchange(world: "World", account: Account, *, may_repeat: bool) -> Response:
    """Send one request of the running process, and return its response."""
    process = world.running
    task: Any = asyncio.current_task()
    key = process.keys.get(task)
    attempt = world.checks.sending(process, key, may_repeat=may_repeat)
    if account not in world.store.accounts:
        world.checks.fail(f"{process} sends to {account}, and the journal belongs to {world.store.account}")
    response = process.loop.create_future()
    fault = "none"
    if world.faults and world.random() < world.faults:
        (fault,) = world.rng.choices(_NAMES, _WEIGHTS)
    world.note(process, "sends {}, fault: {}", named(str(key)), fault)
    process.ambushed()
    _Exchange(world, str(key), attempt, response, fault).begin()
    result: Response = await response
    return result


class _Exchange:
    """One request in flight, and its response."""

    def __init__(
        self, world: "World", key: str, attempt: Attempt, response: "asyncio.Future[Response]", fault: str
    ) -> None:
        self._world = world
        self._key = key
        self._attempt = attempt
        self._response = response
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
        if (self._response.cancelled() or not attempt.process.is_alive) and world.random() < 0.5:
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
            status, headers, body = refusal
            if self._fault != "failed":
                self._end(lambda: self._response.set_result(Response(status=status, headers=headers, body=body)), True)
                return
            response = Response(status=status, headers=headers, body=body)
        else:
            response = Response(status=200, headers=_NONE, body=b'{"id":"%s"}' % str(self._attempt.persona_id).encode())
            if self._fault == "failed after it created":
                response.status = 500
            elif self._fault == "cut":
                response.flaw = ConnectionLostError(message="it is cut")
            elif self._fault == "unreadable":
                response.body = b"<html>"
        self._end(lambda: self._response.set_result(response))

    def _fail_to_connect(self) -> None:
        self._attempt.is_over = True
        self._end(lambda: self._response.set_exception(ConnectionFailedError(message="no connection")), True)

    def _lose(self) -> None:
        self._attempt.is_over = True
        self._end(lambda: self._response.set_exception(ConnectionLostError(message="it is lost")))

    def _time_out(self) -> None:
        self._end(lambda: self._response.set_exception(ResponseTimeoutError(message="it takes too long")))

    def _end(self, deliver: Callable[[], None], is_refused: bool = False) -> None:
        if not self._response.done() and self._attempt.process.is_alive:
            self._attempt.is_refused = is_refused
            deliver()
