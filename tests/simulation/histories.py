"""A history: who starts when, what goes wrong, and a last run after all of it that must find everything in order."""

import random
from functools import partial

from simulation.invariants import Violation
from simulation.processes import BatchProcess, Client, Person, enter
from simulation.workers import Enqueuer, Results, Worker
from simulation.world import Process, World
from suno_persona import CreatePersonaRequest, RetryPolicy
from suno_persona.journal import _states as ledger

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
    """Decide who starts when, and what goes wrong."""
    rng, draw = world.rng, world.random
    batch = [REQUESTS[number] for number in rng.choice(_BATCHES)]
    world.faults = rng.choice([0.15, 0.4, 0.7])
    world.store.failing = rng.choice([0, 0, 0, 0.1, 0.4])
    world.clocks_agree = draw() < 0.6
    has_two_accounts = draw() < 0.05
    has_workers = draw() < 0.4
    plan = world.plan

    def client() -> Client:
        return Client(
            requests=batch if draw() < 0.7 else rng.sample(batch, len(batch)),
            retry_unknown=draw() < 0.15,
            account="another" if has_two_accounts and draw() < 0.5 else "account",
            accept_new_key=has_two_accounts and draw() < 0.1,
            policy=rng.choice(_POLICIES) if draw() < 0.95 else _IMPATIENT,
            max_connections=rng.choice([1, 2, 2, 3]),
            stop_after=100 if draw() < 0.9 else 1,
        )

    def start(number: int) -> None:
        ahead = 0.0 if world.clocks_agree else rng.choice([-300.0, -1.0, 0.0, 1.0, 300.0])
        name = "ABCDEF"[number]
        if has_workers and draw() < 0.85:
            began.append(Worker(world, f"worker {name}", client(), ahead=ahead))
        else:
            began.append(BatchProcess(world, f"batch {name}", client(), ahead=ahead))

    def enqueue() -> None:
        began.append(Enqueuer(world, "enqueuer", batch, retry_not_created=draw() < 0.3))

    first = 0
    if has_workers:
        first = 12
        for number in range(rng.choice([1, 1, 2])):
            plan.append((number * int(80 * draw()), enqueue))
    for number in range(rng.choice([1, 2, 2, 2, 3])):
        plan.append((first + int(60 * draw()) if draw() < 0.7 else first + _LATER * number, partial(start, number)))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        plan.append((1 + int(80 * draw()), partial(_disturb, world)))
    if draw() < 0.2:
        step = int(100 * draw()) if draw() < 0.5 else _LATER + int(2 * draw()) * _LATER - 1
        plan.append((step, lambda: began.append(Person(world, "person", hasty=draw() < 0.3))))
    plan.sort(key=lambda item: item[0], reverse=True)
    return batch


def _disturb(world: World) -> None:
    """Let something go wrong with one process."""
    if not world.processes:
        return
    rng = world.rng
    process = rng.choice(world.processes)
    kind = rng.choice(["crash", "crash", "cancel", "stop", "stall", "jump"])
    if kind == "crash":
        process.crash()
    elif kind == "stall" and not process.is_stalled:
        process.stall(rng.choice([1.0, 100.0, 1000.0]))
    elif kind == "jump" and not world.clocks_agree:
        process.ahead += rng.choice([-3600.0, -10.0, 3600.0])
        world.note(process, "its clock jumps, and is {} s ahead", process.ahead)
    elif isinstance(process, BatchProcess | Worker):
        if kind == "cancel":
            process.cancel()
        elif kind == "stop":
            process.stop()


def _finish(world: World, batch: list[CreatePersonaRequest], began: list[Process]) -> None:
    """Let everything run once more, with nothing going wrong."""
    world.faults = world.store.failing = 0
    world.note("world", "nothing goes wrong any more")
    binding = world.store.binding
    client = Client(requests=batch, account="account" if binding is None else binding.fingerprint)
    queue = world.store.queue
    stuck = {
        key
        for key, record in world.store.records.items()
        if record.state in ledger.PENDING and record.index is not None and key not in queue.jobs
    }
    if stuck:
        if stuck - queue.overlooked and not any(isinstance(process, BatchProcess) for process in began):
            raise Violation("a request that was enqueued is pending, and there is no job for it")
        # The batch crashed with a claim of a request whose job had ended: it is to be enqueued again.
        began.append(Enqueuer(world, "last enqueuer", batch, retry_not_created=False))
        world.run()
    if queue.jobs:
        began.append(Worker(world, "last worker", client, ahead=10.0**6))
        world.run()
    records = world.store.records.values()
    if enqueued := sum(record.index is not None for record in records):
        results = Results(world, "results")
        began.append(results)
        world.run()
        if results.yielded != enqueued:
            raise Violation(f"{results.yielded} outcomes of {enqueued} requests that were enqueued")
    if len(records) == len(batch) and all(record.state != "not_created" for record in records) and world.random() < 0.7:
        return  # a last run would send nothing
    before = dict(world.store.records)
    last = BatchProcess(world, "last batch", client, ahead=10.0**7)
    began.append(last)
    world.run()
    if last.yielded != len(batch):
        raise Violation(f"the last run yields {last.yielded} outcomes of {len(batch)} requests")
    world.checks.at_the_end(before)
