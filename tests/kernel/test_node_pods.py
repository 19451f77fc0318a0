"""Pods for real: runc and conmon, in a namespace of the test's own, against an API server in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from kubesvc.api import registry
from kubesvc.api.pods import Pod
from kubesvc.api.registry import Kind
from kubesvc.client.session import STRATEGIC_PATCH, Session
from kubesvc.kernel import mounts
from kubesvc.kernel.links import PROTO_KUBESVC, Links
from kubesvc.node import cgroups, exits, processes, routes
from kubesvc.node.records import ContainerRecord, load
from kubesvc.node.teardown import teardown
from kubesvc.node.withdrawal import Withdrawal
from support.node import NodeBed, is_ready, node_bed, process_end
from support.watching import DEADLINE

SERVER = ["/usr/bin/python3", "-S", "-m", "http.server", "8000"]
FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
STUBBORN = ["/bin/sh", "-c", "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done"]


def main_status(pod: Pod) -> Any:
    return pod.status.container_statuses[0]


def record_of(bed: NodeBed, pod: Pod, name: str = "main") -> ContainerRecord:
    """Of a container in its present attempt; one that isn't main in its first."""
    paths = bed.config.paths.pod(pod.metadata.uid)
    attempt = main_status(pod).restart_count if name == "main" else 0
    found = load(paths.bundle(name, attempt) / "container.json", ContainerRecord)
    assert found is not None
    return found


def alive(pid: int) -> bool:
    return processes.start_time(pid) != 0


async def test_the_node_registers_with_addresses_conditions_and_labels(bed: NodeBed) -> None:
    node = await bed.session.get(registry.NODE, "", "node1")
    assert {"type": "InternalIP", "address": "172.29.99.2"} in node["status"]["addresses"]
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert (conditions["Ready"], conditions["NetworkUnavailable"]) == ("True", "False")
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node1"
    assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250


async def test_a_forced_deletion_does_not_wait_for_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice still offers the pod and no node says a word; `kubectl delete --force --grace-period=0` ends it now,
    whatever its program does about SIGTERM."""
    waiting, wait = asyncio.Event(), Withdrawal.wait

    async def observed(self: Withdrawal, *arguments: Any) -> None:
        waiting.set()
        await wait(self, *arguments)

    monkeypatch.setattr(Withdrawal, "wait", observed)
    async with node_bed() as bed:
        bed.config = replace(bed.config, withdrawal_wait=600.0)
        await bed.start_agent()
        await bed.create("web", STUBBORN, terminationGracePeriodSeconds=1000)
        pod = await bed.running("web")
        await until_log(bed, "web", "up")  # its trap is set
        offered = {"kind": "Pod", "name": "web", "namespace": "default", "uid": pod.metadata.uid}
        endpoint = {"addresses": [pod.status.pod_ip], "targetRef": offered, "conditions": {"ready": True}}
        tree = {"metadata": {"name": "web-1", "namespace": "default"}, "addressType": "IPv4", "endpoints": [endpoint]}
        await bed.session.create(registry.ENDPOINT_SLICE, tree)
        pid = record_of(bed, pod).pid
        await bed.delete("web")
        await asyncio.wait_for(waiting.wait(), DEADLINE)
        assert alive(pid)
        await bed.delete("web", grace_seconds=0)
        await process_end(pid)


@pytest.mark.parametrize("when", ["at once", "in its grace", "in its preStop"])
@pytest.mark.parametrize("kept", [False, True], ids=["vanishes", "kept by a finalizer"])
async def test_a_forced_deletion_ends_what_ignores_sigterm(bed: NodeBed, when: str, kept: bool) -> None:
    """A sidecar, which ends after the others, too."""
    side = {"name": "side", "image": "host", "command": STUBBORN, "restartPolicy": "Always"}
    script = "echo asked > /proc/1/fd/1; sleep 1000"
    hook = {"lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", script]}}}}
    container = hook if when == "in its preStop" else {}
    await bed.create("rude", STUBBORN, initContainers=[side], terminationGracePeriodSeconds=1000, container=container)
    pod = await bed.running("rude")
    await until_log(bed, "rude", "up")
    pids = [record_of(bed, pod, name).pid for name in ("main", "side")]
    if kept:
        await bed.session.patch(registry.POD, "default", "rude", {"metadata": {"finalizers": ["example.com/kept"]}})
    if when != "at once":
        await bed.delete("rude")
        await until_log(bed, "rude", "asked")
        assert all(map(alive, pids))
    await bed.delete("rude", grace_seconds=0)
    for pid in pids:
        await process_end(pid)
    if kept:
        assert bed.pods.get("default", "rude")
        await bed.session.patch(registry.POD, "default", "rude", {"metadata": {"finalizers": []}})
    await bed.until_gone("rude")


@pytest.mark.parametrize(("begun", "phase"), [(True, "Succeeded"), (False, "Failed")], ids=["begun", "never begun"])
async def test_a_pod_that_somebody_holds_says_how_it_ended(bed: NodeBed, begun: bool, phase: str) -> None:
    """A Job counts its pods by that, also those that no agent came to before they were deleted."""
    if not begun:
        await bed.stop_agent()
    await bed.create("held", FOREVER, metadata={"finalizers": ["example.com/held"]})
    if begun:
        await bed.running("held")
    await bed.delete("held")
    if not begun:
        await bed.start_agent()
    await bed.until("held", lambda p: p.status.phase == phase and p.metadata.deletion_grace_period_seconds == 0)
    await bed.session.patch(registry.POD, "default", "held", {"metadata": {"finalizers": []}})
    await bed.until_gone("held")


async def test_a_pod_that_has_gone_but_is_held_is_not_begun_again(
    bed: NodeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes at its object: what it came to is told."""
    told, delete = [], Session.delete

    async def observed(self: Session, kind: Kind, namespace: str, name: str, **options: Any) -> Any:
        if options.get("grace_seconds") == 0:
            told.append(name)
        return await delete(self, kind, namespace, name, **options)

    monkeypatch.setattr(Session, "delete", observed)
    await bed.create("held", FOREVER, metadata={"finalizers": ["example.com/held"]})
    await bed.running("held")
    await bed.delete("held")
    await bed.until("held", lambda p: p.metadata.deletion_grace_period_seconds == 0)
    await bed.session.patch(registry.POD, "default", "held", {"metadata": {"labels": {"seen": "yes"}}})
    await bed.create("next", FOREVER)
    await bed.running("next")  # the agent has seen the change by now
    assert told == ["held"]


