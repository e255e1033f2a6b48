"""All measurements of a call, compared with the alternatives: writes `docs/benchmarks.md` and its plot.

Run it as `nox -s bench`. All contenders alternate in one run. A figure is a median; a ratio is the median of the ratios
within a round of short measurements, with its quartiles.
"""

import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any, Self

import matplotlib as mpl
from contenders import CONTENDERS, IN_FLIGHT, REQUEST
from import_time import ratio as import_ratio
from nginx import EXAMPLE, nginx
from nginx import version as nginx_version
from parts import parts, time_of

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
CALLS = 10_000
TURN = 500  # calls
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
LOOPS = ("asyncio", "uvloop")
NAMES = {
    "naive": "aiohttp as most people write it",
    "tuned": "aiohttp, tuned by hand, with orjson",
    "suno_persona": "suno_persona",
    "httpx": "httpx with pydantic models",
    "generated": "a generated SDK (openai's client), same models",
}
PACKAGES = (
    *("aiohttp", "multidict", "yarl", "attrs", "cattrs", "msgspec", "orjson", "uvloop"),
    *("httpx", "pydantic", "openai", "httpx2"),
)

ADDED = "`suno_persona.loads`, with members that gateways add"

Samples = dict[str, list[float]]


class Contender:
    """A contender in its own process, which measures on request."""

    def __init__(self, name: str, loop: str, url: str) -> None:
        command = [sys.executable, str(HERE / "contenders.py"), name, loop, url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, mode: str, calls: int) -> Any:
        """Return the cost of this many calls."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(mode, calls, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends when its input ends


def calls(url: str) -> dict[str, Samples]:
    """Return the seconds of CPU time per call, by loop and contender.

    Each measurement is short, because the speed of the machine changes.
    """
    found: dict[str, Samples] = {loop: {name: [] for name in CONTENDERS} for loop in LOOPS}
    for loop in LOOPS * ROUNDS:
        with ExitStack() as stack:
            running = {name: stack.enter_context(Contender(name, loop, url)) for name in CONTENDERS}
            for _ in range(CALLS // TURN):
                for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
                    found[loop][name].append(running[name].measure("flight", TURN))
    return found


def gathered(url: str) -> tuple[Samples, Samples]:
    """Start all calls at once; return the bytes that a waiting one holds, and the CPU seconds by their number."""
    held: Samples = {"naive": [], "suno_persona": []}
    cost: Samples = {"10,000": [], "100,000": []}
    for _ in range(ROUNDS):
        for name, bytes_of in held.items():
            with Contender(name, "asyncio", url) as contender:
                bytes_of.append(contender.measure("gathered", 10_000)[1])
    for _ in range(ROUNDS):
        with (
            Contender("suno_persona", "asyncio", url) as few,
            Contender("suno_persona", "asyncio", url) as many,
        ):
            before = [few.measure("gathered", 10_000)[0] for _ in range(5)]
            cost["100,000"].append(many.measure("gathered", 100_000)[0])
            after = [few.measure("gathered", 10_000)[0] for _ in range(5)]
            cost["10,000"].append(statistics.mean(before + after))
    return held, cost


def conversions() -> tuple[Samples, Samples, Samples]:
    """Return the seconds for reading the contract's example, for writing it, and for building a request."""
    import cattrs.preconf.json
    import msgspec
    from pydantic_models import Persona as PydanticPersona

    from suno_persona import CreatePersonaRequest, Persona, dumps, loads

    data = EXAMPLE.read_bytes()
    stock = cattrs.preconf.json.make_converter()
    persona, document, pydantic = loads(data), json.loads(data), PydanticPersona.model_validate_json(data)
    typed = msgspec.json.Decoder(Persona)
    added = with_added_members(document)
    reading: dict[str, Callable[[], object]] = {
        "`json.loads`, a dict": lambda: json.loads(data),
        "`suno_persona.loads`": lambda: loads(data),
        ADDED: lambda: loads(added),
        "cattrs' stock JSON converter": lambda: stock.loads(data, Persona),
        "msgspec straight to attrs": lambda: typed.decode(data),
        "pydantic's `model_validate_json`": lambda: PydanticPersona.model_validate_json(data),
    }
    writing: dict[str, Callable[[], object]] = {
        "`json.dumps` of a dict": lambda: json.dumps(document),
        "`suno_persona.dumps`": lambda: dumps(persona),
        "cattrs' stock JSON converter": lambda: stock.dumps(persona),
        "msgspec straight from attrs": lambda: msgspec.json.encode(persona),
        "pydantic's `model_dump_json`": lambda: pydantic.model_dump_json(),
    }
    building: dict[str, Callable[[], object]] = {
        "a dict": lambda: dict(REQUEST),
        "`CreatePersonaRequest`, checked": lambda: CreatePersonaRequest(**REQUEST),  # type: ignore[arg-type]  # of both
    }
    return timed(reading), timed(writing), timed(building)


