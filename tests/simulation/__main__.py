"""Run histories on all cores: `python -m simulation [COUNT [FIRST]]`; or show one: `SEED=123 python -m simulation`."""

import gc
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from simulation import histories
from simulation.invariants import Violation
from simulation.processes import simulated

_CHUNK = 1000


def main() -> int:
    """Run what the command line asks for. Return the exit status: 1 if an invariant is broken."""
    if "SEED" in os.environ:
        return show(int(os.environ["SEED"]))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began, done, steps = time.monotonic(), 0, 0
    parts = [range(start, min(start + _CHUNK, first + count)) for start in range(first, first + count, _CHUNK)]
    with ProcessPoolExecutor() as pool:  # which fails if a process is killed
        for checked in as_completed([pool.submit(check, part) for part in parts]):
            result = checked.result()
            if isinstance(result, str):
                print(result)
                pool.shutdown(cancel_futures=True)
                return 1
            done, steps = min(done + _CHUNK, count), steps + result
            print(f"\r{done:,} histories, {steps:,} steps, {time.monotonic() - began:.0f} s", end="", flush=True)
    print()
    return 0


def check(seeds: range) -> int | str:
    """Check some histories. Return the number of their steps, or the text of a violation."""
    gc.freeze()
    with simulated():
        try:
            return sum(histories.check(seed) for seed in seeds)
        except Violation as violation:
            return str(violation)


def show(seed: int) -> int:
    """Print one history, and its violation if it has one."""
    with simulated():
        try:
            histories.check(seed)
        except Violation as violation:
            print(violation)
            return 1
        print("\n".join(histories.recorded(seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
