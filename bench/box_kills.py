"""Processes of a box killed at random under traffic: do pods, addresses and endpoints come out as they were?

    PYTHONPATH=src:bench:tests python bench/box_kills.py [KILLS]

Two nodes, three servers behind a Service, a client on each node with a new connection every 10 ms. Each kill is of any
process but the supervisor, at a random moment after the one before is there again. It ends with an error where the
state differs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median

from figures import show
from support import boxkills
from support.box import BoxUnderTest, unique_name

KILLS, BATCH = 200, 20
PAUSE = 1.0  # seconds, at most


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    dice, whole = Random(), boxkills.Outcome()
    settled: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        box = BoxUnderTest(unique_name(), Path(directory) / "box")
        try:
            box.up("--nodes", "2")
            boxkills.begin(box)
            before = boxkills.state(box)
            for start in range(0, kills, BATCH):
                found = boxkills.kill(box, min(BATCH, kills - start), dice, PAUSE)
                whole.longest = max(whole.longest, found.longest)
                whole.good, whole.failures = 0, {}  # counted from the whole logs each time
                began = time.monotonic()
                boxkills.settle(box, before, whole)
                settled.append(time.monotonic() - began)
                print(f"# {start + BATCH} kills, {settled[-1]:.1f} s until all was as before", flush=True)
        finally:
            box.close()
    show("box_kills", kills, "")
    show("box_kills_requests_good", whole.good, "")
    show("box_kills_requests_failed", sum(whole.failures.values()), "")
    show("box_kills_longest_away", whole.longest, "s")
    show("box_kills_converged_median", median(settled), "s")
    show("box_kills_converged_longest", max(settled), "s")
    for what, count in sorted(whole.failures.items(), key=lambda item: -item[1])[:5]:
        print(f"# {count} {what}")


if __name__ == "__main__":
    main()
