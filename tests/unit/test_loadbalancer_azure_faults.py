"""Provider azure while every fifth call of Azure's API goes wrong. The bench does the same 500 times."""

from __future__ import annotations

from support.azure_faults import endure


async def test_nothing_leaks_and_nothing_is_wrong_while_every_fifth_call_goes_wrong() -> None:
    outcome = await endure(50)
    assert (outcome.cycles, outcome.leaked, outcome.wrong) == (50, 0, 0)
