"""What `create_many` costs: throughput compared with `asyncio.gather` and with a journal, and memory.

Run it as `python tests/benchmarks/create_many.py`. Every figure is a ratio, or a difference, of runs that alternate
within one invocation, against a service in its own process.

`python tests/benchmarks/create_many.py --instructions sqlite` prints the instructions of a call instead, counted by
callgrind; `postgresql` and `none` are the other journals.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from contenders import counted
from instructions import count
from support.databases import Databases, server

from suno_persona import CreatePersonaRequest, PersonaAPI
from suno_persona.journal import Journal

ROUNDS = {0.0: (15, 3000), 0.02: (15, 3000), 1.0: (3, 640)}
"""By the seconds until the service responds: how many rounds, and how many calls in a run."""

CHUNK = 1000  # calls in one `gather`
WARM_UP, COUNTED, AFTER = 300, 2000, 100  # of a batch whose instructions are counted


async def serve(seconds: float) -> None:
    """Respond to every request with the contract's example after a delay, until stdin closes."""
    loop = asyncio.get_running_loop()
    persona = Path(__file__).parents[1].joinpath("support", "contract_example.json").read_bytes()
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(persona), persona)

    class Service(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"}"):  # the body has arrived
                loop.call_later(seconds, self.transport.write, response)  # type: ignore[attr-defined]  # it is a stream's

    server = await loop.create_server(Service, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def requests(number: int) -> Iterator[CreatePersonaRequest]:
    """Yield this many different requests."""
    return (CreatePersonaRequest(root_clip_id="c", name=f"Voice {n}", description="D") for n in range(number))


async def gather(api: PersonaAPI, number: int) -> None:
    """Make the calls with `asyncio.gather`."""
    source = requests(number)
    while part := [*islice(source, CHUNK)]:
        await asyncio.gather(*map(api.create, part))


async def many(api: PersonaAPI, number: int, journal: Journal | None = None) -> None:
    """Make the calls with `create_many`."""
    async for outcome in api.create_many(requests(number), journal=journal):
        outcome.result()


async def throughput(url: str, databases: Databases, rounds: int, number: int) -> None:
    """Print the ratios of the times."""
    ways: dict[str, Callable[[PersonaAPI, str, str], Awaitable[None]]] = {
        "gather": lambda api, *_: gather(api, number),
        "create_many": lambda api, *_: many(api, number),
        "SQLite": lambda api, file, _: many(api, number, Journal(file)),
        "PostgreSQL": lambda api, _, database: many(api, number, Journal(database)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    async with PersonaAPI("sk-0123456789", base_url=url) as api:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder, databases.new() as database:
                for name, way in ways.items():
                    started = time.perf_counter()
                    await way(api, f"{folder}/personas.db", database)
                    seconds[name].append(time.perf_counter() - started)
    show("  create_many, times gather", seconds["gather"], seconds["create_many"])
    for name in ("SQLite", "PostgreSQL"):
        show(f"  create_many with the {name} journal, times without", seconds["create_many"], seconds[name])


def show(what: str, before: list[float], after: list[float]) -> None:
    """Print a median ratio with its quartiles."""
    low, middle, high = statistics.quantiles([one / other for one, other in zip(before, after, strict=True)], n=4)
    print(f"{what}: {middle:.2f} (quartiles {low:.2f} to {high:.2f})")


async def peak(url: str, number: int) -> None:
    """Print this process's peak memory, in kilobytes, after this many calls through a journal."""
    with tempfile.TemporaryDirectory() as folder:
        async with PersonaAPI("sk-0123456789", base_url=url) as api:
            await many(api, number, Journal(f"{folder}/personas.db"))
    if (status := Path("/proc/self/status")).exists():  # on Linux, `ru_maxrss` includes the peak of the parent process
        print(status.read_text().partition("VmHWM:")[2].split()[0])
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def memory(url: str) -> None:
    """Print how much more memory many calls take than few."""
    peaks = [
        int(subprocess.check_output([sys.executable, __file__, "peak", url, str(number)])) for number in (1000, 100_000)
    ]
    print(f"peak of 100,000 requests over that of 1,000: {(peaks[1] - peaks[0]) / 1024:.1f} MB (of {peaks[0] // 1024})")


def instructions(kind: str) -> float:
    """Return how many instructions a call costs with a journal of this kind, or none."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server() if kind == "postgresql" else nullcontext("") as postgres,
        Databases(postgres).new() if postgres else nullcontext(f"{folder}/personas.db") as journal,
        service(0) as url,
    ):
        (found,) = count(__file__, "counted", url, "" if kind == "none" else journal)
    return found / COUNTED


async def count_calls(url: str, journal: str) -> None:
    """Count the instructions of a part of a batch, before and after which as many calls are in flight."""
    async with PersonaAPI("sk-0123456789", base_url=url) as api:
        source = requests(WARM_UP + COUNTED + AFTER)
        outcomes = api.create_many(source, journal=Journal(journal) if journal else None)
        for _ in range(WARM_UP):
            (await anext(outcomes)).result()
        with counted():
            for _ in range(COUNTED):
                (await anext(outcomes)).result()
        async for outcome in outcomes:
            outcome.result()


def main() -> None:
    """Measure and print."""
    with server() as postgres:
        for seconds, (rounds, number) in ROUNDS.items():
            with service(seconds) as url:
                print(f"throughput with 32 in flight, the service responds after {seconds * 1000:.0f} ms:")
                asyncio.run(throughput(url, Databases(postgres), rounds, number))
    with service(0) as url:
        memory(url)


@contextmanager
def service(seconds: float) -> Iterator[str]:
    """Run the service in its own process, and yield its address."""
    command = [sys.executable, __file__, "serve", str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", after]:
            asyncio.run(serve(float(after)))
        case ["peak", address, number_of_calls]:
            asyncio.run(peak(address, int(number_of_calls)))
        case ["counted", address, journal_url]:
            asyncio.run(count_calls(address, journal_url))
        case ["--instructions", ("sqlite" | "postgresql" | "none") as kind]:
            print(f"journal {kind}: {instructions(kind) / 1e3:.1f} k instructions a call of create_many")
        case []:
            main()
        case _:
            sys.exit(__doc__)
