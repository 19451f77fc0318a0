"""Volumes and last words of real pods."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api import registry
from kubesvc.api.pods import ContainerStateTerminated, Pod
from support.node import NodeBed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


async def test_downward_and_projected_volumes(bed: NodeBed) -> None:
    settings = {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1", "b": "2"}}
    await bed.session.create(registry.CONFIG_MAP, settings)
    token = {"token": base64.b64encode(b"s3cret").decode()}
    await bed.session.create(registry.SECRET, {"metadata": {"name": "key", "namespace": "default"}, "data": token})
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    name = {"path": "who/name", "mode": 0o400, "fieldRef": {"fieldPath": "metadata.name"}}
    sources = [
        {"configMap": {"name": "settings", "items": [{"key": "b", "path": "conf/b"}]}},
        {"secret": {"name": "key"}},
        {"downwardAPI": {"items": [{"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}]}},
    ]
    volumes = [
        {"name": "self", "downwardAPI": {"items": [labels, name]}},
        {"name": "all", "projected": {"sources": sources, "defaultMode": 0o440}},
    ]
    mounts = [{"name": "self", "mountPath": "/self"}, {"name": "all", "mountPath": "/all"}]
    meta = {"labels": {"app": "web", "tier": "1"}}
    await bed.create("files", FOREVER, volumes=volumes, container={"volumeMounts": mounts}, metadata=meta)
    pod = await bed.running("files")
    script = "cat /self/labels; echo; cat /self/who/name; echo; cat /all/conf/b /all/token; echo; cat /all/ip; echo; "
    code, out, error = await bed.execute("files", ["sh", "-c", script + "stat -Lc %a /self/who/name /all/token"])
    assert code == 0, error
    assert out.decode().splitlines() == [
        'app="web"', 'tier="1"', "files", "2s3cret", pod.status.pod_ip, "400", "440",
    ]  # fmt: skip


async def test_a_host_path_is_the_machines_own(bed: NodeBed) -> None:
    """It is made if it may be, written through, kept when the pod goes; of another type it is refused by name."""
    data = bed.directory / "data"
    volumes = [{"name": "v", "hostPath": {"path": str(data), "type": "DirectoryOrCreate"}}]
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}
    await bed.create("writer", FOREVER, volumes=volumes, container=mount)
    await bed.running("writer")
    assert (await bed.execute("writer", ["sh", "-c", "echo kept > /data/file"]))[0] == 0
    await bed.delete("writer", grace_seconds=1)
    await bed.until_gone("writer")
    assert (data / "file").read_text() == "kept\n"
    wrong = [{"name": "v", "hostPath": {"path": str(data), "type": "File"}}]
    await bed.create("wrong", FOREVER, volumes=wrong, container=mount)
    await bed.until_event("wrong", "FailedMount", 'MountVolume.SetUp failed for volume "v" : hostPath type check')


async def bind(bed: NodeBed, name: str, **meta: Any) -> Path:
    """A claim and its volume, as the controllers leave them; the directory."""
    directory, spec = bed.directory / name, {"accessModes": ["ReadWriteOnce"]}
    volume = spec | {"capacity": {"storage": "1Gi"}, "hostPath": {"path": str(directory)}}
    volume |= {"claimRef": {"namespace": "default", "name": name}}
    await bed.session.create(registry.PERSISTENT_VOLUME, {"metadata": {"name": name}, "spec": volume})
    claim = spec | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
    tree = {"metadata": {"name": name, "namespace": "default", **meta}, "spec": claim}
    await bed.session.create(registry.PERSISTENT_VOLUME_CLAIM, tree)
    bound = {"status": {"phase": "Bound"}}
    await bed.session.patch(registry.PERSISTENT_VOLUME_CLAIM, "default", name, bound, subresource="status")
    return directory


async def test_an_ephemeral_volume_is_its_own_claims_directory(bed: NodeBed) -> None:
    """One that only has the name of it is not; a claim mounted read-only can't be written to."""
    (await bind(bed, "data")).mkdir()
    await bind(bed, "files-scratch")
    template = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    volumes = [
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
    ]
    mounts = [{"name": "scratch", "mountPath": "/scratch"}, {"name": "data", "mountPath": "/data"}]
    made = await bed.create("files", FOREVER, volumes=volumes, container={"volumeMounts": mounts})
    told = "PVC default/files-scratch was not created for pod default/files (pod is not owner)"
    await bed.until_event("files", "FailedMount", told)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "files", "uid": made["metadata"]["uid"], "controller": True}
    patch = {"metadata": {"ownerReferences": [owner]}}
    await bed.session.patch(registry.PERSISTENT_VOLUME_CLAIM, "default", "files-scratch", patch)
    await bed.running("files")
    script = "echo kept > /scratch/file; touch /data/file 2>/dev/null || echo read-only"
    assert await bed.printed("files", script) == ["read-only"]
    assert (bed.directory / "files-scratch" / "file").read_text() == "kept\n"


