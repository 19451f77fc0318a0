"""A box's life: up, death by kill -9, up again, down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.box import BoxUnderTest, eventually, footprint, fresh_box, machine, own_network

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: kept}
spec: {type: LoadBalancer, selector: {app: kept}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: kept, labels: {app: kept}}
spec:
  containers:
  - {name: c, image: host, command: [sleep, "1000000"]}
"""


@pytest.fixture
def unchanged_machine():
    with machine():
        yield


@pytest.fixture
def own_machine():
    with machine(changes=True):
        yield


@pytest.fixture
def box(tmp_path):
    with fresh_box(tmp_path / "box") as fresh:
        yield fresh


def addresses(box: BoxUnderTest) -> dict[str, object]:
    """Everything about the Service, the nodes and the pod that must not change."""
    service = box.get("service", "kept")
    nodes = box.get("nodes")["items"]
    return {
        "uid": service["metadata"]["uid"],
        "cluster ip": service["spec"]["clusterIP"],
        "node port": service["spec"]["ports"][0]["nodePort"],
        "ingress": eventually(lambda: box.get("service", "kept")["status"]["loadBalancer"].get("ingress")),
        "nodes": [(node["metadata"]["name"], node["metadata"]["uid"], node["status"]["addresses"]) for node in nodes],
        "pod cidrs": [node["spec"]["podCIDR"] for node in nodes],
        "pod": box.get("pod", "kept")["status"]["podIP"],
    }


def wait_pod(box: BoxUnderTest) -> None:
    box.kubectl("wait", "--for=condition=Ready", "pod/kept", "--timeout=60s")


def test_a_killed_box_comes_back_with_the_same_objects_and_addresses(box):
    """kill -9 of a child is repaired; kill -9 of everything is repaired by `up`."""
    box.up("--nodes", "2")
    box.kubectl("apply", "-f", "-", input=SERVICE)
    wait_pod(box)
    before = addresses(box)

    for name in ("control-plane", "node1/node", "node1/dns", "node1/proxy"):
        pid = box.pids()[name]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda name=name, pid=pid: box.pids()[name] not in (0, pid), what=f"{name} restarted")
    eventually(lambda: "Ready" in box.kubectl("get", "nodes"))
    assert "restarts" not in box.kubectl("get", "pod", "kept").lower() or " 0 " in box.kubectl("get", "pod", "kept")
    restarted = box.kubesvc("status").stdout
    assert "signal SIGKILL" in restarted, restarted
    wait_pod(box)
    assert addresses(box) == before

    box.kill()
    box.up()
    wait_pod(box)
    assert addresses(box) == before


def test_a_box_is_the_same_after_a_reboot(box):
    """All that a reboot ends is gone: namespaces, mounts, processes, /run. `up` makes it again from what is on disk."""
    box.up("--nodes", "2", *own_network())
    box.kubectl("apply", "-f", "-", input=SERVICE)
    wait_pod(box)
    before = addresses(box)
    box.interrupt()
    assert not (Path("/run/kubesvc") / box.name).exists()
    box.up()
    eventually(lambda: addresses(box) == before, what="the same objects and addresses")
    wait_pod(box)
    assert addresses(box) == before


def test_up_twice_says_that_it_is_running(box):
    """The second `up` changes nothing and shows the kubeconfig."""
    box.up()
    second = box.kubesvc("up", "--detach")
    assert "is running" in second.stdout
    assert str(box.kubeconfig) in second.stdout
    assert box.kubesvc("kubeconfig").stdout.strip() == str(box.kubeconfig)


@pytest.mark.usefixtures("unchanged_machine")
def test_down_leaves_nothing(box):
    """Namespaces, links, addresses, routes, rules, mounts, cgroups and processes are as before."""
    before = footprint(box)
    box.up("--nodes", "2")
    box.kubectl("apply", "-f", "-", input=SERVICE)
    wait_pod(box)
    during = footprint(box)
    assert during["namespaces"] != before["namespaces"]
    assert during["processes"]
    ended = box.interrupt()
    assert "is down" in ended
    assert footprint(box) == before
    assert (box.directory / "objects.db").exists()
    box.kubesvc("down", "--purge")
    assert not box.directory.exists()


