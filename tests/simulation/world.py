"""The simulated world: true time, what may happen next, and the processes. One seed decides everything."""

import bisect
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

from simulation.invariants import Checks, Violation
from simulation.loop import Loop
from simulation.store import Store
from suno_persona import JournalError
from suno_persona.journal import _RollBack

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TICK = 0.001  # seconds between two steps
MOST_STEPS = 5000
_PATIENCE = 3600.0  # seconds with nothing to do but timers


class World:
    """Everything that happens, step by step."""

    def __init__(self, seed: int, *, recording: bool = False) -> None:
        self.seed = seed
        self.history: list[str] | None = [] if recording else None
        self.rng = random.Random(seed)
        self.random = self.rng.random
        self.now = 0.0
        self.steps = 0
        self.actions: list[Callable[[], object]] = []
        """What may happen outside the processes: a transaction, the arrival of a request, a response."""
        self.plan: list[tuple[int, int, Callable[[], object]]] = []
        """What is to happen at a step, in reverse order."""
        self._number = 0
        self.processes: list[Process] = []
        self.timers: list[tuple[float, int, Callable[[], object]]] = []
        self.faults = 0.0
        """The share of requests that meet a fault."""
        self.clocks_agree = True
        self.meddle: Callable[[Process], object] | None = None
        """Called when a process may not claim a request that another one has claimed."""
        self.running: Process
        self.checks = Checks(self)
        self.store = Store(self)

    def note(self, actor: object, text: str, *details: object) -> None:
        """Add a line to the history."""
        if self.history is not None:
            self.history.append(f"{self.steps:4} {self.now:9.3f}  {actor}: {text.format(*details)}")

    def at(self, when: float, function: Callable[[], object]) -> None:
        """Schedule a function for this time."""
        self._number += 1
        heapq.heappush(self.timers, (when, self._number, function))

    def later(self, steps: int, function: Callable[[], object]) -> None:
        """Plan a function for this many steps from now; it may run earlier if nothing else can happen."""
        self._number += 1
        bisect.insort(self.plan, (-self.steps - steps, -self._number, function))

    def run(self) -> None:
        """Take steps in a random order until nothing more can happen. Raises `Violation`."""
        while self._step():
            if self.checks.violation is not None:
                raise Violation(self.checks.violation)
            if self.steps > MOST_STEPS:
                raise Violation(f"it does not end within {MOST_STEPS} steps")

    def _step(self) -> bool:
        self.steps += 1
        self.now += TICK
        plan, timers, actions = self.plan, self.timers, self.actions
        if plan and -plan[-1][0] <= self.steps:
            plan.pop()[2]()
            return True
        if timers and (timers[0][0] <= self.now or self.random() < 0.01):
            when, _, function = heapq.heappop(timers)
            self.now = max(self.now, when)
            function()
            return True
        runnable = [process for process in self.processes if process.loop.ready and not process.is_stalled]
        count = len(runnable) + len(actions)
        if count:
            chosen = int(self.random() * count) - len(runnable)
            if chosen < 0:
                runnable[chosen].turn()
            else:
                actions[chosen], actions[-1] = actions[-1], actions[chosen]
                actions.pop()()
            return True
        return self._wait()

    def _wait(self) -> bool:
        if self.timers:
            when, _, function = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            function()
        elif self.plan:
            self.plan.pop()[2]()
        else:
            self.checks.ended()
            return False
        return True


class Process:
    """One operating system process: its event loop, its clock, and its journal's thread."""

    def __init__(self, world: World, name: str, *, ahead: float = 0.0) -> None:
        self.world = world
        self.name = name
        self.ahead = ahead
        """How many seconds its clock is ahead of true time."""
        self.loop = Loop(world)  # type: ignore[abstract]  # it has what is used
        self.is_alive = True
        self.succeeded = False
        self.is_stalled = False
        self.silent_since: float | None = None
        """When it stopped sending heartbeats."""
        self.keys: dict[Any, str] = {}
        """The key of the request that each task has claimed."""
        self.ambush: list[Callable[[], object]] = []
        """What is to happen soon after it next claims or sends something."""
        self.main: Any = None
        self._jobs: deque[tuple[Callable[[], Any], Any]] = deque()
        self._done: deque[tuple[Any, object, BaseException | None]] = deque()
        world.processes.append(self)

    def __str__(self) -> str:
        return self.name

    def start(self, main: Coroutine[Any, Any, None]) -> None:
        """Start to run."""
        self.world.note(self, "starts")
        self.main = self.loop.create_task(main)

    def turn(self) -> None:
        """Run some of the ready callbacks: mostly all of them."""
        world = self.world
        world.running = self
        self.loop.turn(1000 if world.random() < 0.7 else 1 + int(4 * world.random()))
        if self.loop.errors:
            world.checks.fail(f"{self}: a callback raised {self.loop.errors[0]!r}")
        if self.main.done():
            self._ended()

    def wall_clock(self) -> datetime:
        """Return the time of its clock."""
        return EPOCH + timedelta(seconds=self.world.now + self.ahead)

    def ambushed(self) -> None:
        """Schedule what was planned for its next claim or request."""
        for surprise in self.ambush:
            self.world.later(int(10 * self.world.random()), surprise)
        self.ambush.clear()

    def crash(self) -> None:
        """End at once. A transaction that has begun may still be committed."""
        self.world.note(self, "crashes")
        self._leave()
        if self._jobs:
            head = self._jobs[0]
            self._jobs.clear()
            if self.world.random() < 0.5:
                self._jobs.append(head)

    def stall(self, seconds: float) -> None:
        """Do nothing for a while, like a machine that swaps or sleeps."""
        self.world.note(self, "stalls for {:.0f} s", seconds)
        self.is_stalled = True
        self.silent_since = self.world.now
        self.world.at(self.world.now + seconds, self.wake)

    def wake(self) -> None:
        """Resume, and send heartbeats again."""
        if self.is_alive and self.is_stalled:
            self.world.note(self, "wakes")
            self.silent_since = None
        self.is_stalled = False

    def _ended(self) -> None:
        self._leave()
        error = None if self.main.cancelled() else self.main.exception()
        self.succeeded = error is None and not self.main.cancelled()
        self.world.note(self, "ends{}", "" if error is None else f" with {error!r}")
        self.world.checks.process_ended(self, error)

    def _leave(self) -> None:
        self.is_alive = False
        self.silent_since = self.silent_since or self.world.now
        self.world.processes.remove(self)
        self.loop.kill()

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        """Call a function in the journal's thread, after all earlier calls."""
        future: Future[Any] = Future()
        self._jobs.append((function, future))
        if len(self._jobs) == 1:
            self.world.actions.append(self._work)
        return future

    def _work(self) -> None:
        """Make the journal's thread do the next call."""
        if not self._jobs:
            return
        function, future = self._jobs[0]
        self.world.running = self
        if not future.set_running_or_notify_cancel():
            self._jobs.popleft()
            if self._jobs:
                self.world.actions.append(self._work)
            return
        try:
            self._done.append((future, function(), None))
        except Exception as error:
            if not isinstance(error, JournalError | _RollBack):
                self.world.checks.fail(f"{self}: its transaction raised {error!r}")
            self._done.append((future, None, error))
        self._jobs.popleft()
        self.world.actions.append(self._complete)
        if self._jobs:
            self.world.actions.append(self._work)

    def _complete(self) -> None:
        future, result, error = self._done.popleft()
        if not self.is_alive:
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
