"""Seccomp profiles and the ways of mounting in real pods."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api import registry
from kubesvc.api.pods import Pod
from kubesvc.kernel import mounts
from kubesvc.node.runtime import Features, Runtime
from support.node import NodeBed, node_bed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
MODE = "grep ^Seccomp: /proc/self/status"
NO_NEW_DIRECTORIES = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
}


@pytest.fixture
async def bed() -> AsyncIterator[NodeBed]:
    async with node_bed() as made:
        made.config = replace(made.config, seccomp=made.directory / "seccomp")
        await made.start_agent()
        yield made


def profile(kind: str, file: str | None = None) -> dict[str, Any]:
    return {"seccompProfile": {"type": kind} | ({"localhostProfile": file} if file else {})}


def waiting(pod: Pod) -> Any:
    statuses = pod.status.container_statuses
    found = statuses[0].state.waiting if statuses else None
    return found if found is not None and found.message else None


async def test_system_calls_are_refused_as_a_pods_profile_says(bed: NodeBed) -> None:
    """A file's, the node's own, none; a container's own word goes before its pod's, and commands in it are held too."""
    (bed.directory / "seccomp/profiles").mkdir(parents=True)
    (bed.directory / "seccomp/profiles/dirs.json").write_text(json.dumps(NO_NEW_DIRECTORIES))
    file = profile("Localhost", "profiles/dirs.json")
    await bed.create("file", FOREVER, securityContext=file)
    await bed.create("own", FOREVER, securityContext=file, container={"securityContext": profile("RuntimeDefault")})
    await bed.create("free", FOREVER, securityContext=file, container={"securityContext": profile("Unconfined")})
    await bed.create("all", FOREVER, container={"securityContext": file | {"privileged": True}})
    for name in ("file", "own", "free", "all"):
        await bed.running(name)
    code, _, error = await bed.execute("file", ["mkdir", "/tmp/x"])
    assert code == 1
    assert b"No space left on device" in error
    assert await bed.printed("own", f"mkdir /tmp/x; {MODE}") == ["Seccomp:\t2"]
    threads = "import subprocess, threading as t; t.Thread(target=print, args=(1,)).start(); subprocess.run(['true'])"
    assert await bed.printed("own", f'python3 -S -c "{threads}"') == ["1"]  # clone3 is refused, and done without
    code, _, error = await bed.execute("own", ["unshare", "--user", "true"])
    assert b"Operation not permitted" in error
    for name in ("free", "all"):
        assert await bed.printed(name, f"mkdir /tmp/x; {MODE}") == ["Seccomp:\t0"]


async def test_a_missing_profile_is_waited_for(bed: NodeBed) -> None:
    path = bed.directory / "seccomp/absent.json"
    await bed.create("p", FOREVER, container={"securityContext": profile("Localhost", "absent.json")})
    found = waiting(await bed.until("p", waiting))
    assert found.reason == "CreateContainerError"
    told = f'cannot load seccomp profile "{path}": open {path}: no such file or directory'
    assert found.message == told
    await bed.until_event("p", "Failed", f"Error: {told}")
    path.parent.mkdir()
    path.write_text(json.dumps(NO_NEW_DIRECTORIES))
    await bed.running("p")


@contextmanager
def system(place: Path, flag: str = "--make-private") -> Iterator[Path]:
    """A file system of its own at `place`."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "test", str(place)], check=True)
    subprocess.run(["mount", flag, str(place)], check=True)
    try:
        yield place
    finally:
        mounts.unmount_all(place)


def test_a_mount_is_found_whatever_its_name(tmp_path: Path) -> None:
    """The mount that a path is on, and how it tells of others; spaces and letters of any alphabet in it."""
    with system(tmp_path / "a mount é", "--make-shared") as place:
        (place / "below").mkdir()
        assert mounts.mount_points(tmp_path) == [place]
        assert mounts.enclosing(place / "below") == (place, True, False)
    assert mounts.mount_points(tmp_path) == []


def volume(path: Path) -> list[dict[str, Any]]:
    return [{"name": "v", "hostPath": {"path": str(path)}}]


def mounted(**how: Any) -> dict[str, Any]:
    return {"volumeMounts": [{"name": "v", "mountPath": "/v", **how}]}


async def test_read_only_is_as_deep_as_asked_for(bed: NodeBed) -> None:
    """What is mounted below a volume is there, and writable unless it is said that it isn't; the status says which."""
    ways = {"plain": {}, "deep": {"recursiveReadOnly": "Enabled"}, "try": {"recursiveReadOnly": "IfPossible"}}
    with system(bed.directory / "tree") as place, system(place / "below"):
        for name, how in ways.items():
            await bed.create(name, FOREVER, volumes=volume(place), container=mounted(readOnly=True, **how))
        for name in ways:
            await bed.running(name)
            assert (await bed.execute(name, ["touch", "/v/x"]))[0] == 1
            deep = name != "plain"
            assert (await bed.execute(name, ["touch", "/v/below/x"]))[0] == (1 if deep else 0)
            assert await shown(bed, name) == ("Enabled" if deep else "Disabled")
        await bed.stop_agent()
        await bed.start_agent()
        await bed.create("again", FOREVER)
        await bed.running("again")
        assert [await shown(bed, name) for name in ways] == ["Disabled", "Enabled", "Enabled"]


