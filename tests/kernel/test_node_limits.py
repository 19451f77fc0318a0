"""Resources and restarts of real containers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api.pods import Pod
from kubesvc.node import cgroups, runtime
from support.box import eventually
from support.node import NodeBed, node_bed
from support.watching import DEADLINE

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


def main_status(pod: Pod) -> Any:
    return pod.status.container_statuses[0] if pod.status.container_statuses else None


def _in_group(bed: NodeBed, pod: Pod, names: tuple[str, ...]) -> str:
    """What the container's control group says under the first of `names` that there is: cgroup v1's, then v2's."""
    id_ = main_status(pod).container_id.removeprefix("runc://")
    group = f"{bed.config.cgroup}/{id_}".lstrip("/")
    found = [root / group / name for root in cgroups.roots() for name in names]
    return next(path for path in found if path.exists()).read_text().split()[0]


async def test_limits_are_the_control_groups(bed: NodeBed) -> None:
    limits = {"resources": {"limits": {"cpu": "250m", "memory": "48Mi"}}}
    await bed.create("small", FOREVER, container=limits)
    pod = await bed.running("small")
    assert int(_in_group(bed, pod, ("memory.limit_in_bytes", "memory.max"))) == 48 << 20
    assert int(_in_group(bed, pod, ("cpu.cfs_quota_us", "cpu.max"))) == 25_000


async def test_a_container_that_takes_more_memory_than_its_limit_is_oom_killed(bed: NodeBed) -> None:
    eat = ["/usr/bin/python3", "-S", "-c", "x = b'x' * (256 << 20)"]
    await bed.create("eater", eat, container={"resources": {"limits": {"memory": "32Mi"}}}, restartPolicy="Never")
    pod = await bed.until("eater", lambda p: p.status.phase == "Failed")
    ended = main_status(pod).state.terminated
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)


