"""Provider aws while AWS fails: nothing is left over, and nothing is wrong."""

from __future__ import annotations

from support.apiserver import local_session
from support.aws import cloud
from support.aws_faults import story
from support.faults import Dice, Fault

CYCLES = 12  # bench/loadbalancer_faults.py goes through 500


async def test_at_random_faults_nothing_leaks_and_nothing_is_wrong() -> None:
    dice = Dice(seed=1)
    async with local_session() as session:
        with cloud(served=False) as made:
            told = story(made, session, dice)
            await told.go(CYCLES, workers=3, restarts=2)
            assert told.said == []
            assert told.leftovers() == []
    assert all(dice.thrown[fault] for fault in Fault)
