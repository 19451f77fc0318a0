"""Random faults of a cloud over many Services that are made, changed twice and deleted: what leaked, what was wrong.

PYTHONPATH=src:tests python bench/loadbalancer_faults.py [CYCLES] [SEED] [aws|azure|gcp …]
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from support import aws_faults, azure_faults
from support.gcp import storm

CLOUDS = {"aws": aws_faults.endure, "azure": azure_faults.endure, "gcp": storm.endure}


async def main(cycles: int, seed: int, *clouds: str) -> None:
    for cloud in clouds or CLOUDS:
        began, used = time.monotonic(), time.process_time()
        outcome = await CLOUDS[cloud](cycles, seed)
        faults = ", ".join(f"{kind} {n}" for kind, n in sorted(outcome.faults.items()))
        print(f"{cloud}: {outcome.cycles} cycles, {outcome.calls} calls, faults: {faults}")
        print(f"  {outcome.retries} failures told and asked again, {outcome.restarts} deaths")
        print(f"  leaked {len(outcome.leaked)}, wrong {len(outcome.wrong)}, {time.monotonic() - began:.0f} s", end=" ")
        print(f"({time.process_time() - used:.0f} s of CPU)", flush=True)
        for text in (*outcome.leaked, *outcome.wrong):
            print("  ", text)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    numbers = [int(text) for text in (*sys.argv[1:3], *("500", "1")[len(sys.argv[1:3]) :])]
    asyncio.run(main(*numbers, *sys.argv[3:]))
