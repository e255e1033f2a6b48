"""A history: what starts when, what goes wrong, and a last run after all of it that must find everything in order."""

import contextlib
import random
from collections.abc import Callable
from functools import partial

import attrs

from simulation.invariants import Violation
from simulation.processes import BatchProcess, Client, Person, enter
from simulation.workers import Enqueuer, Results, Worker
from simulation.world import Process, World
from suno_persona import CreatePersonaRequest, RetryPolicy
from suno_persona.journal import _states as ledger

REQUESTS = [CreatePersonaRequest(root_clip_id=f"clip-{n}", name="Neon", description="Night drive") for n in range(3)]
_BATCHES = [[0], [0], [0, 1], [0, 0], [0, 1, 2], [0, 0, 1]]
_ACCOUNTS = ["account", "account", "another"]
_HOSTS = ["gateway.example", "gateway.example", "other.example"]
_LATER = 10**6
_POLICIES = [
    RetryPolicy(attempts=1),
    RetryPolicy(attempts=1),
    RetryPolicy(attempts=3, wait_initial=0.5),
    RetryPolicy(attempts=3, wait_initial=0.0),
]
_IMPATIENT = RetryPolicy(attempts=2, wait_initial=0.1, retry_unknown=True)


def run(seed: int) -> World:
    """Run the history of a seed. Raises `Violation`."""
    world = World(seed)
    _live(world)
    return world


def _live(world: World) -> None:
    enter(world)
    random.seed(world.seed)  # the jitter of the backoff
    began: list[Process] = []
    try:
        batch = _plan(world, began)
        world.run()
        _finish(world, batch, began)
    finally:
        for process in began:
            process.loop.bury()


def check(seed: int) -> int:
    """Run the history of a seed, and return the number of its steps. Raises `Violation` with the whole history."""
    try:
        return run(seed).steps
    except Violation as violation:
        history = "\n".join(recorded(seed))
        raise Violation(f"{history}\n{violation}\nTo replay it: SEED={seed} nox -s simulate") from None


def recorded(seed: int) -> list[str]:
    """Return the lines of the history of a seed."""
    world = World(seed, recording=True)
    with contextlib.suppress(Violation):
        _live(world)
    return world.history or []


def _plan(world: World, began: list[Process]) -> list[CreatePersonaRequest]:
    """Decide what starts when, and what goes wrong."""
    rng, draw = world.rng, world.random
    batch = [REQUESTS[number] for number in rng.choice(_BATCHES)]
    world.faults = rng.choice([0.15, 0.4, 0.7])
    world.store.failing = rng.choice([0, 0, 0, 0.1, 0.4])
    world.clocks_agree = draw() < 0.6
    has_two_accounts, has_two_hosts = draw() < 0.05, draw() < 0.05
    has_workers = draw() < 0.4

    def client() -> Client:
        return Client(
            requests=batch if draw() < 0.7 else rng.sample(batch, len(batch)),
            retry_unknown=draw() < 0.15,
            account=rng.choice(_ACCOUNTS) if has_two_accounts else "account",
            host=rng.choice(_HOSTS) if has_two_hosts else "gateway.example",
            accept_new_key=has_two_accounts and draw() < 0.3,
            policy=rng.choice(_POLICIES) if draw() < 0.95 else _IMPATIENT,
            max_connections=rng.choice([1, 2, 2, 3]),
            stop_after=100 if draw() < 0.9 else 1,
        )

    def start(number: int) -> None:
        ahead = 0.0 if world.clocks_agree else rng.choice([-300.0, -1.0, 0.0, 1.0, 300.0])
        name = "ABCDEF"[number]
        if has_workers and draw() < 0.85:
            process: Process = Worker(world, f"worker {name}", client(), ahead=ahead)
        else:
            process = BatchProcess(world, f"batch {name}", client(), ahead=ahead)
        began.append(process)
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            surprise = partial(_disturb, world, process, retry if draw() < 0.5 else partial(look, hasty=True))
            if draw() < 0.5:
                world.later(int(50 * draw()), surprise)
            else:
                process.ambush.append(surprise)

    def retry() -> None:
        began.append(BatchProcess(world, "retry", attrs.evolve(client(), retry_unknown=True)))

    def meddle(process: Process) -> None:
        if draw() < 0.2:
            stalled = [other for other in world.processes if other.is_stalled]
            process.stall(1.0)  # while the state that it has read changes
            if stalled:
                stalled[0].wake()
            else:
                retry()

    def enqueue() -> None:
        began.append(
            Enqueuer(world, "enqueuer", batch if draw() < 0.7 else batch[::-1], retry_not_created=draw() < 0.3)
        )

    def look(*, hasty: bool | None = None) -> None:
        is_hasty = draw() < 0.3 if hasty is None else hasty
        began.append(Person(world, "person", hasty=is_hasty, looks=rng.choice([1, 1, 2])))

    world.meddle = meddle
    first = 0
    if has_workers:
        first = 12
        for number in range(rng.choice([1, 1, 2])):
            world.later(number * (int(80 * draw()) if draw() < 0.5 else _LATER), enqueue)
    for number in range(rng.choice([1, 2, 2, 2, 3])):
        world.later(first + (int(60 * draw()) if draw() < 0.7 else _LATER * number), partial(start, number))
    if draw() < 0.2:
        step = int(100 * draw()) if draw() < 0.5 else _LATER + int(2 * draw()) * _LATER - 1
        world.later(
            step, lambda: began.append(Person(world, "person", hasty=draw() < 0.3, looks=rng.choice([1, 1, 2])))
        )
    return batch