async def shown(bed: NodeBed, name: str) -> str:
    """recursiveReadOnly in the status."""
    tree = await bed.session.get(registry.POD, "default", name)
    (found,) = (m for m in tree["status"]["containerStatuses"][0]["volumeMounts"] if m["name"] == "v")
    return str(found["recursiveReadOnly"])


async def test_later_mounts_are_seen_where_they_are_asked_for(bed: NodeBed) -> None:
    """The machine's by HostToContainer, a container's own on the machine by Bidirectional; neither by default. So it
    is with the next agent."""
    with system(bed.directory / "tree", "--make-shared") as place:
        for name in ("later", "both", "none"):
            (place / name).mkdir()
        privileged = {"securityContext": {"privileged": True}}
        ways = {
            "none": mounted(),
            "down": mounted(mountPropagation="HostToContainer"),
            "up": mounted(mountPropagation="Bidirectional") | privileged,
        }
        for name, container in ways.items():
            await bed.create(name, FOREVER, volumes=volume(place), container=container)
        for name in ways:
            await bed.running(name)
        subprocess.run(["mount", "-t", "tmpfs", "later", str(place / "later")], check=True)
        (place / "later/file").write_text("seen")
        await bed.stop_agent()
        await bed.start_agent()
        await bed.create("again", FOREVER)  # once it runs, the agent serves
        await bed.running("again")
        assert (await bed.execute("up", ["mount", "-t", "tmpfs", "both", "/v/both"]))[0] == 0
        (place / "both/file").write_text("seen")
        for name in ways:
            found = await bed.printed(name, "cd /v; ls later both; true")
            assert found.count("file") == (0 if name == "none" else 2)
            await bed.delete(name, grace_seconds=0)
            await bed.until_gone(name)
        assert (place / "later/file").exists()


async def test_containers_share_what_one_of_them_mounts(bed: NodeBed) -> None:
    """In an emptyDir; when the pod goes, nothing stays mounted and nothing in it is lost."""
    await bed.stop_agent()
    with system(bed.config.run_dir, "--make-shared"), system(bed.directory / "kept") as kept:
        await bed.start_agent()
        mount = {"name": "v", "mountPath": "/v"}
        driver = {
            "name": "driver",
            "image": "host",
            "command": ["/bin/sh", "-c", "mount --bind /kept /v/in && exec sleep infinity"],
            "restartPolicy": "Always",
            "securityContext": {"privileged": True},
            "volumeMounts": [
                mount | {"mountPropagation": "Bidirectional"},
                {"name": "kept", "mountPath": "/kept"},
            ],
            "startupProbe": {"exec": {"command": ["mountpoint", "/v/in"]}, "periodSeconds": 1},
        }
        first = {"name": "first", "image": "host", "command": ["mkdir", "/v/in"], "volumeMounts": [mount]}
        volumes = [{"name": "v", "emptyDir": {}}, {"name": "kept", "hostPath": {"path": str(kept)}}]
        container = {"volumeMounts": [mount | {"mountPropagation": "HostToContainer"}]}
        await bed.create("p", FOREVER, volumes=volumes, container=container, initContainers=[first, driver])
        await bed.running("p")
        (kept / "file").write_text("seen")
        assert await bed.printed("p", "cat /v/in/file") == ["seen"]
        await bed.delete("p")
        await bed.until_gone("p")
        assert mounts.mount_points(bed.config.run_dir / "pods") == []
        assert (kept / "file").read_text() == "seen"
        await bed.stop_agent()


async def test_what_a_machine_cannot_do_is_said(bed: NodeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is nobody's to share, a runtime that can't; and what isn't insisted on is done without."""

    async def cannot(runtime: Runtime) -> None:
        runtime.features = Features(seccomp=False, all_read_only=False)

    monkeypatch.setattr(Runtime, "learn_features", cannot)
    with system(bed.directory / "tree") as place:
        privileged = {"securityContext": {"privileged": True}}
        read_only = mounted(readOnly=True, recursiveReadOnly="Enabled")
        held = {"securityContext": profile("RuntimeDefault")}
        told = f'path "{place}" is mounted on "{place}" but it is not a shared'
        deep = 'volume "v" requested recursive read-only mode, but it is not supported by the runtime'
        for name, container, reason, message in (
            ("down", mounted(mountPropagation="HostToContainer"), "CreateContainerError", f"{told} or slave mount"),
            ("up", mounted(mountPropagation="Bidirectional") | privileged, "CreateContainerError", f"{told} mount"),
            ("deep", read_only, "CreateContainerConfigError", deep),
            ("held", mounted() | held, "CreateContainerError", "seccomp is not supported: runc or the kernel"),
        ):
            await bed.create(name, FOREVER, volumes=volume(place), container=container)
            found = waiting(await bed.until(name, waiting))
            assert found.reason == reason
            assert found.message.startswith(message)
            await bed.until_event(name, "Failed", f"Error: {message}")
        tried = mounted(readOnly=True, recursiveReadOnly="IfPossible")
        await bed.create("try", FOREVER, volumes=volume(place), container=tried)
        await bed.running("try")
        assert await shown(bed, "try") == "Disabled"
