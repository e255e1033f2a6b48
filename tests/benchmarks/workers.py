"""How the throughput of a fleet grows with its workers, against a service that responds after 200 ms.

Run it as `python tests/benchmarks/workers.py`. Fleets of one, two and four workers alternate; a worker has four
requests in flight. The rate is that of the outcomes in the journal, from the first to the last.
"""

import asyncio
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from create_many import requests
from service import service
from support.databases import Databases, server

from suno_persona.distributed import enqueue, make_app
from suno_persona.journal import Journal

LATENCY = 0.2  # seconds
IN_FLIGHT = 4  # as in tests/support/fleet.py
ROUNDS = 5
SECONDS = 8  # of work for each fleet, if the model is right


async def rate(url: str, base_url: str, workers: int) -> float:
    """Return the requests per second of this many workers on a new database."""
    app = make_app(url)
    env = os.environ | {"SUNO_JOURNAL_URL": url, "SUNO_BASE_URL": base_url, "SUNO_API_KEY": "sk-0123456789"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "procrastinate", "--app=support.fleet.app", "--log-level=error", "worker"]
    async with app.open_async(), Journal(url) as journal:
        await app.schema_manager.apply_schema_async()
        with ExitStack() as stack:
            for _ in range(workers):
                worker = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - nothing waits
                process = stack.enter_context(worker)
                stack.callback(process.terminate)
            count = "SELECT count(*) AS workers FROM procrastinate_workers"
            while (await app.connector.execute_query_one_async(count))["workers"] < workers:
                await asyncio.sleep(0.1)
            await enqueue(app, requests(round(workers * IN_FLIGHT / LATENCY * SECONDS)))
            times = [entry.settled_at async for entry in journal.settled() if entry.settled_at]
    return (len(times) - 1) / (max(times) - min(times)).total_seconds()


def main() -> None:
    """Measure and print."""
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    with service(LATENCY) as base_url, server() as postgres:
        for _ in range(ROUNDS):
            for workers, found in rates.items():
                with Databases(postgres).new() as url:
                    found.append(asyncio.run(rate(url, base_url, workers)))
    for workers, found in rates.items():
        ratio = statistics.median(map(float.__truediv__, found, rates[1]))
        print(f"{workers} workers: {statistics.median(found):.1f} requests/s, {ratio:.2f} times one")


if __name__ == "__main__":
    main()
