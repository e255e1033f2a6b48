"""The soak: many concurrent calls, some of them cancelled, against a service that breaks in all ways at random.

Run it as `nox -s soak`, or `python tests/soak.py [CALLS [SEED]]`; it ends by itself. The test suite runs a
smaller one.
"""

import asyncio
import os
import random
import sys
from collections import Counter

import aiohttp
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

    async def __call__(self, exchange: Exchange) -> None:
        if self._rng.random() >= FAULTS:
            await exchange.send(exchange.response())
            return
        # Hanging calls are rare, because each holds its slot for two seconds.
        fault = self._rng.choices(["reject", "fail", "cut off", "lie", "redirect", "hang"], [9, 4, 4, 3, 2, 0.2])[0]
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


def open_files() -> int:
    """Return the number of file descriptors that this process has open."""
    return len(os.listdir("/dev/fd"))


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    import resource  # Windows does not have it

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def soak(calls: int, seed: int) -> Counter[str]:
    """Start many calls at once, account for every persona, and return how often each outcome occurred."""
    rng = random.Random(seed)
    tasks_before, files_before, peak_before = asyncio.all_tasks(), open_files(), peak()
    service = BrokenService(then=Chaos(rng))
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
    for _ in range(10):  # closed transports are removed within the next iterations of the loop
        await asyncio.sleep(0)
    spoken_for = {
        request.name
        for request, result in zip(requests, results, strict=True)
        if isinstance(result, Persona | asyncio.CancelledError)
        or (isinstance(result, PersonaError) and result.may_have_created)
    }
    assert len(service.personas) == len(set(service.personas)), "a persona was created twice"
    assert set(service.personas) <= spoken_for, "a persona is in no outcome"
    assert asyncio.all_tasks() <= tasks_before, "a task is left"
    assert open_files() <= files_before, "a file descriptor is left"
    assert peak() - peak_before < 64 * 1024 * 1024 + 8 * 1024 * calls, "memory grew"
    return Counter(type(result).__name__ for result in results)


def main(calls: str = "20000", seed: str = "1") -> None:
    """Run the soak and print how often each outcome occurred."""
    print(dict(asyncio.run(soak(int(calls), int(seed)))))
    print("nothing was created twice, and nothing is lost")


if __name__ == "__main__":
    main(*sys.argv[1:])
