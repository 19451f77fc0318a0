"""An agent that is killed: its containers go on, and the next agent takes them over as they are."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from kubesvc.api.pods import Pod
from kubesvc.node.records import ContainerRecord, load
from kubesvc.node.teardown import teardown
from support.node import NodeBed, is_ready, node_bed, process_end

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


def main_status(pod: Pod) -> Any:
    return pod.status.container_statuses[0]


def _shown_running(pod: Pod) -> bool:
    return is_ready(pod) or main_status(pod).state.running is not None


def record_of(bed: NodeBed, pod: Pod, attempt: int = 0) -> ContainerRecord:
    paths = bed.config.paths.pod(pod.metadata.uid)
    found = load(paths.bundle("main", attempt) / "container.json", ContainerRecord)
    assert found is not None
    return found


async def test_a_killed_agents_containers_are_adopted_without_a_restart() -> None:
    """kill -9; meanwhile one container dies and one pod is deleted; a new agent finds all three as they are."""
    async with node_bed() as bed:
        await bed.start_process()
        probe = {"readinessProbe": {"exec": {"command": ["true"]}}}
        for name in ("stays", "dies", "leaves"):
            await bed.create(name, FOREVER, container=probe)
        before = {name: await bed.running(name) for name in ("stays", "dies", "leaves")}
        await bed.kill_process()

        pid = record_of(bed, before["stays"]).pid
        os.kill(record_of(bed, before["dies"]).pid, signal.SIGKILL)
        await bed.delete("leaves", grace_seconds=0)
        left = record_of(bed, before["leaves"]).pid

        unready: list[Pod] = []
        bed.pods.on_change(lambda _, p: unready.append(p) if p and p.name == "stays" and not is_ready(p) else None)
        await bed.start_process()
        dead = await bed.until("dies", lambda p: is_ready(p) and main_status(p).restart_count == 1)
        assert main_status(dead).last_state.terminated.exit_code == 137
        assert dead.status.pod_ip == before["dies"].status.pod_ip
        await process_end(left)

        stays = bed.pods.get("default", "stays")
        assert stays is not None
        assert main_status(stays) == main_status(before["stays"])
        assert record_of(bed, stays).pid == pid
        assert unready == []
        assert (await bed.execute("stays", ["true"]))[0] == 0

        # It is watched again: its end is noticed.
        os.kill(pid, signal.SIGKILL)
        again = await bed.until("stays", lambda p: is_ready(p) and main_status(p).restart_count == 1)
        assert record_of(bed, again, 1).pid != pid


async def test_a_pod_keeps_its_address_when_the_node_lost_everything() -> None:
    """As after a reboot, or `down` and `up`: the run directory is empty, the API remembers."""
    async with node_bed() as bed:
        await bed.start_agent()
        await bed.create("first", FOREVER)
        await bed.create("second", FOREVER)
        before = {name: (await bed.running(name)).status.pod_ip for name in ("first", "second")}
        await bed.stop_agent()
        await asyncio.to_thread(teardown, bed.config)

        await bed.create("newcomer", FOREVER)
        told: dict[str, list[bool]] = {"first": [], "second": []}
        bed.pods.on_change(lambda _, p: told[p.name].append(_shown_running(p)) if p and p.name in told else None)
        await bed.start_agent()
        for name, address in before.items():
            pod = await bed.until(name, lambda p: is_ready(p) and main_status(p).restart_count == 1)
            assert pod.status.pod_ip == address
        for shown in told.values():
            assert shown[:2] == [True, False], "what no longer runs is said before it runs again"
        newcomer = await bed.running("newcomer")
        assert newcomer.status.pod_ip not in before.values()


async def test_an_agent_killed_while_it_creates_leaves_nothing_twice() -> None:
    """kill -9 at once after binding: whatever had been begun, the next agent ends up with one running container."""
    async with node_bed() as bed:
        await bed.start_process()
        for turn in range(4):
            name = f"begun-{turn}"
            await bed.create(name, FOREVER)
            await asyncio.sleep(0.03 * turn)  # not a wait for anything: where in its work the agent is hit
            await bed.kill_process()
            await bed.start_process()
            pod = await bed.running(name)
            running = [p for p in _sleepers(str(bed.config.run_dir)) if pod.metadata.uid in p]
            assert len(running) == 1


def _sleepers(run_dir: str) -> list[str]:
    """The command lines of the conmon processes of a node."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/cmdline") as file:
                    text = file.read()
            except OSError:
                continue
            if "conmon" in text.split("\0")[0] and run_dir in text:
                found.append(text)
    return found