@pytest.mark.usefixtures("unchanged_machine")
def test_down_cleans_up_after_a_crash_of_everything(box):
    """`down` needs no living process of the box."""
    before = footprint(box)
    box.up()
    box.kubectl("apply", "-f", "-", input=SERVICE)
    wait_pod(box)
    box.kill()
    box.kubesvc("down", "--purge")
    assert footprint(box) == before


def test_two_boxes_run_side_by_side(tmp_path):
    """Each has its own nodes, objects and addresses; one going leaves the other alone."""
    with fresh_box(tmp_path / "a") as first, fresh_box(tmp_path / "b") as second:
        first.up()
        second.up()
        first.kubectl("apply", "-f", "-", input=SERVICE)
        wait_pod(first)
        assert "not found" in second.kubectl("get", "service", "kept", check=False)
        ingress = [box.get("nodes")["items"][0]["status"]["addresses"] for box in (first, second)]
        assert ingress[0] != ingress[1]
        second.interrupt()
        assert "kept" in first.kubectl("get", "service", "kept")


@pytest.mark.usefixtures("unchanged_machine")
def test_the_host_network_gains_one_link_and_nothing_else(box):
    """No route to cluster IPs or pods, no rule, no forwarding."""
    before = footprint(box)
    box.up()
    during = footprint(box)
    assert len(set(during["links"]) - set(before["links"])) == 1
    assert len(set(during["routes"]) - set(before["routes"])) == 1
    for part in ("rules", "forwarding"):
        assert during[part] == before[part]


def test_bad_options_are_refused_before_anything_is_made(box):
    """A clear line, exit status 1, no traceback, no trace of a box."""
    refused = box.kubesvc("up", "--service-cidr", "10.96.0.0/99", check=False)
    assert refused.returncode == 1
    assert "--service-cidr '10.96.0.0/99'" in refused.stderr
    assert not box.directory.exists()
    missing = box.kubesvc("status", check=False)
    assert missing.returncode == 1
    assert "there is no box" in missing.stderr


@pytest.mark.usefixtures("own_machine")
def test_egress_gives_pods_a_way_out_and_takes_it_back(box):
    """With --egress a pod reaches a neighbour of this machine, as this machine, by both families; `down` closes it
    again."""
    before = footprint(box)
    server = (
        "import socket; s = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "while True: c, peer = s.accept(); c.sendall(peer[0].removeprefix('::ffff:').encode()); c.close()"
    )
    ask = "import socket, sys; print(socket.create_connection((sys.argv[1], 8080), 5).recv(100).decode())"
    with neighbour(box.name, server):
        box.up("--egress", "--ip-family", "dual")
        box.kubectl("run", "out", "--image=host", "--command", "--", "sleep", "100000")
        box.kubectl("wait", "--for=condition=Ready", "pod/out", "--timeout=60s")
        for theirs, ours in (("203.0.113.2", "203.0.113.1"), ("fd77:6b73::2", "fd77:6b73::1")):
            assert box.kubectl("exec", "out", "--", "python3", "-c", ask, theirs).strip() == ours
        box.interrupt()
    assert footprint(box) == before


@contextmanager
def neighbour(name: str, server: str):
    """A machine next to this one: a namespace at 203.0.113.2 and fd77:6b73::2 that runs `server`; here it is ::1."""
    namespace, link = f"{name}-out", f"o{name}"[:15]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", namespace)
    process = None
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("addr", "add", "203.0.113.1/30", "dev", link)
        ip("addr", "add", "fd77:6b73::1/64", "dev", link, "nodad")
        ip("link", "set", link, "up")
        ip("-n", namespace, "addr", "add", "203.0.113.2/30", "dev", "eth0")
        ip("-n", namespace, "addr", "add", "fd77:6b73::2/64", "dev", "eth0", "nodad")
        ip("-n", namespace, "link", "set", "eth0", "up")
        process = subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, "-c", server])
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        ip("netns", "del", namespace)
