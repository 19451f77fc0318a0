"""Provider azure while every fifth call of Azure's API goes wrong. bench/loadbalancer_faults.py does 500 cycles."""

from __future__ import annotations

from support.azure_faults import endure


async def test_nothing_leaks_and_nothing_is_wrong_while_every_fifth_call_goes_wrong() -> None:
    outcome = await endure(50)
    assert (outcome.cycles, outcome.leaked, outcome.wrong) == (50, [], [])
    assert {*outcome.faults} == {"409", "412", "429", "500", "drop", "late", "lost"}
