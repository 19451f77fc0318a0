"""Proportional set size of every process of an idle one-node box."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from figures import show
from support.box import fresh_box

SETTLE = 5.0  # seconds


def pss(pid: int) -> float:
    """MB; pages shared by forked processes count in proportion."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss for {pid}")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, fresh_box(Path(scratch) / "box") as box:
        box.kubesvc("up", "--detach")
        time.sleep(SETTLE)
        status = box.status()
        total = 0.0
        for process in [status["supervisor"], *status["processes"]]:
            size = pss(process["pid"])
            total += size
            show(f"pss_{process['name'].replace('/', '_')}", size, "MB")
        show("pss_total", total, "MB")


if __name__ == "__main__":
    main()
