"""What pods with limits of it keep on the node's disk, looked at now and then; those with too much are evicted.

    pods with limits ──► their directories ──► du, one process for all ──► eviction.excess ──► PodWorker.evict

A pod without limits costs nothing. `du` counts outside of this process, at the lowest priority; a look that takes long
is followed by a pause that is longer still, so that counting takes a tenth of the time at most, however many files
there are. Files that are deleted but open aren't seen, as upstream.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kubesvc.node import bundles, eviction
from kubesvc.node.agent import Agent
from kubesvc.node.config import NodeConfig
from kubesvc.node.eviction import Usage
from kubesvc.node.pod import PodWorker
from kubesvc.node.runtime import SEARCH, RuntimeFailure, find_program

log = logging.getLogger(__name__)

MOST = 0.1  # of the time


async def keep(agent: Agent, config: NodeConfig) -> None:
    """Look at the pods that have limits, again and again. Until cancelled."""
    clock = asyncio.get_running_loop().time
    pause = config.storage_interval
    while True:
        await asyncio.sleep(pause)
        began = clock()
        try:
            await _look([worker for worker in agent.workers.values() if worker.begun])
        except (OSError, RuntimeFailure) as error:
            log.warning("what pods keep on disk can't be counted: %s", error)
        pause = max(config.storage_interval, (clock() - began) * (1 / MOST - 1))


async def _look(workers: Iterable[PodWorker]) -> None:
    """Evict who has too much. Raises OSError, RuntimeFailure."""
    places = {worker: found for worker in workers if (found := _places(worker))}
    if not places:
        return
    sizes = await measure(path for found in places.values() for _, _, path in found)
    for worker, found in places.items():
        volumes: dict[str, int] = {}
        containers: dict[str, int] = {}
        for of, name, path in found:
            of_kind = volumes if of == "volume" else containers
            of_kind[name] = of_kind.get(name, 0) + sizes.get(str(path), 0)
        if message := eviction.excess(worker.pod, Usage(volumes, containers)):
            worker.evict(message)


def _places(worker: PodWorker) -> list[tuple[str, str, Path]]:
    """Where that is which counts: ("volume" or "container", its name, a directory)."""
    pod, paths = worker.pod, worker.paths
    if not eviction.is_limited(pod):
        return [("volume", name, paths.volume(name)) for name in eviction.limited_volumes(pod)]
    found = [("volume", name, paths.volume(name)) for name in eviction.on_disk(pod)]
    for name, runner in worker.runners.items():
        if runner.view.running:  # what has ended isn't counted, as upstream
            found.append(("container", name, bundles.written(paths.bundle(name, runner.view.attempt))))
            found.append(("container", name, paths.logs(name)))
    return found


async def measure(paths: Iterable[Path]) -> dict[str, int]:
    """path -> the bytes of disk that it takes with all below it, as far as it is there and on one file system.

    Raises OSError, RuntimeFailure."""
    wanted = b"\0".join(os.fsencode(path) for path in paths)
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", "19", find_program("du"), "-s", "-x", "-0", "--block-size=1", "--files0-from=-"),
        env={"PATH": SEARCH, "LC_ALL": "C"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # of what went while it looked
    )
    try:
        output, _ = await process.communicate(wanted)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    lines = (line.partition(b"\t") for line in output.split(b"\0") if line)
    return {os.fsdecode(path): int(size) for size, _, path in lines}
