"""What real pods keep on disk, and what becomes of those that keep too much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api import registry as kinds
from kubesvc.api.pods import Pod
from kubesvc.node import diskusage
from support.box import eventually
from support.images import Built, Registry, busybox, registry
from support.node import NodeBed, is_ready, node_bed
from support.watching import DEADLINE

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
DATA = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
WRITE = "head -c 200000 /dev/zero > {}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """It listens in the network namespace the test began in."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
async def watching() -> AsyncIterator[NodeBed]:
    async with node_bed(outside=True) as made:
        made.config = replace(made.config, storage_interval=0.05)
        await made.start_agent()
        yield made


def on_disk(limit: str | None) -> list[dict[str, Any]]:
    return [{"name": "data", "emptyDir": {"sizeLimit": limit} if limit else {}}]


def failed(pod: Pod) -> bool:
    return pod.status.phase == "Failed"


async def test_a_pod_whose_volume_is_too_full_is_evicted(watching: NodeBed) -> None:
    """Its containers end, its files go, its log stays; a pod beside it with as much and no limit goes on."""
    bed, told = watching, 'Usage of EmptyDir volume "data" exceeds the limit "100k".'
    await bed.create("free", FOREVER, container=DATA, volumes=on_disk(None))
    await bed.create("held", FOREVER, container=DATA, volumes=on_disk("100000"))
    for name in ("free", "held"):
        await bed.running(name)
    assert (await bed.execute("free", ["sh", "-c", WRITE.format("/data/file")]))[0] == 0
    await bed.execute("held", ["sh", "-c", "echo bye > /proc/1/fd/1; " + WRITE.format("/data/file")])
    pod = await bed.until("held", failed)
    assert (pod.status.reason, pod.status.message) == ("Evicted", told)
    assert not is_ready(pod)
    assert pod.status.container_statuses[0].state.terminated is not None
    await bed.until_event("held", "Evicted", told)
    await bed.until_event("held", "Killing", "Stopping container main")
    paths = bed.config.paths.pod(pod.metadata.uid)
    places = (paths.volumes, paths.bundle("main", 0) / "rootfs")
    await asyncio.to_thread(eventually, lambda: not any(place.exists() for place in places))
    assert await bed.log("held") == "bye\n"
    free = bed.pods.get("default", "free")
    assert free is not None
    assert is_ready(free)


async def test_an_evicted_pod_stays_so_for_the_next_agent(watching: NodeBed) -> None:
    """Nor does a pod within its limits that an earlier agent began escape the next one's eyes."""
    bed = watching
    for name in ("first", "second"):
        await bed.create(name, FOREVER, container=DATA, volumes=on_disk("100Ki"))
        await bed.running(name)
    await bed.execute("first", ["sh", "-c", WRITE.format("/data/file")])
    before = await bed.until("first", failed)
    await bed.stop_agent()
    second = bed.pods.get("default", "second")
    assert second is not None
    volume = bed.config.paths.pod(second.metadata.uid).volume("data")
    (volume / "file").write_bytes(bytes(200_000))
    await bed.start_agent()
    pod = await bed.until("second", failed)
    assert pod.status.message == 'Usage of EmptyDir volume "data" exceeds the limit "100Ki".'
    assert pod.status.container_statuses[0].restart_count == 0
    first = bed.pods.get("default", "first")
    assert first is not None
    assert (first.status.reason, first.status.message) == (before.status.reason, before.status.message)
    await bed.delete("first")
    await bed.until_gone("first")


async def test_what_a_container_writes_counts_for_its_limit(watching: NodeBed, served: Registry) -> None:
    """In the machine's image and in one of layers; the layers themselves don't count."""
    bed, limits = watching, {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}
    busy = served.push(Built([busybox()], Env=["PATH=/bin"]), "busybox:1")
    for name, image in (("host", "host"), ("busy", busy), ("idle", busy)):
        await bed.create(name, FOREVER, container=limits | {"image": image})
        await bed.running(name)
    await bed.execute("host", ["sh", "-c", "head -c 2000000 /dev/zero > /tmp/file"])
    await bed.execute("busy", ["sh", "-c", "cat /bin/sh /bin/sh > /file"])
    for name in ("host", "busy"):
        pod = await bed.until(name, failed)
        assert pod.status.reason == "Evicted"
        assert pod.status.message == "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi."
    idle = bed.pods.get("default", "idle")
    assert idle is not None
    assert is_ready(idle)


async def test_a_node_has_the_disk_that_pods_may_ask_for(watching: NodeBed) -> None:
    """Without it nothing with a limit would ever be scheduled."""
    node = await watching.session.get(kinds.NODE, "", "node1")
    found = os.statvfs(watching.directory)
    assert node["status"]["allocatable"]["ephemeral-storage"] == f"{found.f_blocks * found.f_frsize >> 10}Ki"


async def test_a_volume_in_memory_is_full_at_its_limit(watching: NodeBed) -> None:
    """Whatever the limit is written in."""
    bed, volumes = watching, [{"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1.5Mi"}}]
    await bed.create("p", FOREVER, container=DATA, volumes=volumes)
    await bed.running("p")
    code, _, error = await bed.execute("p", ["sh", "-c", "head -c 2000000 /dev/zero > /data/file"])
    assert code == 1
    assert b"No space left on device" in error
    assert await bed.printed("p", "stat -c %s /data/file") == [str(3 << 19)]


async def test_a_pod_without_limits_costs_nothing(watching: NodeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is counted for it: who has a limit is counted alone."""
    bed, counted = watching, asyncio.Queue[list[Path]]()
    measure = diskusage.measure

    async def counting(paths: Iterable[Path]) -> dict[str, int]:
        counted.put_nowait(found := list(paths))
        return await measure(found)

    monkeypatch.setattr(diskusage, "measure", counting)
    await bed.create("free", FOREVER, container=DATA, volumes=on_disk(None))
    await bed.running("free")
    assert counted.empty()
    await bed.create("held", FOREVER, container=DATA, volumes=on_disk("1Mi"))
    pod = await bed.running("held")
    async with asyncio.timeout(DEADLINE):
        assert await counted.get() == [bed.config.paths.pod(pod.metadata.uid).volume("data")]


async def test_a_log_counts_for_its_container(watching: NodeBed) -> None:
    """The pod as a whole has room: another container's limit is large."""
    bed, limits = watching, {"resources": {"limits": {"ephemeral-storage": "100Ki"}}}
    other = {"name": "other", "image": "host", "command": FOREVER}
    other["resources"] = {"limits": {"ephemeral-storage": "1Gi"}}
    talk = ["/bin/sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    main = {"name": "main", "image": "host", "command": talk, **limits}
    await bed.create("held", FOREVER, containers=[main, other])
    pod = await bed.until("held", failed)
    assert pod.status.message == 'Container main exceeded its local ephemeral storage limit "100Ki".'


async def test_what_is_measured_is_blocks_on_one_file_system(watching: NodeBed) -> None:
    """A hole takes no room, a link none a second time; what isn't there is left out."""
    place = watching.directory / "place"
    place.mkdir()
    (place / "full").write_bytes(bytes(100_000))
    (place / "link").hardlink_to(place / "full")
    with (place / "hole").open("wb") as file:
        file.truncate(1 << 30)
    found = await diskusage.measure([place, watching.directory / "absent"])
    assert list(found) == [str(place)]
    assert 100_000 <= found[str(place)] < 200_000
