"""Provider gcp where every fifth call and every fifth operation goes wrong, and its process dies now and then."""

from __future__ import annotations

import pytest

from support.gcp.storm import endure


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_wrong_and_nothing_is_left_after_a_storm(seed: int) -> None:
    """bench/loadbalancer_faults.py does 500 cycles; each load balancer is looked at when it is said to be made."""
    outcome = await endure(12, seed)
    assert (outcome.cycles, outcome.wrong, outcome.leaked) == (12, [], [])
    assert outcome.retries > 5  # it did blow
    assert {*outcome.faults} == {"429", "500", "503", "no answer", "lost"}
