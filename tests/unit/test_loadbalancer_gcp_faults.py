"""Provider gcp where every fifth call and every fifth operation goes wrong."""

from __future__ import annotations

import pytest

from support.gcp.server import gcp_server
from support.gcp.storm import storm


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_wrong_and_nothing_is_left_after_a_storm(seed: int) -> None:
    """bench/loadbalancer_gcp.py does 500 cycles; `problems` looks at each load balancer when it is said to be made."""
    async with gcp_server(seed=seed, latency=0.001) as server:
        outcome = await storm(server, 12, seed=seed)
    assert (outcome.cycles, outcome.wrong, outcome.leaked) == (12, [], [])
    assert outcome.failures > 5  # it did blow
    assert {*outcome.faults} == {429, 500, 503, "no answer", "lost"}