def with_added_members(example: dict[str, Any]) -> bytes:
    """Return the contract's example with the members that CometAPI and DeerAPI document."""
    metadata = {**example["clip"]["metadata"], "can_remix": True, "is_remix": False, "priority": 10}
    added = {"entity_type": "song_schema", "flag_count": 0, "display_tags": "electronic pop", "allow_comments": True}
    clip = {**example["clip"], **added, "metadata": metadata}
    persona = {**example, "image_s3_id": f"image_{clip['id']}", "clip": clip, "persona_clips": [{"clip": clip}]}
    return json.dumps(persona, indent=4).encode()


def timed(ways: dict[str, Callable[[], object]]) -> Samples:
    """Return the seconds of each, measured alternately."""
    found: Samples = {name: [] for name in ways}
    for _ in range(60):
        for name, way in ways.items():
            found[name].append(time_of(way))
    return found


def imports() -> Samples:
    """Return the seconds for importing each package, in new processes that alternate."""
    found: Samples = {"aiohttp": [], "suno_persona": [], "httpx": [], "openai": []}
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(12):
        for name, seconds in found.items():
            command = [sys.executable, "-X", "importtime", "-c", f"import {name}"]
            report = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr
            seconds.append(int(re.findall(rf"\| +(\d+) \| {name}\n", report)[-1]) / 1e6)
    return found


