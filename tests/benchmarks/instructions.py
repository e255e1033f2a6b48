"""Instructions that a client executes, counted by callgrind: unlike times, they agree from run to run.

`python tests/benchmarks/instructions.py naive suno_persona` prints those of a call, in one or two minutes; `tuned`,
`suno_persona_64`, `httpx` and `generated` can be named, too, and `conversions` and `import`.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contenders import CONTENDERS
from service import service

HERE = Path(__file__).parent
CALLS = 1000
FEWER_CALLS = 250  # by clients that execute ten times as many instructions
REPEATS = 2

Samples = dict[str, list[float]]


def count(*command: str) -> list[int]:
    """Run a Python program in callgrind; return the instructions in user mode of each block that it has `counted`."""
    # Sets have the same order in each run. Modules are compiled already, as at every import but the first.
    env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder, "counts")
        options = ["--tool=callgrind", "--dump-before=getloadavg", "--combine-dumps=yes", "--dump-line=no"]
        files = [f"--callgrind-out-file={counts}", f"--log-file={folder}/log"]
        subprocess.run(
            ["valgrind", *options, *files, sys.executable, *command], env=env, stdout=subprocess.DEVNULL, check=True
        )
        totals = re.findall(r"^totals: (\d+)", counts.read_text(encoding="utf-8"), re.MULTILINE)
    return [int(total) for total in totals[1::2]]  # the others are before, between and after the blocks


def calls(names: Sequence[str], url: str) -> Samples:
    """Return the instructions of a call by each contender, once for each run; each is a new process."""

    def one(name: str) -> float:
        number = FEWER_CALLS if name in ("httpx", "generated") else CALLS
        (found,) = count(str(HERE / "contenders.py"), name, url, "flight", str(number))
        return found / number

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # how fast each of them runs does not matter
        found = [*pool.map(one, [*names] * REPEATS)]
    return {name: found[index :: len(names)] for index, name in enumerate(names)}


def conversions() -> dict[str, Samples]:
    """Return the instructions of each way to read, write and build."""
    from conversions import NUMBER, WAYS

    counts = iter(count(str(HERE / "conversions.py")))
    return {what: {name: [next(counts) / NUMBER] for name in ways} for what, ways in WAYS.items()}


def imports() -> Samples:
    """Return the instructions for importing aiohttp, attrs and cattrs, and for importing suno_persona too."""
    blocks = [
        f"os.getloadavg(); import {names}; os.getloadavg()" for names in ("aiohttp, attrs, cattrs", "suno_persona")
    ]
    command = ("-c", "; ".join(["import os", *blocks]))
    count(*command)  # compiles what is not yet compiled
    theirs, ours = count(*command)
    return {"aiohttp, attrs and cattrs": [theirs], "the same and suno_persona": [theirs + ours]}


def ratios(found: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Return the lowest ratio within the rounds, the median, and the highest."""
    each = [one / other for one, other in zip(found, base, strict=True)]
    return min(each), statistics.median(each), max(each)


def spread(low: float, middle: float, high: float) -> str:
    """Return a ratio with its spread as text."""
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def table(what: str, found: Samples, unit: str = "k instructions", size: float = 1e3) -> str:
    """Return a table in Markdown that compares each with the first."""
    base = next(iter(found.values()))
    lines = [f"| {what} | {unit} | × the first (lowest to highest) |", "| --- | --- | --- |"]
    for name, samples in found.items():
        low, middle, high = ratios(samples, base)
        ratio = f"{middle:.2f}" if low == high else spread(low, middle, high)
        lines.append(f"| {name} | {statistics.median(samples) / size:,.1f} | {ratio} |")
    return "\n".join(lines)


def main(*names: str) -> None:
    """Count and print."""
    if not {*CONTENDERS, "conversions", "import"}.issuperset(names):
        sys.exit(__doc__)
    if contenders := [name for name in names if name in CONTENDERS]:
        with service() as url:
            print(table("a call", calls(contenders, url)))
    if "conversions" in names:
        print(*(table(what, found) for what, found in conversions().items()), sep="\n\n")
    if "import" in names:
        print(table("importing", imports()))


if __name__ == "__main__":
    main(*sys.argv[1:])
