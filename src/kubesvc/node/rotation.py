"""Logs that don't grow for ever: one that is large enough is put aside, a few of those are kept, as the kubelet does.

    0.log ──rename──► 0.log.20261122-100000.000000         then conmon is told, and begins 0.log anew

Between two looks conmon itself bounds a log (runtime.MAX_LOG). Unlike the kubelet's, what was put aside isn't
compressed, and `kubectl logs` reads it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from kubesvc.node import logs
from kubesvc.node.agent import Agent
from kubesvc.node.config import NodeConfig

log = logging.getLogger(__name__)

REOPEN = b"2 0 0\n"  # conmon's control message: open the log anew


async def keep(agent: Agent, config: NodeConfig) -> None:
    """Look at the log of every container that runs, again and again. Until cancelled."""
    while True:
        await asyncio.sleep(config.log_interval)
        for worker in list(agent.workers.values()):
            for name, runner in worker.runners.items():
                if runner.view.running:
                    attempt = runner.view.attempt
                    try:
                        rotate(worker.paths.log(name, attempt), worker.paths.bundle(name, attempt) / "ctl", config)
                    except OSError as error:
                        log.warning("the log of %s in pod %s/%s can't be rotated: %s", name, *worker.pod.key, error)


def rotate(path: Path, control: Path, config: NodeConfig) -> bool:
    """Put the log at `path` aside if it is large enough; `control` is its conmon's. Raises OSError."""
    if path.stat().st_size < config.log_max_size:
        return False
    conmon = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # before the rename: it may be gone
    try:
        path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S.%f}"))
        os.write(conmon, REOPEN)
    finally:
        os.close(conmon)
    for old in logs.rotated(path)[: -max(1, config.log_max_files - 1)]:
        old.unlink(missing_ok=True)
    return True