async def test_a_pod_runs_answers_and_goes_with_everything_it_had(bed: NodeBed) -> None:
    await bed.create("web", SERVER, container={"readinessProbe": {"httpGet": {"port": 8000, "path": "/etc/hostname"}}})
    pod = await bed.running("web")
    assert pod.status.pod_ip.startswith("10.244.9.")
    async with aiohttp.ClientSession() as http, http.get(f"http://{pod.status.pod_ip}:8000/etc/hostname") as answer:
        assert await answer.text() == "web\n"
    record = record_of(bed, pod)
    with Links() as links:
        assert next(r for r in links.routes() if r.to == ip_network(pod.status.pod_ip)).proto == PROTO_KUBESVC
        await bed.delete("web", grace_seconds=1)
        await bed.until_gone("web")
        await bed.stop_agent()
        assert set(links.names()) == {"lo"}
    assert not alive(record.pid)
    assert list(bed.config.paths.pods.iterdir()) == []
    assert list(bed.config.paths.exits.iterdir()) == []
    assert not any((root / bed.config.cgroup.lstrip("/") / record.id).exists() for root in cgroups.roots())


async def test_the_host_image_gives_programs_and_no_secrets(bed: NodeBed) -> None:
    script = """
        for f in /etc/shadow /root/.ssh /etc/ssh /etc/ssl/private /work /root/.bashrc; do
            [ -e $f ] && echo "leak: $f"
        done
        touch /usr/x 2>/dev/null && echo "leak: /usr is writable"
        touch /proc/sys/kernel/panic 2>/dev/null && echo "leak: /proc/sys is writable"
        touch /tmp/x /run/x /root/x /x && echo writable
        hostname; id -un; sleep 1000
    """
    await bed.create("look", ["/bin/sh", "-c", script])
    await bed.running("look")
    text = await until_log(bed, "look", "root")
    assert text.split() == ["writable", "look", "root"]


