"""What importing suno_persona adds to importing aiohttp, attrs and cattrs: the median over many new processes.

Run it as `python tests/benchmarks/import_time.py` where the package is installed.
"""

import os
import re
import statistics
import subprocess
import sys

ROUNDS = 40


def ratio() -> tuple[float, float]:
    """Return the time for all four over that for the three, and the seconds for the three.

    CPython measures both in one process, so that the speed of the machine cancels out.
    """
    command = [sys.executable, "-X", "importtime", "-c", "import aiohttp, attrs, cattrs, suno_persona"]
    # The modules are already compiled, as at every import but the first.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    report = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr
    # The rows without indentation are the imports of the statement itself.
    cost = {name: int(total) for total, name in re.findall(r"\| +(\d+) \| (\w+)\n", report)}
    theirs = cost["aiohttp"] + cost["attrs"] + cost["cattrs"]
    return (theirs + cost["suno_persona"]) / theirs, theirs / 1e6


def main() -> None:
    """Measure and print."""
    ratios = [ratio()[0] for _ in range(ROUNDS)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"import suno_persona: {middle:.3f} times aiohttp, attrs and cattrs (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
