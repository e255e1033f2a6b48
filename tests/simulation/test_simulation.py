"""Nothing is created twice, nothing is lost and everything ends, in thousands of histories with random faults."""

import sys
from collections.abc import Iterator

import pytest

from simulation import histories, mutants
from simulation.invariants import Violation
from simulation.processes import simulated

HISTORIES = 2500
"""The number of histories that are checked here; `nox -s simulate` checks a million."""

MOST = 1000
"""The number of histories within which each broken rule must be noticed."""


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    """Run the package in the simulated world, without measuring coverage, which would take several times as long."""
    trace = sys.gettrace()
    sys.settrace(None)
    with simulated():
        yield
    sys.settrace(trace)


def check(seeds: range) -> None:
    """Run these histories."""
    for seed in seeds:
        histories.check(seed)


@pytest.mark.slow
def test_every_invariant_holds_in_every_history() -> None:
    """No crash, loss, stall or redelivery breaks an invariant; a failure shows its history and how to replay it."""
    check(range(HISTORIES))


@pytest.mark.slow
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_each_broken_rule_is_noticed(name: str) -> None:
    """If a rule of the ledger is broken, some history breaks an invariant."""
    with mutants.broken(name), pytest.raises(Violation):
        check(range(MOST))


def test_a_seed_is_one_history() -> None:
    """The same seed has the same history, step by step, so that a failure can be replayed."""
    for seed in range(20):
        history = histories.recorded(seed)
        assert history
        assert histories.recorded(seed) == history


def test_a_failure_shows_its_history_and_how_to_replay_it() -> None:
    """The message of the violation has each step and the seed."""
    with mutants.broken("an unknown outcome is not created"), pytest.raises(Violation, match="starts") as violation:
        histories.check(4)
    assert "SEED=4 nox -s simulate" in str(violation.value)
