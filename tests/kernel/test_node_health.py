"""A machine that can't: what its Node says, what goes on all the same, and that it gets well again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from kubesvc.api.pods import Pod
from kubesvc.kernel import mounts
from kubesvc.node import runtime
from support.node import NodeBed, node_bed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


@pytest.fixture
async def bed() -> AsyncIterator[NodeBed]:
    """A node whose pods live on a small file system of their own."""
    async with node_bed() as made:
        made.config = replace(made.config, health_interval=0.05)
        made.config.run_dir.mkdir()
        mounts.mount_tmpfs(made.config.run_dir, size="16m")
        try:
            await made.start_agent()
            yield made
        finally:
            await made.stop_agent()


async def until_condition(bed: NodeBed, kind: str, status: str) -> str:
    """Wait until the Node has it; its message."""

    def look() -> str | None:
        node = bed.nodes.get("", "node1")
        found = [c for c in node.status.conditions if (c.type, c.status) == (kind, status)] if node else []
        return found[0].message if found else None

    return await bed._wait(look, f"{kind} {status}")


async def test_a_full_disk_is_a_condition_and_pods_go_on(bed: NodeBed) -> None:
    await bed.create("runs", FOREVER)
    await bed.create("ends", FOREVER, restartPolicy="Never")
    await bed.running("runs")
    ends = await bed.running("ends")
    fill(bed.config.run_dir / "ballast")
    assert await until_condition(bed, "DiskPressure", "True") == "kubelet has disk pressure"
    await until_condition(bed, "Ready", "True")
    (pidfile,) = bed.config.paths.pod(ends.metadata.uid).containers.glob("main/*/pidfile")
    os.kill(int(pidfile.read_text()), 9)
    pod = await bed.until("ends", lambda p: p.status.phase == "Failed")
    assert pod.status.container_statuses[0].state.terminated.exit_code == 137
    await bed.create("late", FOREVER)
    await bed.until_event("late", "FailedCreatePodSandBox", "[Errno 28] No space left on device")
    (bed.config.run_dir / "ballast").unlink()
    await until_condition(bed, "DiskPressure", "False")
    await bed.running("late")
    assert await restarts(bed, "runs") == 0


async def test_a_full_disk_under_the_images_is_disk_pressure_too(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    mounts.mount_tmpfs(images, size="1m")
    try:
        async with node_bed() as bed:
            bed.config = replace(bed.config, images=images, health_interval=0.05)
            await bed.start_agent()
            await until_condition(bed, "DiskPressure", "False")
            fill(images / "ballast")
            await until_condition(bed, "DiskPressure", "True")
            await until_condition(bed, "Ready", "True")
            (images / "ballast").unlink()
            await until_condition(bed, "DiskPressure", "False")
    finally:
        mounts.unmount_all(images)


async def restarts(bed: NodeBed, name: str) -> int:
    pod: Pod = await bed.running(name)
    return pod.status.container_statuses[0].restart_count


def fill(path: Path) -> None:
    """With a file, to the last byte."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


async def test_a_node_without_its_runtime_is_not_ready_and_says_what_to_install(
    bed: NodeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is Ready when it is there again."""
    await until_condition(bed, "Ready", "True")
    search = runtime.SEARCH
    monkeypatch.setattr(runtime, "SEARCH", "/nowhere")
    told = await until_condition(bed, "Ready", "False")
    assert told.startswith("runc is not installed, and containers need it: apt install runc")
    monkeypatch.setattr(runtime, "SEARCH", search)
    await until_condition(bed, "Ready", "True")


async def test_a_node_that_may_not_write_says_so_instead_of_ending() -> None:
    """Even root can't make a directory inside /proc; the node is there, and not Ready."""
    async with node_bed() as bed:
        bed.config = replace(bed.config, run_dir=Path("/proc/kubesvc-nowhere"), health_interval=0.05)
        await bed.start_agent()
        told = await until_condition(bed, "Ready", "False")
        assert told == "/proc/kubesvc-nowhere: No such file or directory"
