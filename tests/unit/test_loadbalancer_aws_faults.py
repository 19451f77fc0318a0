"""Provider aws while AWS fails: nothing is left over, and nothing is wrong."""

from __future__ import annotations

from support.aws_faults import endure

CYCLES = 12  # bench/loadbalancer_faults.py goes through 500


async def test_at_random_faults_nothing_leaks_and_nothing_is_wrong() -> None:
    outcome = await endure(CYCLES, workers=3, restarts=2)
    assert (outcome.cycles, outcome.wrong, outcome.leaked) == (CYCLES, [], [])
    assert {*outcome.faults} == {"failed", "unheard", "lost"}
