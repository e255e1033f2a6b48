"""What `create_many` costs, with and without a journal: `python tests/benchmarks/create_many.py WHAT`.

`throughput` compares it with `asyncio.gather`, in runs that alternate; `memory` compares many requests with few;
`sqlite`, `postgresql` and `none` count the instructions of a call with this journal.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from contenders import KEY, counted
from instructions import count
from service import service
from support.databases import Databases, server

from suno_persona import CreatePersonaRequest, PersonaAPI
from suno_persona.journal import Journal

ROUNDS = {0.0: (15, 3000), 0.02: (15, 3000), 1.0: (3, 640)}
"""By the seconds until the service responds: how many rounds, and how many calls in a run."""

WARM_UP, COUNTED, AFTER = 300, 2000, 100  # of a batch whose instructions are counted


def requests(number: int) -> Iterator[CreatePersonaRequest]:
    """Yield this many different requests."""
    return (CreatePersonaRequest(root_clip_id="c", name=f"Voice {n}", description="D") for n in range(number))


async def many(api: PersonaAPI, number: int, journal: Journal | None = None) -> None:
    """Make the calls with `create_many`."""
    async for outcome in api.create_many(requests(number), journal=journal):
        outcome.result()


async def throughput(url: str, databases: Databases, rounds: int, number: int) -> None:
    """Print the ratios of the times."""
    ways: dict[str, Callable[[PersonaAPI, str, str], Awaitable[object]]] = {
        "gather": lambda api, *_: asyncio.gather(*map(api.create, requests(number))),
        "create_many": lambda api, *_: many(api, number),
        "SQLite": lambda api, file, _: many(api, number, Journal(file)),
        "PostgreSQL": lambda api, _, database: many(api, number, Journal(database)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    async with PersonaAPI(KEY, base_url=url) as api:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder, databases.new() as database:
                for name, way in ways.items():
                    started = time.perf_counter()
                    await way(api, f"{folder}/personas.db", database)
                    seconds[name].append(time.perf_counter() - started)
    for name, base in (("create_many", "gather"), ("SQLite", "create_many"), ("PostgreSQL", "create_many")):
        low, middle, high = statistics.quantiles(map(float.__truediv__, seconds[name], seconds[base]), n=4)
        print(f"  {name}, times {base}: {middle:.2f} (quartiles {low:.2f} to {high:.2f})")


def memory(url: str) -> None:
    """Print how much more memory many calls through a journal take than few."""
    command = [sys.executable, __file__, "peak", url]
    few, more = (int(subprocess.check_output([*command, number])) for number in ("1000", "100000"))
    print(f"peak of 100,000 requests over that of 1,000: {(more - few) / 1024:.1f} MB (of {few // 1024})")


async def peak(url: str, number: int) -> None:
    """Print this process's peak memory, in kilobytes, after this many calls through a journal."""
    with tempfile.TemporaryDirectory() as folder:
        async with PersonaAPI(KEY, base_url=url) as api:
            await many(api, number, Journal(f"{folder}/personas.db"))
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])  # `ru_maxrss` includes the parent's


def instructions(kind: str) -> float:
    """Return how many instructions a call costs with a journal of this kind, or none."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server() if kind == "postgresql" else nullcontext("") as postgres,
        Databases(postgres).new() if postgres else nullcontext(f"{folder}/personas.db") as journal,
        service() as url,
    ):
        (found,) = count(__file__, "counted", url, "" if kind == "none" else journal)
    return found / COUNTED


async def count_calls(url: str, journal: str) -> None:
    """Count the instructions of a part of a batch, before and after which as many calls are in flight."""
    async with PersonaAPI(KEY, base_url=url) as api:
        source = requests(WARM_UP + COUNTED + AFTER)
        outcomes = api.create_many(source, journal=Journal(journal) if journal else None)
        for _ in range(WARM_UP):
            (await anext(outcomes)).result()
        with counted():
            for _ in range(COUNTED):
                (await anext(outcomes)).result()
        async for outcome in outcomes:
            outcome.result()


def main(*what: str) -> None:
    """Measure and print."""
    match what:
        case ["throughput"]:
            for seconds, (rounds, number) in ROUNDS.items():
                print(f"throughput with 32 in flight, the service responds after {seconds * 1000:.0f} ms:")
                with server() as postgres, service(seconds) as url:
                    asyncio.run(throughput(url, Databases(postgres), rounds, number))
        case ["memory"]:
            with service() as url:
                memory(url)
        case ["sqlite" | "postgresql" | "none" as kind]:
            print(f"journal {kind}: {instructions(kind) / 1e3:.1f} k instructions a call of create_many")
        case ["peak", url, calls]:
            asyncio.run(peak(url, int(calls)))
        case ["counted", url, journal]:
            asyncio.run(count_calls(url, journal))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
