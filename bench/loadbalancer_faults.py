"""Random faults of a cloud over many Services that are made, changed twice and deleted: what leaked, what was wrong.

PYTHONPATH=src:tests python bench/loadbalancer_faults.py [CYCLES] [SEED]
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from support.apiserver import local_session
from support.aws import cloud
from support.aws_faults import story
from support.faults import Dice


async def main(cycles: int, seed: int) -> None:
    dice = Dice(seed)
    began, used = time.monotonic(), time.process_time()
    async with local_session() as session:
        with cloud(served=False) as made:
            told = story(made, session, dice, seed)
            await told.go(cycles, workers=4, restarts=9)
            left = told.leftovers()
    faults = {fault.name.lower(): count for fault, count in dice.thrown.items()}
    print(f"aws: {cycles} cycles, calls {faults}, {told.retries} retries")
    print(f"aws: leaked {len(left)}, wrong {len(told.said)}, {time.monotonic() - began:.0f} s", end=" ")
    print(f"({time.process_time() - used:.0f} s of CPU)")
    for text in (*left, *told.said):
        print("  ", text)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(main(*(int(text) for text in (*sys.argv[1:], "500", "1")[:2])))
