"""All measurements of a call, compared with the alternatives: `nox -s bench` writes `docs/benchmarks.md`."""

import os
import platform
import random
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from contenders import CONTENDERS
from create_many import instructions as count_of_journal
from instructions import CALLS, FEWER_CALLS, HERE, REPEATS, Samples, conversions, imports, ratios, spread, table
from instructions import calls as count_calls
from service import service

PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
CALLS_IN_TURN = 2000
ROUNDS = 5
CLIENTS = {
    "naive": "aiohttp as most people write it (naive)",
    "tuned": "aiohttp tuned by hand, with orjson",
    "suno_persona": "suno_persona",
    "suno_persona_64": "suno_persona with `max_connections=64`",
    "httpx": "httpx with pydantic models",
    "generated": "a generated SDK (openai's client), same models",
}
PACKAGES = ("aiohttp", "attrs", "cattrs", "msgspec", "orjson", "httpx", "pydantic", "openai")


def measure(name: str, url: str, mode: str, calls: int) -> tuple[float, float]:
    """Return the seconds of CPU time per call, and the bytes that a waiting one holds."""
    command = [sys.executable, str(HERE / "contenders.py"), name, url, mode, str(calls)]
    seconds, held = subprocess.check_output(command, text=True).split()
    return float(seconds), float(held)


def times(url: str) -> Samples:
    """Return the seconds of CPU time per call, by contender."""
    found: Samples = {name: [] for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name in random.sample(list(found), len(found)):
            found[name].append(measure(name, url, "flight", CALLS_IN_TURN)[0])
    return found


def gathered(url: str) -> tuple[Samples, Samples]:
    """Start all calls at once; return the bytes that a waiting one holds, and the CPU seconds by their number."""
    naive, ours, more = (
        [measure(name, url, "gathered", calls) for _ in range(ROUNDS)]
        for name, calls in (("naive", 10_000), ("suno_persona", 10_000), ("suno_persona", 100_000))
    )
    held = {"naive": [held for _, held in naive], "suno_persona": [held for _, held in ours]}
    return held, {"10,000": [cost for cost, _ in ours], "100,000": [cost for cost, _ in more]}


def journals() -> Samples:
    """Return the instructions of a call of `create_many` without and with each journal."""
    kinds = {"without a journal": "none", "with a journal in SQLite": "sqlite", "in PostgreSQL": "postgresql"}
    return {name: [count_of_journal(kind) for _ in range(REPEATS)] for name, kind in kinds.items()}


def named(found: Samples) -> Samples:
    """Return the samples by what the page calls the clients."""
    return {CLIENTS[name]: samples for name, samples in found.items()}


def than(counts: Samples, name: str) -> str:
    """Return how many instructions a call costs more than another contender's."""
    percent = round((ratios(counts["suno_persona"], counts[name])[1] - 1) * 100)
    return f"{abs(percent)}% {'more' if percent >= 0 else 'fewer'} instructions than"


def aim(what: str, most: float, found: list[float], base: list[float]) -> str:
    """Return the row of an aim and the measured value."""
    low, middle, high = ratios(found, base)
    met = ("yes" if middle <= most else "**no**") + (", within the spread" if low <= most <= high else "")
    return f"| {what} | at most {most:.2f} | {spread(low, middle, high)} | {met} |"


def main() -> None:
    """Measure, and write the page."""
    with service() as url:
        counts = count_calls(tuple(CONTENDERS), url)
        seconds = times(url)
        held, cost = gathered(url)
    converted, imported = conversions(), imports()
    (processor,) = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[:1] or "?"
    reading, reading_more, *_ = (list(ways.values()) for ways in converted.values())
    aims = (
        aim("a call, × naive aiohttp, 32 slots", 1.04, counts["suno_persona"], counts["naive"]),
        aim("a call, × naive aiohttp, 64 slots", 1.0, counts["suno_persona_64"], counts["naive"]),
        aim("`loads`, × `json.loads`", 1.2, reading[1], reading[0]),
        aim("`loads` with members that gateways add, × without", 1.2, reading_more[1], reading[1]),
        aim("importing, × aiohttp, attrs and cattrs", 1.1, *reversed(imported.values())),
        aim("memory of a waiting gathered call, × naive", 1.25, held["suno_persona"], held["naive"]),
        aim("CPU time of each of 100,000 gathered calls, × 10,000", 1.1, cost["100,000"], cost["10,000"]),
    )
    page = (
        (HERE / "benchmarks.template.md")
        .read_text(encoding="utf-8")
        .format(
            than_naive=than(counts, "naive"),
            than_tuned=than(counts, "tuned"),
            date=f"{date.today():%-d %B %Y}",
            calls=table("client", named(counts)),
            journals=table("`create_many`", journals()),
            number=CALLS,
            fewer=FEWER_CALLS,
            repeats=REPEATS,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            versions=", ".join(f"{package} {version(package)}" for package in PACKAGES),
            aims="\n".join(aims),
            times=table("client", named(seconds), "µs of CPU time", 1e-6),
            turn=CALLS_IN_TURN,
            rounds=ROUNDS,
            machine=f"{platform.system()} on {os.cpu_count()} cores of {processor}",
            conversions="\n\n".join(table(what, found) for what, found in converted.items()),
            imports=table("importing", imported, "million instructions", 1e6),
            memory=table("10,000 gathered calls", held, "KB for each that waits", 1024),
        )
    )
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