async def test_without_control_groups_a_limit_is_a_warning(bed: NodeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod runs all the same."""
    monkeypatch.setattr(cgroups, "writable", lambda: False)
    await bed.stop_agent()
    await bed.start_agent()
    await bed.create("free", FOREVER, container={"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}})
    await bed.running("free")
    await bed.until_event("free", "LimitsNotEnforced", "limits of cpu and memory are not enforced: this node has no")


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (42, "Error")])
async def test_the_status_has_the_exit_code(bed: NodeBed, code: int, reason: str) -> None:
    await bed.create("end", ["/bin/sh", "-c", f"exit {code}"], restartPolicy="Never")
    pod = await bed.until("end", lambda p: p.status.phase in ("Succeeded", "Failed"))
    ended = main_status(pod).state.terminated
    assert (ended.exit_code, ended.reason) == (code, reason)


async def test_a_killed_program_has_its_signals_exit_code(bed: NodeBed) -> None:
    """From outside: the first process of a PID namespace can't be killed from within."""
    await bed.create("end", FOREVER, restartPolicy="Never")
    pod = await bed.running("end")
    (bundle,) = bed.config.paths.pod(pod.metadata.uid).containers.glob("main/*/pidfile")
    os.kill(int(bundle.read_text()), signal.SIGKILL)
    pod = await bed.until("end", lambda p: p.status.phase == "Failed")
    ended = main_status(pod).state.terminated
    assert (ended.exit_code, ended.reason) == (137, "Error")


async def test_a_crash_loop_backs_off(bed: NodeBed) -> None:
    """The first restart is at once, the second waits; the status says so in upstream's words."""
    await bed.create("crash", ["/bin/sh", "-c", "exit 7"])

    def backing_off(pod: Pod) -> bool:
        status = main_status(pod)
        return bool(status and status.state.waiting and status.state.waiting.reason == "CrashLoopBackOff")

    pod = await bed.until("crash", backing_off)
    status = main_status(pod)
    assert status.restart_count == 1
    assert status.last_state.terminated.exit_code == 7
    assert status.state.waiting.message.startswith("back-off 10s restarting failed container=main pod=crash_default(")
    assert pod.status.phase == "Running"


async def test_init_containers_and_sidecars_start_in_order_and_end_in_reverse(bed: NodeBed) -> None:
    """A sidecar starts between its neighbours, is there for all that follows, and outlives the main container."""
    share = {"volumeMounts": [{"name": "told", "mountPath": "/told"}], "image": "host"}

    def step(name: str, *, first: str = "", then: str = "") -> dict[str, Any]:
        return {"name": name, "command": ["/bin/sh", "-c", f"{first} echo {name} >> /told/order; {then}"], **share}

    wait = "while :; do sleep 0.1; done"
    until_told = "while ! grep -q side /told/order; do sleep 0.05; done"
    side = step("side", first="trap 'echo side-ends >> /told/order; exit 0' TERM;", then=wait)
    inits = [step("first"), side | {"restartPolicy": "Always"}, step("last", then=until_told)]
    told = bed.directory / "told"
    main = f"trap 'echo main-ends >> /told/order; exit 0' TERM; echo main >> /told/order; {wait}"
    volumes = [{"name": "told", "hostPath": {"path": str(told), "type": "DirectoryOrCreate"}}]
    await bed.create("ordered", ["/bin/sh", "-c", main], container=share, volumes=volumes, initContainers=inits)
    pod = await bed.running("ordered")
    assert [s.name for s in pod.status.init_container_statuses] == ["first", "side", "last"]
    assert [bool(s.state.running) for s in pod.status.init_container_statuses] == [False, True, False]
    await asyncio.to_thread(eventually, lambda: "main" in (told / "order").read_text(), what="it would hear a SIGTERM")
    await bed.delete("ordered")
    await bed.until_gone("ordered")
    assert (told / "order").read_text().split() == ["first", "side", "last", "main", "main-ends", "side-ends"]


async def test_a_pod_that_has_done_its_work_ends_its_sidecars_the_last_one_first(bed: NodeBed) -> None:
    told = bed.directory / "told"
    share = {"volumeMounts": [{"name": "told", "mountPath": "/told"}], "image": "host"}

    def side(name: str) -> dict[str, Any]:
        script = f"trap 'echo {name} >> /told/order; exit 0' TERM; touch /told/{name}; while :; do sleep 0.1; done"
        return {"name": name, "command": ["/bin/sh", "-c", script], "restartPolicy": "Always", **share}

    await bed.create(
        "works",
        ["/bin/sh", "-c", "until [ -e /told/one ] && [ -e /told/two ]; do sleep 0.05; done; echo main >> /told/order"],
        container=share,
        volumes=[{"name": "told", "hostPath": {"path": str(told), "type": "DirectoryOrCreate"}}],
        initContainers=[side("one"), side("two")],
        restartPolicy="Never",
    )
    pod = await bed.until("works", lambda p: p.status.phase == "Succeeded")
    assert all(s.state.terminated for s in pod.status.init_container_statuses)
    assert (told / "order").read_text().split() == ["main", "two", "one"]


async def test_a_log_begins_anew_when_it_is_full_and_a_follower_misses_nothing(
    bed: NodeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that keeps up: what a second new beginning took away before it was read, nobody has."""
    monkeypatch.setattr(runtime, "MAX_LOG", 64 << 10)
    told = bed.directory / "told"
    volumes = [{"name": "told", "hostPath": {"path": str(told), "type": "DirectoryOrCreate"}}]
    mount = {"volumeMounts": [{"name": "told", "mountPath": "/told"}]}
    until_told = "[ $((i % 500)) != 0 ] || until [ -e /told/$i ]; do sleep 0.01; done"
    script = f"i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i + 1)); {until_told}; done"
    await bed.create("talker", ["/bin/sh", "-c", script], container=mount, volumes=volumes, restartPolicy="Never")
    await bed.until("talker", lambda p: main_status(p) and main_status(p).state.running)
    assert await followed(bed, "talker", told) == [f"line {number}" for number in range(4000)]
    assert len((await bed.log("talker")).splitlines()) < 4000


async def followed(bed: NodeBed, name: str, told: Path) -> list[str]:
    """The log as a follower sees it, who says in `told` how much it has: after every 500 lines, half a file."""
    lines: list[str] = []
    url = bed.url(f"/containerLogs/default/{name}/main?follow=true")
    async with asyncio.timeout(DEADLINE), bed.http() as http, http.get(url) as answer:
        async for line in answer.content:
            lines.append(line.decode().rstrip("\n"))
            if len(lines) % 500 == 0:
                (told / str(len(lines))).touch()
    return lines


async def test_large_logs_are_put_aside_and_read_all_the_same() -> None:
    """Of five put aside three are kept; a follower and `--previous` see what is there."""
    script = "i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i + 1)); [ $((i % 50)) = 0 ] && sleep 0.02; done"
    async with node_bed() as bed:
        bed.config = replace(bed.config, log_max_size=32 << 10, log_max_files=4, log_interval=0.02)
        await bed.start_agent()
        await bed.create("talker", ["/bin/sh", "-c", f"sleep 0.5; {script}; exit 1"], restartPolicy="OnFailure")
        await bed.until("talker", lambda p: main_status(p) and main_status(p).state.running)
        followed = (await bed.log("talker", "follow=true")).splitlines()
        assert followed == [f"line {number}" for number in range(4000)]
        pod = await bed.until("talker", lambda p: main_status(p).restart_count == 1)
        directory = bed.config.paths.pod(pod.metadata.uid).log("main", 0).parent
        assert len(list(directory.glob("0.log.*"))) == 3
        kept = (await bed.log("talker", "previous=true")).splitlines()
        assert kept == followed[-len(kept) :]
        assert sum(path.stat().st_size for path in directory.glob("0.log*")) > 3 * (32 << 10)
        assert (await bed.log("talker", "previous=true&tailLines=1500")).splitlines() == followed[-1500:]
