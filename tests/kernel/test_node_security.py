"""A securityContext in real pods: who may do what, and whose the files are."""

from __future__ import annotations

from kubesvc.api import registry
from support.node import NodeBed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
DATA = {"name": "data", "mountPath": "/data"}


async def test_what_must_not_run_as_root_waits_and_says_why(bed: NodeBed) -> None:
    await bed.create("p", FOREVER, securityContext={"runAsNonRoot": True})
    pod = await bed.until("p", lambda p: p.status.container_statuses and p.status.container_statuses[0].state.waiting)
    waiting = pod.status.container_statuses[0].state.waiting
    assert waiting is not None
    assert waiting.reason == "CreateContainerConfigError"
    assert waiting.message.startswith("container has runAsNonRoot and image will run as root (pod: ")


async def test_files_belong_to_the_pods_group(bed: NodeBed) -> None:
    settings = {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}}
    await bed.session.create(registry.CONFIG_MAP, settings)
    volumes = [
        {"name": "data", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "files", "configMap": {"name": "settings", "defaultMode": 0o400}},
    ]
    mounts = [DATA, {"name": "memory", "mountPath": "/memory"}, {"name": "files", "mountPath": "/files"}]
    context = {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000}
    await bed.create("p", FOREVER, volumes=volumes, container={"volumeMounts": mounts}, securityContext=context)
    await bed.running("p")
    script = "id -G; stat -c '%a %g' /data /memory; stat -Lc '%a %g' /files/a; touch /data/x; stat -c %g /data/x"
    assert await bed.printed("p", script) == ["3000 2000", "2777 2000", "3777 2000", "440 2000", "2000"]
    assert await bed.printed("p", "cat /files/a") == ["1"]


async def test_a_privileged_container_mounts_and_an_ordinary_one_gains_nothing(bed: NodeBed) -> None:
    await bed.create("all", FOREVER, container={"securityContext": {"privileged": True}})
    await bed.create("less", FOREVER, container={"securityContext": {"allowPrivilegeEscalation": False}})
    await bed.running("all")
    await bed.running("less")
    grep = "grep NoNewPrivs /proc/self/status"
    assert await bed.printed("all", f"mount -t tmpfs none /mnt && {grep}") == ["NoNewPrivs:\t0"]
    assert await bed.printed("less", grep) == ["NoNewPrivs:\t1"]
    assert (await bed.execute("less", ["mount", "-t", "tmpfs", "none", "/mnt"]))[0] != 0


async def test_sysctls_are_set_in_the_pod_alone(bed: NodeBed) -> None:
    setting = {"name": "net.ipv4.ip_local_port_range", "value": "40000 40100"}
    await bed.create("own", FOREVER, securityContext={"sysctls": [setting]})
    await bed.create("other", FOREVER)
    await bed.running("own")
    await bed.running("other")
    read = "cat /proc/sys/net/ipv4/ip_local_port_range"
    assert await bed.printed("own", read) == ["40000\t40100"]
    assert await bed.printed("other", read) != ["40000\t40100"]


async def test_a_sub_path_is_made_of_the_containers_variables(bed: NodeBed) -> None:
    name = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    mounts = [DATA | {"subPathExpr": "logs/$(POD)"}, DATA | {"mountPath": "/all"}]
    volumes = [{"name": "data", "emptyDir": {}}]
    await bed.create("p", FOREVER, volumes=volumes, container={"env": [name], "volumeMounts": mounts})
    await bed.running("p")
    assert await bed.printed("p", "touch /data/x; cd /all; find . -type f") == ["./logs/p/x"]
    unknown = {"volumeMounts": [DATA | {"subPathExpr": "$(NOBODY)"}]}
    await bed.create("q", FOREVER, volumes=volumes, container=unknown)
    pod = await bed.until("q", lambda p: p.status.container_statuses and p.status.container_statuses[0].state.waiting)
    waiting = pod.status.container_statuses[0].state.waiting
    assert waiting is not None
    assert waiting.message == 'failed to expand subPathExpr "$(NOBODY)": missing value for "NOBODY"'
