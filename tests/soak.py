"""The soak: many concurrent calls, some of them cancelled, against a service that breaks in all ways at random.

Run it as `nox -s soak`, or `python tests/soak.py [CALLS [SEED]]`; it ends by itself. The test suite runs a
smaller one.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter

import aiohttp
import attrs
from support.broken_service import BrokenService, Exchange

from suno_persona import CreatePersonaRequest, Persona, PersonaAPI, PersonaError, RetryPolicy

FAULTS = 0.2  # the share of requests that meet a fault
CANCELLED = 0.02  # the share of calls that are cancelled
TIMEOUT = aiohttp.ClientTimeout(total=2)
RETRY = RetryPolicy(attempts=50, wait_initial=0.01, wait_max=0.1)


class Chaos:
    """Serve most requests, and let the others meet a random fault."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.faults = Counter[str]()

    async def __call__(self, exchange: Exchange) -> None:
        if self._rng.random() >= FAULTS:
            await exchange.send(exchange.response())
            return
        # Hanging calls are rare, because each holds its slot for two seconds.
        fault = self._rng.choices(["reject", "fail", "cut off", "lie", "redirect", "hang"], [9, 4, 4, 3, 2, 0.2])[0]
        self.faults[fault] += 1
        match fault:
            case "reject":
                statuses = ["429 Slow\r\nRetry-After: 0", "429 Slow", "503 Busy", "400 No", "401 No"]
                await exchange.send(self._head(statuses))
            case "redirect":
                await exchange.send(self._head(["308 Moved\r\nLocation: /suno/persona/create"]))
            case _:
                await self._leave_open(exchange, fault)

    async def _leave_open(self, exchange: Exchange, fault: str) -> None:
        """Fail with an unknown outcome, whether or not the persona is created."""
        response = exchange.response() if self._rng.random() < 0.5 else self._head(["500 Oops"])
        match fault:
            case "fail":
                await exchange.send(self._head(["500 Oops", "502 Bad Gateway", "504 Timeout", "524 Timeout"]))
            case "cut off":
                await exchange.send(response[: self._rng.randrange(len(response))])
                exchange.reset() if self._rng.random() < 0.5 else exchange.close()
            case "lie":
                garbage = [b"220 ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<p/>"]
                await exchange.send(self._rng.choice(garbage))
                exchange.close()
            case _:
                await exchange.until_the_client_leaves()

    def _head(self, statuses: list[str]) -> bytes:
        """Return a complete response without a body, with one of these statuses."""
        return f"HTTP/1.1 {self._rng.choice(statuses)}\r\nContent-Length: 0\r\n\r\n".encode()


@attrs.frozen
class Report:
    """The results of a soak."""

    calls: int
    seconds: float
    requests: int
    faults: dict[str, int]
    outcomes: dict[str, int]
    created_twice: list[str]
    lost: list[str]
    tasks_left: int
    files_left: int
    peak_growth: int

    def check(self) -> None:
        """Fail if a promise was broken."""
        assert sum(self.outcomes.values()) == self.calls, "a call has no outcome"
        assert not self.created_twice, f"created twice: {self.created_twice}"
        assert not self.lost, f"personas in no outcome: {self.lost}"
        assert self.tasks_left == 0, f"{self.tasks_left} tasks are left"
        assert self.files_left == 0, f"{self.files_left} file descriptors are left"
        bound = 64 * 1024 * 1024 + 8 * 1024 * self.calls
        assert self.peak_growth < bound, f"memory grew by {self.peak_growth} bytes, more than {bound}"


def open_files() -> int:
    """Return the number of file descriptors that this process has open."""
    return len(os.listdir("/dev/fd"))


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    import resource  # Windows does not have it

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def soak(calls: int, seed: int) -> Report:
    """Start many calls at once, and account for their outcomes."""
    rng = random.Random(seed)
    chaos = Chaos(rng)
    tasks_before, files_before, peak_before = asyncio.all_tasks(), open_files(), peak()
    started = time.perf_counter()
    service = BrokenService(then=chaos)
    requests = [CreatePersonaRequest(root_clip_id="c", name=f"Voice {n}", description="D") for n in range(calls)]
    async with (
        # No call may hang: a call in flight ends within its timeout, whatever the service does.
        asyncio.timeout(240 + calls / 100),
        service,
        PersonaAPI("sk-0123456789", base_url=service.base_url, timeout=TIMEOUT, retry=RETRY) as api,
    ):
        tasks = [asyncio.create_task(api.create(request)) for request in requests]
        loop = asyncio.get_running_loop()
        for task in tasks:
            if rng.random() < CANCELLED:
                loop.call_later(rng.random() * calls / 3000, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    seconds = time.perf_counter() - started
    for _ in range(10):  # closed transports are removed within the next iterations of the loop
        await asyncio.sleep(0)
    spoken_for = {
        request.name
        for request, result in zip(requests, results, strict=True)
        if isinstance(result, Persona | asyncio.CancelledError)
        or (isinstance(result, PersonaError) and result.may_have_created)
    }
    made = Counter(service.personas)
    return Report(
        calls=calls,
        seconds=seconds,
        requests=len(service.requests),
        faults=dict(chaos.faults),
        outcomes=dict(Counter(type(result).__name__ for result in results)),
        created_twice=[name for name, times in made.items() if times > 1],
        lost=[name for name in made if name not in spoken_for],
        tasks_left=len(asyncio.all_tasks() - tasks_before),
        files_left=open_files() - files_before,
        peak_growth=peak() - peak_before,
    )


def main() -> None:
    """Run the soak and print its results."""
    arguments = [int(argument) for argument in sys.argv[1:]]
    report = asyncio.run(soak(*[*arguments, *(20_000, 1)[len(arguments) :]]))
    for field in attrs.fields(Report):
        print(f"{field.name:>14}: {getattr(report, field.name)}")
    report.check()
    print("nothing was created twice, and nothing is lost")


if __name__ == "__main__":
    main()
