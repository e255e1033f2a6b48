"""A small soak; `nox -s soak` runs a long one."""

import pytest
from soak import soak

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_thousand_calls_among_faults_and_cancellations_are_all_accounted_for(seed: int) -> None:
    """Nothing is created twice, nothing is lost, nothing hangs, and nothing is left behind."""
    report = await soak(1000, seed)
    assert {"Persona", "CancelledError", "ConnectionLostError", "ServerError"} <= report.outcomes.keys()
    report.check()