def _disturb(world: World, process: Process, meddle: Callable[[], None]) -> None:
    """Make something go wrong with a process."""
    if not process.is_alive:
        return
    rng = world.rng
    kind = rng.choice(["crash", "crash", "cancel", "stop", "stall", "stall", "stall", "jump", "meddle"])
    if kind == "crash":
        process.crash()
    elif kind == "stall" and not process.is_stalled:
        process.stall(rng.choice([1.0, 1000.0, 1000.0]))
    elif kind == "jump" and not world.clocks_agree:
        process.ahead += rng.choice([-3600.0, -10.0, 3600.0])
        world.note(process, "its clock jumps, and is {} s ahead", process.ahead)
    elif kind == "meddle":
        meddle()
    elif isinstance(process, BatchProcess | Worker):
        if kind == "cancel":
            process.cancel()
        elif kind == "stop":
            process.stop()


def _finish(world: World, batch: list[CreatePersonaRequest], began: list[Process]) -> None:
    """Run everything once more, with nothing going wrong."""
    world.meddle = None
    world.faults = world.store.failing = 0
    world.note("world", "nothing goes wrong any more")
    bound = world.store.binding
    host = "gateway.example" if bound is None or "gateway" in bound.endpoint else "other.example"
    client = Client(
        requests=batch,
        host=host,
        account="account" if bound is None else bound.fingerprint,
        retry_unknown=world.random() < 0.2,
    )
    _finish_jobs(world, client, began)
    records = world.store.records
    states = [record.state for record in records.values()]
    if len(states) == len(batch) and "not_created" not in states and world.random() < 0.7:
        return  # a last run would send nothing, or only retry unknown outcomes
    before = dict(records)
    last = BatchProcess(world, "last batch", client, ahead=10.0**7)
    began.append(last)
    world.run()
    if last.yielded != len(batch):
        raise Violation(f"the last run yields {last.yielded} outcomes of {len(batch)} requests")
    world.checks.after_the_last_run(before, len(batch), retry_unknown=client.retry_unknown)


def _finish_jobs(world: World, client: Client, began: list[Process]) -> None:
    """Let a last worker finish the enqueued jobs, and check that a reader of the outcomes gets all of them."""
    queue, records = world.store.queue, world.store.records
    enqueuers = [process for process in began if isinstance(process, Enqueuer)]
    if not enqueuers:
        return
    stuck = {
        key
        for key, record in records.items()
        if record.state in ledger.PENDING and record.index is not None and not any(job.key == key for job in queue.jobs)
    }
    if stuck:
        if stuck - queue.overlooked and not any(isinstance(process, BatchProcess) for process in began):
            raise Violation("a request that was enqueued is pending, and there is no job for it")
        # A batch crashed with a claim of a request whose job had ended: the request must be enqueued again.
        began.append(Enqueuer(world, "last enqueuer", client.requests, retry_not_created=False))
        world.run()
    if queue.jobs:
        began.append(Worker(world, "last worker", client, ahead=10.0**6))
        world.run()
    results = Results(world, "results")
    began.append(results)
    world.run()
    expected = len(client.requests) if any(process.succeeded for process in enqueuers) else results.yielded
    if results.yielded != expected:
        raise Violation(f"{results.yielded} outcomes of {expected} requests that were enqueued")