async def until_reads(bed: NodeBed, name: str, script: str, expected: str) -> None:
    """Follow the output of a loop in the pod until a line of it is `expected`."""
    look = f"out=$( ({script}; echo) 2>&1 | tr '\\n' ' ')"
    loop = f"while :; do {look}; [ \"$out\" = '{expected} ' ] && exit 0; sleep 0.05; done"
    code, _, _ = await bed.execute(name, ["sh", "-c", loop])
    assert code == 0


async def test_mounted_files_follow_their_objects(bed: NodeBed) -> None:
    """A changed key, a new one, one that is gone; a label of the pod; but never what a subPath mounted."""
    meta = {"name": "settings", "namespace": "default"}
    await bed.session.create(registry.CONFIG_MAP, {"metadata": meta, "data": {"a": "1", "b": "2"}})
    await bed.session.create(
        registry.SECRET, {"metadata": {"name": "key", "namespace": "default"}, "data": {"token": _encoded("old")}}
    )
    label = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "conf", "configMap": {"name": "settings"}},
        {"name": "all", "projected": {"sources": [{"secret": {"name": "key"}}, {"downwardAPI": {"items": [label]}}]}},
    ]
    mounts = [
        {"name": "conf", "mountPath": "/conf"},
        {"name": "conf", "mountPath": "/one", "subPath": "a"},
        {"name": "all", "mountPath": "/all"},
    ]
    await bed.create(
        "files", FOREVER, volumes=volumes, container={"volumeMounts": mounts}, metadata={"labels": {"v": "1"}}
    )
    await bed.running("files")
    await bed.session.patch(registry.CONFIG_MAP, "default", "settings", {"data": {"a": "one", "b": None, "c": "3"}})
    await until_reads(bed, "files", "ls /conf; cat /conf/a", "a c one")
    await bed.session.patch(registry.SECRET, "default", "key", {"data": {"token": _encoded("new")}})
    await until_reads(bed, "files", "cat /all/token", "new")
    await bed.session.patch(registry.POD, "default", "files", {"metadata": {"labels": {"v": "2"}}})
    await until_reads(bed, "files", "cat /all/labels", 'v="2"')
    assert (await bed.execute("files", ["cat", "/one"]))[1] == b"1"


async def test_mounted_files_outlive_their_object_and_follow_the_next_of_that_name(bed: NodeBed) -> None:
    tree: dict[str, Any] = {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}}
    await bed.session.create(registry.CONFIG_MAP, tree)
    volumes = [{"name": "conf", "configMap": {"name": "settings"}}]
    mount = {"volumeMounts": [{"name": "conf", "mountPath": "/conf"}]}
    await bed.create("files", FOREVER, volumes=volumes, container=mount)
    await bed.running("files")
    await bed.session.delete(registry.CONFIG_MAP, "default", "settings")
    told = 'MountVolume.SetUp failed for volume "conf" : configmap "settings" not found'
    await bed.until_event("files", "FailedMount", told)
    assert (await bed.execute("files", ["cat", "/conf/a"]))[1] == b"1"
    await bed.session.create(registry.CONFIG_MAP, tree | {"data": {"a": "2"}})
    await until_reads(bed, "files", "cat /conf/a", "2")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("script", "container", "message"),
    [
        ("echo bye > /dev/termination-log; exit 3", {}, "bye\n"),
        ("echo own > /tmp/last; exit 3", {"terminationMessagePath": "/tmp/last"}, "own\n"),
        ("echo of the log; exit 3", {"terminationMessagePolicy": "FallbackToLogsOnError"}, "of the log\n"),
        ("echo of the log; exit 0", {"terminationMessagePolicy": "FallbackToLogsOnError"}, ""),
        ("head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 1", {}, "x" * 4096),
    ],
    ids=["the file", "another file", "the log", "not after success", "not without end"],
)
async def test_last_words(bed: NodeBed, script: str, container: dict[str, Any], message: str) -> None:
    await bed.create("last", ["/bin/sh", "-c", script], container=container, restartPolicy="Never")

    def ended(pod: Pod) -> ContainerStateTerminated | None:
        statuses = pod.status.container_statuses
        return statuses[0].state.terminated if statuses else None

    found = ended(await bed.until("last", ended))
    assert found is not None
    assert found.message == message
