"""What a pod's containers share of processes and IPC, with each other or with the machine; and how long it may run."""

from __future__ import annotations

import asyncio
import os
import time

from kubesvc.api import registry
from kubesvc.node import processes, reaper
from kubesvc.node.teardown import teardown
from support.node import NodeBed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
SLEEPER = {"name": "other", "image": "host", "command": ["/bin/sleep", "31536"]}


async def printed(bed: NodeBed, name: str, script: str) -> str:
    code, out, err = await bed.execute(name, ["/bin/sh", "-c", script])
    assert code == 0, err
    return out.decode()


def marked(bed: NodeBed, uid: str) -> list[int]:
    """pids of what holds the pod's shared namespace."""
    found = []
    for descriptor in processes.with_argument(str(bed.config.paths.pod(uid).root)):
        found.append(descriptor)
        os.close(descriptor)
    return found


COMMANDS = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done"


async def test_containers_that_share_processes_see_each_other_and_collect_orphans(bed: NodeBed) -> None:
    # No container's own children are to be seen, between their end and their parent's notice of it.
    await bed.create(
        "both",
        ["/bin/sleep", "31537"],
        shareProcessNamespace=True,
        initContainers=[SLEEPER | {"restartPolicy": "Always"}],
    )
    pod = await bed.running("both")
    seen = await printed(bed, "both", COMMANDS)
    assert "/bin/sleep 31536" in seen
    assert "/bin/sleep 31537" in seen
    assert (await printed(bed, "both", "tr '\\0' ' ' < /proc/1/cmdline")).strip() == "sleep infinity"
    await printed(bed, "both", "(/bin/true & exec /bin/true) & wait")
    states = await printed(bed, "both", "cat /proc/[0-9]*/status 2>/dev/null | grep '^State'")
    assert "zombie" not in states
    uid = pod.metadata.uid
    assert marked(bed, uid)
    await bed.delete("both", grace_seconds=1)
    await bed.until_gone("both")
    assert not marked(bed, uid)


async def test_a_shared_process_namespace_outlives_the_agent_and_ends_with_teardown(bed: NodeBed) -> None:
    await bed.create("both", FOREVER, shareProcessNamespace=True)
    uid = (await bed.running("both")).metadata.uid
    await bed.stop_agent()
    assert marked(bed, uid)
    await bed.start_agent()
    assert (await bed.running("both")).status.container_statuses[0].restart_count == 0
    await bed.stop_agent()
    await asyncio.to_thread(teardown, bed.config)
    assert not marked(bed, uid)
    assert not bed.config.run_dir.exists()


async def test_a_shared_process_namespace_that_was_killed_is_made_anew(bed: NodeBed) -> None:
    await bed.create("both", FOREVER, shareProcessNamespace=True)
    pod = await bed.running("both")
    paths = bed.config.paths.pod(pod.metadata.uid)
    processes.kill(processes.with_argument(str(paths.root)))
    await bed.until("both", lambda p: p.status.container_statuses[0].restart_count == 1)
    await bed.running("both")
    assert "sleep infinity" in (await printed(bed, "both", "tr '\\0' ' ' < /proc/1/cmdline"))
    assert reaper.ensure(paths) == paths.pidns


async def test_without_sharing_a_container_is_its_own_first_process(bed: NodeBed) -> None:
    await bed.create("own", FOREVER)
    await bed.running("own")
    assert "trap" in await printed(bed, "own", "tr '\\0' ' ' < /proc/1/cmdline")


async def test_host_pid_and_host_ipc_are_the_machines(bed: NodeBed) -> None:
    await bed.create("host", FOREVER, hostPID=True, hostIPC=True)
    await bed.create("own", FOREVER)
    await bed.running("host")
    await bed.running("own")
    for kind, machines in (("pid", os.readlink("/proc/self/ns/pid")), ("ipc", os.readlink("/proc/self/ns/ipc"))):
        assert (await printed(bed, "host", f"readlink /proc/self/ns/{kind}")).strip() == machines
        assert (await printed(bed, "own", f"readlink /proc/self/ns/{kind}")).strip() != machines


async def test_a_pod_past_its_deadline_has_failed(bed: NodeBed) -> None:
    began = time.time()
    await bed.create("late", FOREVER, activeDeadlineSeconds=1)
    pod = await bed.until("late", lambda p: p.status.phase == "Failed")
    assert time.time() - began >= 1
    assert pod.status.reason == "DeadlineExceeded"
    assert pod.status.message == "Pod was active on the node longer than the specified deadline"
    assert all(s.state.terminated for s in pod.status.container_statuses)
    ready = {c.type: c.status for c in pod.status.conditions}
    assert ready["Ready"] == "False"
    await bed.until_event("late", "DeadlineExceeded", "Pod was active on the node longer")
    await bed.stop_agent()
    await bed.start_agent()
    await bed.create("after", FOREVER)
    await bed.running("after")
    found = await bed.session.get(registry.POD, "default", "late")
    assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_deadline_set_later_counts_from_the_start(bed: NodeBed) -> None:
    await bed.create("late", FOREVER)
    await bed.running("late")
    await bed.session.patch(registry.POD, "default", "late", {"spec": {"activeDeadlineSeconds": 1}})
    await bed.until("late", lambda p: p.status.reason == "DeadlineExceeded")


async def test_resources_are_told_in_the_environment_and_in_files(bed: NodeBed) -> None:
    def field(resource: str, divisor: str = "1", **more: str) -> dict[str, object]:
        return {"resourceFieldRef": {"resource": resource, "divisor": divisor, **more}}

    env = [
        {"name": "CPU", "valueFrom": field("limits.cpu")},
        {"name": "MILLI", "valueFrom": field("requests.cpu", "1m")},
        {"name": "MEMORY", "valueFrom": field("limits.memory", "1Mi")},
    ]
    items = [{"path": "memory", **field("requests.memory", "1Ki", containerName="main")}]
    mount = {"name": "told", "mountPath": "/told"}
    limits = {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}
    await bed.create(
        "told",
        FOREVER,
        container={"env": env, "resources": limits, "volumeMounts": [mount]},
        volumes=[{"name": "told", "downwardAPI": {"items": items}}],
    )
    await bed.running("told")
    assert (await printed(bed, "told", "echo $CPU $MILLI $MEMORY $(cat /told/memory)")).split() == [
        "2", "250", "64", "32768",
    ]  # fmt: skip
