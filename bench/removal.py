"""From a pod's no longer being Ready to its removal from every node's data plane, on three nodes.

`endpoint_removal`: from before the write of the pod's status (Ready=False) to the kernel's own notification on the last
of the nodes. `pod_death`: from `kill -9` of a pod's first process, which adds the agent's noticing it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from figures import show_percentiles
from kubesvc.api.errors import AlreadyExists
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.pods import Pod
from kubesvc.api.registry import NODE, POD, SERVICE
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session
from kubesvc.demo.programmed import RemovalWatch
from kubesvc.demo.show import first_process
from kubesvc.demo.stage import BrokenPromise
from kubesvc.kernel import netns
from support.box import BoxUnderTest, eventually, fresh_box

ROUNDS = 200
DEATHS = 20
NODES = ("node1", "node2", "node3")
ADDRESSES = [IPv4Address("10.244.250.1") + number for number in range(4)]


def status(address: IPv4Address, ready: bool) -> JSON:
    moment = format_time(datetime.now(UTC))
    word = "True" if ready else "False"
    conditions = [{"type": kind, "status": word, "lastTransitionTime": moment} for kind in ("Ready", "ContainersReady")]
    return {
        "status": {
            "phase": "Running",
            "podIP": str(address),
            "podIPs": [{"ip": str(address)}],
            "conditions": conditions,
        }
    }


async def prepare(session: Session) -> None:
    """A Service with four endpoints on a node without an agent, so that only we say whether they are ready."""
    try:
        await session.create(NODE, {"metadata": {"name": "ghost"}, "spec": {"unschedulable": True}})
    except AlreadyExists:
        pass
    spec = {"selector": {"app": "ghost"}, "ports": [{"port": 80}]}
    await session.create(SERVICE, {"metadata": {"name": "ghost", "namespace": "default"}, "spec": spec})
    for number, address in enumerate(ADDRESSES):
        name = f"ghost-{number}"
        pod: JSON = {
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "ghost"}},
            "spec": {"nodeName": "ghost", "containers": [{"name": "c", "image": "host"}]},
        }
        await session.create(POD, pod)
        await session.patch(POD, "default", name, status(address, True), subresource="status")


def open_watch(box: BoxUnderTest) -> RemovalWatch:
    return RemovalWatch({node: netns.named(box.namespace(node)) for node in NODES})


async def endpoint_removal(box: BoxUnderTest) -> list[float]:
    """Milliseconds of each round."""
    session = kubeconfig.load(box.kubeconfig)
    await prepare(session)
    found = []
    for number in range(ROUNDS):
        which = number % len(ADDRESSES)
        await asyncio.to_thread(eventually, lambda: programmed(box, len(ADDRESSES)))
        watch = open_watch(box)
        began = time.time()
        await session.patch(POD, "default", f"ghost-{which}", status(ADDRESSES[which], False), subresource="status")
        removed = await asyncio.to_thread(watch.wait, ADDRESSES[which], 10.0)
        watch.close()
        assert set(removed) == set(NODES), removed
        found.append((max(removed.values()) - began) * 1000)
        await session.patch(POD, "default", f"ghost-{which}", status(ADDRESSES[which], True), subresource="status")
    await session.close()
    return found


def programmed(box: BoxUnderTest, count: int) -> bool:
    """Whether every node has `count` of the ghost's endpoints."""
    rules = [box.inside(node, "nft", "list", "table", "inet", "kubesvc") for node in NODES]
    return all(sum(str(address) in text for address in ADDRESSES) == count for text in rules)


def found_process(name: str) -> int:
    """The pod's first process, or 0 while the runtime has not started it yet."""
    try:
        return first_process(name)
    except BrokenPromise:
        return 0


async def pod_death(box: BoxUnderTest) -> list[float]:
    """Milliseconds of each death; the pod is one of a real Deployment."""
    box.kubectl("create", "deployment", "real", "--image=host", "--replicas=4", "--", "sleep", "1000000")
    box.kubectl("expose", "deployment", "real", "--port=80")
    session = kubeconfig.load(box.kubeconfig)
    found = []
    for _ in range(DEATHS):
        box.kubectl("rollout", "status", "deployment/real", "--timeout=60s")
        pods = (await session.list(POD, Pod, namespace="default", labels="app=real")).items
        victim = min(pods, key=lambda pod: sum(status.restart_count for status in pod.status.container_statuses))
        watch = open_watch(box)
        process = int(str(eventually(lambda name=victim.name: found_process(name))))
        began = time.time()
        os.kill(process, signal.SIGKILL)
        removed = await asyncio.to_thread(watch.wait, IPv4Address(victim.status.pod_ip), 10.0)
        watch.close()
        assert set(removed) == set(NODES), removed
        found.append((max(removed.values()) - began) * 1000)
        box.kubectl("delete", "pod", victim.name, "--force", "--grace-period=0")
    await session.close()
    return found


async def measure() -> None:
    with tempfile.TemporaryDirectory() as scratch, fresh_box(Path(scratch) / "box") as box:
        box.kubesvc("up", "--detach", "--nodes", str(len(NODES)))
        show_percentiles("endpoint_removal_3_nodes", await endpoint_removal(box), "ms")
        show_percentiles("pod_death_to_removal_3_nodes", await pod_death(box), "ms")


if __name__ == "__main__":
    asyncio.run(measure())
