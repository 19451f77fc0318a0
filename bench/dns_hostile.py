"""1,000,000 mutated and random packets against a running server: crashes, wrong replies, amplification.

    PYTHONPATH=src:bench:tests python bench/dns_hostile.py [--packets 1000000] [--seed 7]

A crash is a good question that isn't answered, of which there is one after every 64 packets, or a process that ended.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from dns_cluster import options, running, write_lists
from figures import show
from support.dns_hostile import bombard, packets


def main() -> None:
    chosen = options(__doc__, packets=1_000_000, seed=7)
    with tempfile.TemporaryDirectory() as scratch:
        write_lists(Path(scratch), 1000, 3)
        with running(Path(scratch)) as server:
            sent, replies, wrong = bombard(server.port, packets(chosen.seed, chosen.packets))
            failed = server.ask("failed")
    for what in wrong[:10]:
        print(f"# {what}")
    show("dns_hostile_packets", sent, "packets")
    show("dns_hostile_replies", replies, "replies")
    show("dns_hostile_wrong", len(wrong), "replies")
    show("dns_hostile_failed", failed, "questions")


if __name__ == "__main__":
    main()
