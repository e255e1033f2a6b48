"""A history: who starts when, what goes wrong, and a last run after all of it that must find everything in order."""

import random
from functools import partial

from simulation.invariants import Violation
from simulation.processes import BatchProcess, Client, Person, enter
from simulation.world import Process, World
from suno_persona import CreatePersonaRequest, RetryPolicy

REQUESTS = [CreatePersonaRequest(root_clip_id=f"clip-{n}", name="Neon", description="Night drive") for n in range(3)]
_BATCHES = [[0], [0], [0, 1], [0, 0], [0, 1, 2], [0, 0, 1]]
_LATER = 10**6
_POLICIES = [
    RetryPolicy(attempts=1),
    RetryPolicy(attempts=1),
    RetryPolicy(attempts=3, wait_initial=0.5),
    RetryPolicy(attempts=3, wait_initial=0.0),
]
_IMPATIENT = RetryPolicy(attempts=2, wait_initial=0.1, retry_unknown=True)


def run(seed: int, *, recording: bool = False) -> World:
    """Live through the history of a seed. Raises `Violation`."""
    world = World(seed, recording=recording)
    enter(world)
    random.seed(seed)  # the jitter of the backoff
    began: list[Process] = []
    try:
        batch = _plan(world, began)
        world.run()
        _finish(world, batch, began)
    finally:
        for process in began:
            process.loop.bury()
    return world


def _plan(world: World, began: list[Process]) -> list[CreatePersonaRequest]:
    rng, draw = world.rng, world.random
    batch = [REQUESTS[number] for number in rng.choice(_BATCHES)]
    world.faults = rng.choice([0.15, 0.4, 0.7])
    world.store.failing = rng.choice([0, 0, 0, 0.1, 0.4])
    clocks_differ = draw() < 0.4
    two_accounts = draw() < 0.05
    plan = world.plan

    def start(number: int) -> None:
        client = Client(
            requests=batch if draw() < 0.7 else rng.sample(batch, len(batch)),
            retry_unknown=draw() < 0.15,
            account="another" if two_accounts and draw() < 0.5 else "account",
            accept_new_key=two_accounts and draw() < 0.1,
            policy=rng.choice(_POLICIES) if draw() < 0.95 else _IMPATIENT,
            max_connections=rng.choice([1, 2, 2, 3]),
            stop_after=100 if draw() < 0.9 else 1,
        )
        ahead = rng.choice([-300.0, -1.0, 0.0, 1.0, 300.0]) if clocks_differ else 0.0
        began.append(BatchProcess(world, f"batch {'ABCDEF'[number]}", client, ahead=ahead))

    for number in range(rng.choice([1, 2, 2, 2, 3])):
        plan.append((int(60 * draw()) if number and draw() < 0.7 else _LATER * number, partial(start, number)))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        plan.append((1 + int(80 * draw()), partial(_disturb, world, clocks_differ)))
    if draw() < 0.2:
        step = int(100 * draw()) if draw() < 0.5 else _LATER + int(2 * draw()) * _LATER - 1
        plan.append((step, lambda: began.append(Person(world, "person", hasty=draw() < 0.3))))
    plan.sort(key=lambda item: item[0], reverse=True)
    return batch


def _disturb(world: World, clocks_differ: bool) -> None:
    """Let something go wrong with one process."""
    if not world.processes:
        return
    rng = world.rng
    process = rng.choice(world.processes)
    kind = rng.choice(["crash", "crash", "cancel", "stop", "stall", "jump"])
    if kind == "crash":
        process.crash()
    elif kind == "stall" and not process.is_stalled:
        process.stall(rng.choice([1.0, 100.0, 10000.0]))
    elif kind == "jump" and clocks_differ:
        process.ahead += rng.choice([-3600.0, -10.0, 3600.0])
        world.note(process, "its clock jumps, and is {} s ahead", process.ahead)
    elif isinstance(process, BatchProcess):
        if kind == "cancel":
            process.cancel()
        elif kind == "stop":
            process.stop()


def _finish(world: World, batch: list[CreatePersonaRequest], began: list[Process]) -> None:
    """Run the batch a last time, with nothing going wrong."""
    states = [record.state for record in world.store.records.values()]
    if len(states) == len(batch) and "not_created" not in states and world.random() < 0.7:
        return  # it would send nothing
    world.faults = world.store.failing = 0
    world.note("world", "nothing goes wrong any more")
    before = dict(world.store.records)
    binding = world.store.binding
    account = "account" if binding is None else binding.fingerprint
    last = BatchProcess(world, "last run", Client(requests=batch, account=account), ahead=10.0**7)
    began.append(last)
    world.run()
    if last.yielded != len(batch):
        raise Violation(f"the last run yields {last.yielded} outcomes of {len(batch)} requests")
    world.checks.at_the_end(before)
