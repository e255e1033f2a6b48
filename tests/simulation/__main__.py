"""Run many histories: `python -m simulation [COUNT]`, or one of them with `SEED=123 python -m simulation`."""

import gc
import os
import sys
import time

from simulation import histories
from simulation.invariants import Violation
from simulation.processes import simulated


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    began = time.perf_counter()
    steps = 0
    first = int(os.environ.get("FIRST", 0))
    gc.freeze()
    with simulated():
        if "SEED" in os.environ:
            return show(int(os.environ["SEED"]))
        for seed in range(first, first + count):
            try:
                steps += histories.run(seed).steps
            except Violation as violation:
                print(violation)
                return show(seed)
    print(f"{count} histories, {steps} steps, {time.perf_counter() - began:.1f} s")
    return 0


def show(seed: int) -> int:
    world = histories.World(seed, recording=True)
    original = histories.World
    histories.World = lambda *_, **__: world
    try:
        histories.run(seed)
    except Violation as violation:
        print("\n".join(world.history))
        print(f"SEED={seed}: {violation}")
        return 1
    finally:
        histories.World = original
    print("\n".join(world.history))
    return 0


if __name__ == "__main__":
    sys.exit(main())