def ratios(found: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the low quartile, median and high quartile of the ratios within the rounds."""
    return statistics.quantiles([one / other for one, other in zip(found, base, strict=True)], n=4)


def shown(found: Sequence[float], base: Sequence[float]) -> str:
    """Return a ratio with its quartiles as text."""
    low, middle, high = ratios(found, base)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def micro(seconds: Sequence[float]) -> str:
    """Return a median in microseconds as text."""
    return f"{statistics.median(seconds) * 1e6:.1f}"


def compared(found: Samples, what: str) -> str:
    """Return a table that compares each way with the first one."""
    base = next(iter(found.values()))
    rows = [[name, micro(seconds), shown(seconds, base)] for name, seconds in found.items()]
    return table(f"{what} | µs | times the first (quartiles)", rows)


def plot(found: dict[str, Samples]) -> None:
    """Draw CPU time per call, by contender and loop; legible on a light and on a dark background."""
    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "suno_persona", "svg.fonttype": "none", "font.size": 12}
    from matplotlib import pyplot

    ink = "#7a7f87"
    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    for offset, (loop, colour) in enumerate(zip(LOOPS, ("#3b82c4", "#e08a3c"), strict=True)):
        widths = [statistics.median(found[loop][name]) * 1e6 for name in NAMES]
        bars = axes.barh([row + offset * 0.4 for row in range(len(NAMES))], widths, 0.38, color=colour, label=loop)
        axes.bar_label(bars, fmt="%.0f", padding=3, color=ink)
    axes.set_yticks([row + 0.2 for row in range(len(NAMES))], [fill(words, 20) for words in NAMES.values()])
    axes.margins(x=0.15)  # room for the numbers
    axes.invert_yaxis()
    axes.set_xlabel("client CPU time for a call, µs")
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.legend(frameon=False, labelcolor=ink, loc="outside upper right", ncols=len(LOOPS))
    figure.savefig(
        DOCS / "benchmarks.svg", transparent=True, metadata={"Date": None, "Title": "Client CPU time for a call"}
    )


def bars(
    found: dict[str, Samples], held: Samples, cost: Samples, reading: Samples, importing: Sequence[float]
) -> list[list[str]]:
    """Return each aim with the measured value."""
    rows: list[list[str]] = []

    def row(what: str, aim: float, quartiles: Sequence[float], *, at_least: bool = False) -> None:
        is_met = quartiles[1] >= aim if at_least else quartiles[1] <= aim
        is_clear = not quartiles[0] <= aim <= quartiles[2]
        sign = "at least" if at_least else "at most"
        spread = f"{quartiles[1]:.2f} ({quartiles[0]:.2f} to {quartiles[2]:.2f})"
        rows.append(
            [
                what,
                f"{sign} {aim:.2f}",
                spread,
                f"{'yes' if is_met else '**no**'}{'' if is_clear else ', within the spread'}",
            ]
        )

    for loop in LOOPS:
        ours = found[loop]["suno_persona"]
        row(f"a call, times naive aiohttp, {loop}", 1.0, ratios(ours, found[loop]["naive"]))
        row(f"a call, times tuned aiohttp, {loop}", 1.15, ratios(ours, found[loop]["tuned"]))
        row(f"a generated SDK, times us, {loop}", 8, ratios(found[loop]["generated"], ours), at_least=True)
        row(f"httpx with pydantic, times us, {loop}", 5, ratios(found[loop]["httpx"], ours), at_least=True)
    decoded = list(reading.values())
    row("`loads`, times `json.loads`", 2.0, ratios(decoded[1], decoded[0]))
    row("`loads` with members that gateways add, times without", 1.2, ratios(reading[ADDED], decoded[1]))
    row("import, times aiohttp, attrs and cattrs", 1.1, statistics.quantiles(importing, n=4))
    row("memory of a waiting gathered call, times naive", 1.25, ratios(held["suno_persona"], held["naive"]))
    row("CPU for each of 100,000 gathered calls, times 10,000", 1.1, ratios(cost["100,000"], cost["10,000"]))
    return rows


def _difference(found: dict[str, Samples]) -> dict[str, str]:
    """Return what the package adds to tuned aiohttp: part by part, and measured in calls."""
    part = {name: statistics.median(seconds) * 1e6 for name, seconds in parts(60).items()}
    ours_and_tuned = {
        "building, checking and writing the request": (part["build"] + part["write"], part["orjson.dumps"]),
        "reading the response: five typed objects instead of a dict": (part["read"], part["orjson.loads"]),
        "slots, cool-down, the attempt and its log": (part["call"] - part["write"] - part["read"], 0.0),
        "waiting for a slot, with 64 calls and 32 slots": (part["waiting"], 0.0),
    }
    both = zip(*ours_and_tuned.values(), strict=True)
    rows = [*ours_and_tuned.items(), ("together", tuple(map(sum, both)))]
    more = [
        f"{(statistics.median(one['suno_persona']) - statistics.median(one['tuned'])) * 1e6:.0f} µs with {loop}"
        for loop, one in found.items()
    ]
    return {
        "parts": table(
            "µs of a call | suno_persona | tuned", [[name, *(f"{cell:.1f}" for cell in two)] for name, two in rows]
        ),
        "more": " and ".join(more),
    }


def _processor() -> str:
    """Return the name of the processor, as Linux reports it."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.machine()


def main() -> None:
    """Measure, and write the page."""
    if ROUNDS < 2:
        sys.exit(f"BENCH_ROUNDS: expected at least 2, for a spread, found {ROUNDS}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that nginx stops
    with nginx() as url:
        found = calls(url)
        held, cost = gathered(url)
    reading, writing, building = conversions()
    importing = [import_ratio() for _ in range(20)]
    imported = imports()
    call_rows = []
    for name, words in NAMES.items():
        cells = ((micro(one[name]), shown(one[name], one["naive"])) for one in found.values())
        call_rows.append([words, *(cell for pair in cells for cell in pair)])
    imported["aiohttp, attrs and cattrs"] = [base for _, base in importing]
    import_rows = [[name, f"{statistics.median(seconds) * 1e3:.0f}"] for name, seconds in imported.items()]
    memory_rows = [[name, f"{statistics.median(values) / 1024:.1f}"] for name, values in held.items()]
    versions = ", ".join([f"{package} {version(package)}" for package in PACKAGES] + [nginx_version()])
    page = TEMPLATE.format(
        rounds=ROUNDS,
        calls=f"{CALLS:,}",
        in_flight=IN_FLIGHT,
        turn=TURN,
        machine=f"{platform.system()} on {os.cpu_count()} cores of {_processor()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions=versions,
        bars=table(
            "what | aim | measured (quartiles) | met",
            bars(found, held, cost, reading, [ratio for ratio, _ in importing]),
        ),
        **_difference(found),
        table=table("client | asyncio, µs | times naive (quartiles) | uvloop, µs | times naive (quartiles)", call_rows),
        reading=compared(reading, "reading the contract's example"),
        writing=compared(writing, "writing it"),
        building=compared(building, "a request"),
        imports=table("import | ms", import_rows),
        memory=table("10,000 gathered calls | KB for each that waits", memory_rows),
    )
    plot(found)
    (DOCS / "benchmarks.md").write_text(page, encoding="utf-8")


TEMPLATE = (HERE / "benchmarks.template.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