async def until_log(bed: NodeBed, name: str, word: str, begun: asyncio.Event | None = None) -> str:
    """Follow the log until `word` is in it; `begun` is set once something is."""
    text = ""
    url = bed.url(f"/containerLogs/default/{name}/main?follow=true")
    async with asyncio.timeout(60), bed.http() as http, http.get(url) as answer:
        async for piece in answer.content.iter_any():
            text += piece.decode()
            if begun is not None:
                begun.set()
            if word in text:
                return text
    raise AssertionError(f"the log ended without {word!r}: {text}")


async def test_environment_volumes_and_files_of_a_pod(bed: NodeBed) -> None:
    meta = {"namespace": "default"}
    await bed.session.create(
        registry.CONFIG_MAP, {"metadata": {"name": "settings", **meta}, "data": {"a.conf": "colour=red\n", "SIZE": "3"}}
    )
    secret = {"TOKEN": base64.b64encode(b"s3cret").decode()}
    await bed.session.create(registry.SECRET, {"metadata": {"name": "key", **meta}, "data": secret})
    script = """
        echo $SIZE-$TOKEN-$POD-$IP; cat /conf/a.conf; stat -L -c %a /conf/a.conf; cat /one; cat /secret/TOKEN; echo
        grep aliased /etc/hosts; cat /etc/resolv.conf; echo shared > /cache/x; cat /sub/x
        touch /conf/x 2>/dev/null || echo read-only
        echo $KUBERNETES_SERVICE_HOST $(ARG); sleep 1000
    """
    field = {"fieldRef": {"fieldPath": "metadata.name"}}
    container = {
        "args": [script],
        "command": ["/bin/sh", "-c"],
        "env": [
            {"name": "POD", "valueFrom": field},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "TOKEN"}}},
            {"name": "ARG", "value": "expanded"},
        ],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "volumeMounts": [
            {"name": "conf", "mountPath": "/conf"},
            {"name": "conf", "mountPath": "/one", "subPath": "a.conf"},
            {"name": "secret", "mountPath": "/secret"},
            {"name": "cache", "mountPath": "/cache"},
            {"name": "cache", "mountPath": "/sub"},
        ],
    }
    volumes = [
        {"name": "conf", "configMap": {"name": "settings", "defaultMode": 0o640}},
        {"name": "secret", "secret": {"secretName": "key"}},
        {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    aliases = [{"ip": "10.1.1.1", "hostnames": ["aliased"]}]
    await bed.create("all", [], container=container, volumes=volumes, hostAliases=aliases)
    pod = await bed.running("all")
    text = await until_log(bed, "all", "expanded")
    assert text.splitlines() == [
        f"3-s3cret-all-{pod.status.pod_ip}",
        "colour=red",
        "640",
        "colour=red",
        "s3cret",
        "10.1.1.1\taliased",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5",
        "shared",
        "read-only",
        "10.96.0.1 expanded",
    ]


async def test_a_missing_config_map_is_waited_for_and_named(bed: NodeBed) -> None:
    variable = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}
    await bed.create("waits", FOREVER, container={"env": [variable]})
    pod = await bed.until("waits", lambda p: p.status.container_statuses and main_status(p).state.waiting)
    waiting = main_status(pod).state.waiting
    assert (waiting.reason, waiting.message) == ("CreateContainerConfigError", 'configmap "late" not found')
    await bed.session.create(
        registry.CONFIG_MAP, {"metadata": {"name": "late", "namespace": "default"}, "data": {"x": "1"}}
    )
    await bed.running("waits")


async def test_another_image_in_a_running_pod_starts_its_container_again(bed: NodeBed) -> None:
    await bed.create("p", FOREVER)
    await bed.running("p")
    change = {"spec": {"containers": [{"name": "main", "image": "docker.io/host:latest"}]}}
    await bed.session.patch(registry.POD, "default", "p", change, patch_type=STRATEGIC_PATCH)
    pod = await bed.until("p", lambda p: p.status.container_statuses[0].restart_count == 1 and is_ready(p))
    assert pod.status.container_statuses[0].image == "docker.io/host:latest"
    await bed.until_event("p", "Killing", "Container main definition changed, will be restarted")


async def test_an_exit_is_published_at_once_and_the_container_runs_again(
    bed: NodeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told, not looked for: the look for want of an exit file comes too late for this test."""
    monkeypatch.setattr(exits, "PATIENCE", 10 * DEADLINE)
    await bed.create("dies", SERVER, container={"readinessProbe": {"tcpSocket": {"port": 8000}}})
    pod = await bed.running("dies")
    took = []
    for attempt in range(1, 3):
        record = record_of(bed, pod)
        before = time.perf_counter()
        os.kill(record.pid, signal.SIGKILL)
        await bed.until("dies", lambda p: not is_ready(p))
        took.append(time.perf_counter() - before)
        if attempt == 1:
            pod = await bed.until("dies", lambda p: is_ready(p) and main_status(p).restart_count == 1)
            assert main_status(pod).last_state.terminated.exit_code == 137
    assert min(took) < 5.0  # it takes 10 ms; a machine that is busy with other things, now and then a second
    pod = await bed.until("dies", lambda p: main_status(p).state.waiting is not None)
    assert main_status(pod).state.waiting.reason == "CrashLoopBackOff"
    assert "back-off 10s restarting failed container=main pod=dies_default" in main_status(pod).state.waiting.message


async def test_an_exit_code_that_comes_late_is_waited_for(bed: NodeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no time for conmon is no conmon that was killed."""
    monkeypatch.setattr(exits, "PATIENCE", 0.05)
    looked = asyncio.Event()
    loop, plain = asyncio.get_running_loop(), exits._has_conmon

    def look(id_: str) -> bool:
        loop.call_soon_threadsafe(looked.set)
        return plain(id_)

    monkeypatch.setattr(exits, "_has_conmon", look)
    await bed.create("late", ["/bin/sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"],
                     restartPolicy="Never")  # fmt: skip
    pod = await bed.running("late")
    await until_log(bed, "late", "up")
    record = record_of(bed, pod)
    conmon = next(processes.with_argument(record.id))
    signal.pidfd_send_signal(conmon, signal.SIGSTOP)
    os.kill(record.pid, signal.SIGTERM)
    await asyncio.wait_for(looked.wait(), DEADLINE)
    signal.pidfd_send_signal(conmon, signal.SIGCONT)
    os.close(conmon)
    pod = await bed.until("late", lambda p: main_status(p).state.terminated is not None)
    assert main_status(pod).state.terminated.exit_code == 3


async def test_a_failed_liveness_probe_restarts_the_container(bed: NodeBed) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
    script = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 0.5; touch /tmp/sick; while :; do sleep 0.1; done"]
    await bed.create("sick", script, container={"livenessProbe": probe})
    await bed.until("sick", lambda p: p.status.container_statuses and main_status(p).restart_count == 1)
    await bed.until_event("sick", "Unhealthy", "Liveness probe failed: ")
    await bed.until_event("sick", "Killing", "Container main failed liveness probe, will be restarted")


async def test_a_startup_probe_holds_readiness_back(bed: NodeBed) -> None:
    container = {
        "startupProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30},
        "readinessProbe": {"exec": {"command": ["true"]}},
    }
    script = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    await bed.create("slow", script, container=container)
    pod = await bed.until("slow", lambda p: p.status.phase == "Running")
    assert (main_status(pod).started, is_ready(pod)) == (False, False)
    code, _, _ = await bed.execute("slow", ["touch", "/tmp/up"])
    assert code == 0
    pod = await bed.running("slow")
    assert main_status(pod).started is True


async def test_init_containers_run_in_order_and_a_finished_pod_succeeds(bed: NodeBed) -> None:
    mount = [{"name": "d", "mountPath": "/d"}]

    def step(name: str, word: str) -> dict[str, Any]:
        command = ["/bin/sh", "-c", f"echo {word} >> /d/log"]
        return {"name": name, "image": "host", "command": command, "volumeMounts": mount}

    await bed.create(
        "job",
        ["/bin/sh", "-c", "cat /d/log"],
        container={"volumeMounts": mount},
        initContainers=[step("one", "first"), step("two", "second")],
        volumes=[{"name": "d", "emptyDir": {}}],
        restartPolicy="Never",
    )
    pod = await bed.until("job", lambda p: p.status.phase == "Succeeded")
    assert await bed.log("job") == "first\nsecond\n"
    assert [s.state.terminated.exit_code for s in pod.status.init_container_statuses if s.state.terminated] == [0, 0]
    assert {c.type: c.reason for c in pod.status.conditions}["Ready"] == "PodCompleted"


async def test_a_program_that_is_not_there_fails_to_start_with_its_reason(bed: NodeBed) -> None:
    await bed.create("typo", ["/no/such/program"], restartPolicy="Never")
    pod = await bed.until("typo", lambda p: p.status.phase == "Failed")
    terminated = main_status(pod).state.terminated
    assert (terminated.exit_code, terminated.reason) == (128, "StartError")
    assert "no such file or directory" in terminated.message


async def test_termination_runs_pre_stop_then_sigterm_and_ends_within_the_grace(bed: NodeBed) -> None:
    script = "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "echo hook > /proc/1/fd/1"]}}}
    await bed.create("polite", ["/bin/sh", "-c", script], container={"lifecycle": hook})
    await bed.running("polite")
    up = asyncio.Event()
    follow = asyncio.create_task(until_log(bed, "polite", "term", up))
    await asyncio.wait_for(up.wait(), DEADLINE)
    await bed.delete("polite", grace_seconds=600)  # nothing here waits for so long
    await bed.until_gone("polite")
    assert (await follow).split() == ["up", "hook", "term"]


async def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(bed: NodeBed) -> None:
    stubborn = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
    await bed.create("rude", stubborn, terminationGracePeriodSeconds=600)  # nothing here waits for so long
    await bed.running("rude")
    before = time.monotonic()
    await bed.delete("rude", grace_seconds=1)
    await bed.until_gone("rude")
    assert time.monotonic() - before > 0.9


async def test_pods_on_the_nodes_own_network(bed: NodeBed) -> None:
    await bed.create("on-host", ["/bin/sh", "-c", "ip -o -4 addr show lo; sleep 1000"], hostNetwork=True)
    pod = await bed.running("on-host")
    assert pod.status.pod_ip == "172.29.99.2"
    assert "172.29.99.2/32" in await until_log(bed, "on-host", "172.29.99.2")


async def test_logs_previous_tail_and_who_may_ask(bed: NodeBed) -> None:
    await bed.create(
        "talks", ["/bin/sh", "-c", "echo one; echo two; echo to-stderr >&2; exit 3"], restartPolicy="Always"
    )
    await bed.until("talks", lambda p: p.status.container_statuses and main_status(p).restart_count == 1)
    await bed.until("talks", lambda p: main_status(p).state.waiting is not None)
    assert await bed.log("talks", "previous=true") == "one\ntwo\nto-stderr\n"
    assert await bed.log("talks", "tailLines=2") == "two\nto-stderr\n"
    assert await bed.log("talks", "stream=Stderr") == "to-stderr\n"
    assert (await bed.log("talks", "timestamps=true&tailLines=1"))[:2] == "20"
    path = "/containerLogs/default/talks/main"
    for client, status in (("", 401), ("stranger", 403)):
        async with bed.http(client) as http, http.get(bed.url(path)) as answer:
            assert answer.status == status
    async with bed.http() as http, http.get(bed.url("/containerLogs/default/none/main")) as answer:
        assert (answer.status, (await answer.json())["message"]) == (404, 'pods "none" not found')


async def test_exec_separates_streams_and_tells_the_exit_code(bed: NodeBed) -> None:
    await bed.create("box", FOREVER)
    await bed.running("box")
    code, out, err = await bed.execute("box", ["/bin/sh", "-c", "cat; echo problem >&2; exit 3"], stdin=b"given\n")
    assert (code, out, err) == (3, b"given\n", b"problem\n")
    assert (await bed.execute("box", ["true"]))[0] == 0
    big = await bed.execute("box", ["head", "-c", "300000", "/dev/zero"])
    assert len(big[1]) == 300000


async def test_exec_with_a_terminal_of_the_clients_size(bed: NodeBed) -> None:
    await bed.create("tty", FOREVER)
    await bed.running("tty")
    query = "command=/bin/sh&stdin=1&stdout=1&tty=1"
    async with asyncio.timeout(60), bed.http() as http:
        url = bed.url(f"/exec/default/tty/main?{query}")
        async with http.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            await socket.send_bytes(b'\x04{"Width":132,"Height":43}')
            text, status = b"", {}
            asked = 0
            async for message in socket:
                if message.data[:1] == b"\x01":
                    text += message.data[1:]
                elif message.data[:1] == b"\x03":
                    status = json.loads(message.data[1:])
                if text.count(b"# ") > asked:  # a prompt: the runtime sets the size a moment after the shell's start
                    asked += 1
                    await socket.send_bytes(b"\x00exit 4\n" if b"43 132" in text else b"\x00stty size\n")
    assert b"43 132" in text
    assert status["details"]["causes"][0]["message"] == "4"


async def test_twenty_pods_start_at_once(bed: NodeBed) -> None:
    names = [f"many-{number}" for number in range(20)]
    await asyncio.gather(*(bed.create(name, FOREVER) for name in names))
    pods = [await bed.running(name) for name in names]
    assert len({p.status.pod_ip for p in pods}) == 20


async def test_events_tell_the_story_in_upstreams_words(bed: NodeBed) -> None:
    await bed.create("story", FOREVER)
    await bed.running("story")
    await bed.until_event("story", "Started", "Started container main")
    assert bed.events("story") == [
        ("Pulled", 'Container image "host" already present on machine'),
        ("Created", "Created container: main"),
        ("Started", "Started container main"),
    ]


async def test_a_missing_runtime_names_the_package(bed: NodeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubesvc.node.runtime.SEARCH", "/nonexistent")
    await bed.create("no-runc", FOREVER)
    pod = await bed.until("no-runc", lambda p: p.status.container_statuses and main_status(p).state.waiting)
    waiting = main_status(pod).state.waiting
    assert waiting.reason == "CreateContainerError"
    assert "apt install runc" in waiting.message
    monkeypatch.undo()
    await bed.running("no-runc")


async def test_routes_to_other_nodes_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: asyncio.Queue[int] = asyncio.Queue()

    def apply(links: Links, wanted: routes.Wanted) -> None:
        plain(links, wanted)
        applied.put_nowait(len(wanted))

    def ours(links: Links) -> list[str]:
        return [str(r.to) for r in links.routes() if r.proto == PROTO_KUBESVC]

    plain = routes.apply
    monkeypatch.setattr(routes, "apply", apply)
    async with asyncio.timeout(60), node_bed() as bed:
        await bed.start_agent()
        await routed(bed, applied, ours)


async def routed(bed: NodeBed, applied: asyncio.Queue[int], ours: Callable[[Links], list[str]]) -> None:
    with Links() as links:
        links.add_bridge("br0")
        links.add_address("br0", ip_interface("172.29.99.2/24"))
        status = {"addresses": [{"type": "InternalIP", "address": "172.29.99.3"}]}
        await bed.session.create(
            registry.NODE, {"metadata": {"name": "node2"}, "spec": {"podCIDR": "10.244.2.0/24"}, "status": status}
        )
        while await applied.get() != 1:
            pass
        assert ours(links) == ["10.244.2.0/24"]
        await bed.session.delete(registry.NODE, "", "node2")
        while await applied.get() != 0:
            pass
        assert ours(links) == []


async def test_teardown_from_disk_alone_leaves_nothing(bed: NodeBed) -> None:
    mounts_before = mounts.mount_points(bed.directory)
    volume = [{"name": "m", "emptyDir": {"medium": "Memory"}}]
    await asyncio.gather(*(bed.create(f"t{n}", FOREVER, volumes=volume) for n in range(3)))
    records = [record_of(bed, await bed.running(f"t{n}")) for n in range(3)]
    await bed.stop_agent()
    assert all(alive(record.pid) for record in records)
    await asyncio.to_thread(teardown, bed.config)
    teardown(bed.config)
    assert not any(alive(record.pid) for record in records)
    assert not bed.config.run_dir.exists()
    assert mounts.mount_points(bed.directory) == mounts_before
    assert not any((root / "kubesvc" / bed.config.box).exists() for root in cgroups.roots())
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _mentions(p, str(bed.config.run_dir))]
    assert left == []


def _mentions(path: Path, text: str) -> bool:
    with suppress(OSError):
        return text.encode() in path.read_bytes()
    return False
