"""Traffic policies, affinity and source ranges on three nodes, asked for as anyone asks: through the API."""

from __future__ import annotations

import json
import socket
import urllib.request

import pytest

from support.box import BoxUnderTest, eventually

SERVER = r"""
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (os.environ["HOSTNAME"] + " " + self.client_address[0]).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""
ASK = """
import sys, urllib.request
for url in sys.argv[2:]:
    for _ in range(int(sys.argv[1])): print(urllib.request.urlopen(url, timeout=5).read().decode())
"""
ELSEWHERE = "192.0.2.0/24"


def _pod(name: str, node: str, command: list[str], labels: dict[str, str]) -> dict:
    container = {"name": "c", "image": "host", "command": command}
    if labels:
        container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def _service(name: str, **spec) -> dict:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "alt", "port": 90, "targetPort": 8080}]
    spec = {"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": ports} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


class World:
    """Echo pods on node1 and node2, a client on node3, and Services in front of them."""

    def __init__(self, box: BoxUnderTest) -> None:
        self.box = box
        self.nodes = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in box.get("nodes")["items"]}

    def kubectl(self, *words: str, **options) -> str:
        return self.box.kubectl("-n", "policies", *words, **options)

    def service(self, name: str) -> dict:
        return json.loads(self.kubectl("get", "service", name, "-o", "json"))

    def node_port(self, name: str) -> int:
        return self.service(name)["spec"]["ports"][0]["nodePort"]

    def address(self, name: str) -> str:
        def found() -> str:
            return self.service(name)["status"]["loadBalancer"]["ingress"][0]["ip"]

        return str(eventually(lambda: "ingress" in self.service(name)["status"]["loadBalancer"] and found()))

    def from_pod(self, times: int, *urls: str) -> list[list[str]]:
        words = ("exec", "client", "--", "python3", "-c", ASK, str(times), *urls)
        return [line.split() for line in self.kubectl(*words).splitlines()]


@pytest.fixture(scope="module")
def world(three_nodes):
    made = World(three_nodes)
    three_nodes.kubectl("create", "namespace", "policies")
    serve = ["python3", "-c", SERVER]
    objects = [
        *(_pod(f"echo-{node}", node, serve, {"app": "echo"}) for node in ("node1", "node2")),
        _pod("client", "node3", ["sleep", "1000000"], {}),
        _service("local", externalTrafficPolicy="Local"),
        _service("near", internalTrafficPolicy="Local"),
        _service("sticky", sessionAffinity="ClientIP"),
        _service("guarded", loadBalancerSourceRanges=[ELSEWHERE]),
    ]
    applied = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    said = made.kubectl("apply", "-f", "-", input=applied, check=False)
    assert "Warning" not in said, said
    made.kubectl("wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s")
    three_nodes.wait_programmed("policies")
    yield made
    three_nodes.kubectl("delete", "namespace", "policies", "--wait=false")


def _ask(address: str, port: int, timeout: float = 5) -> list[str]:
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=timeout) as answer:
        return answer.read().decode().split()


def _own_address(towards: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((towards, 9))
        return asking.getsockname()[0]


def _silent(address: str, port: int) -> bool:
    try:
        _ask(address, port, 0.5)
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return False


def test_policy_local_keeps_the_source_and_stays_on_the_node(world: World) -> None:
    """A node port answers on the nodes that have a pod, with that pod, which sees who really asks."""
    port = world.node_port("local")
    for node in ("node1", "node2"):
        address = world.nodes[node]
        expected = [f"echo-{node}", _own_address(address)]
        eventually(lambda address=address, expected=expected: _ask(address, port) == expected)
        assert all(_ask(address, port) == expected for _ in range(8))
    assert eventually(lambda: _silent(world.nodes["node3"], port))


def test_policy_local_holds_for_pods_of_other_nodes(world: World) -> None:
    """A pod of node3 that asks node1 gets node1's pod, which sees it; what it asks of its own node reaches both."""
    port = world.node_port("local")
    client = world.kubectl("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
    for node in ("node1", "node2"):
        answers = world.from_pod(20, f"http://{world.nodes[node]}:{port}/")
        assert {tuple(answer) for answer in answers} == {(f"echo-{node}", client)}
    answers = world.from_pod(40, f"http://{world.nodes['node3']}:{port}/")
    assert {tuple(answer) for answer in answers} == {("echo-node1", client), ("echo-node2", client)}


def test_policy_local_at_a_load_balancers_address(world: World) -> None:
    """A node that has a pod answers for the address; from outside the source is kept, and a pod reaches all."""
    address = world.address("local")
    pod, source = eventually(lambda: _ask(address, 80))  # type: ignore[misc]
    assert pod in ("echo-node1", "echo-node2")
    assert source == _own_address(address)
    client = world.kubectl("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
    answers = world.from_pod(40, f"http://{address}/")
    assert {tuple(answer) for answer in answers} == {("echo-node1", client), ("echo-node2", client)}


def test_internal_policy_local_has_nothing_where_no_pod_is(world: World) -> None:
    """The client's node has none: silence, not another node's pod."""
    code = "import socket\ntry: socket.create_connection(('near', 80), 0.5)\nexcept TimeoutError: print('silence')"
    assert world.kubectl("exec", "client", "--", "python3", "-c", code) == "silence\n"


def test_a_client_keeps_its_pod_until_that_one_leaves(world: World) -> None:
    """One pod at both ports; deleted, the other one."""
    urls = ("http://sticky/", "http://sticky:90/")
    first = {pod for pod, _ in world.from_pod(12, *urls)}
    assert len(first) == 1
    (gone,) = first
    (other,) = {"echo-node1", "echo-node2"} - first
    world.kubectl("delete", "pod", gone)
    eventually(lambda: {pod for pod, _ in world.from_pod(3, *urls)} == {other})
    node = gone.removeprefix("echo-")
    again = _pod(gone, node, ["python3", "-c", SERVER], {"app": "echo"})
    world.kubectl("apply", "-f", "-", input=json.dumps(again))
    world.kubectl("wait", "--for=condition=Ready", f"pod/{gone}", "--timeout=60s")
    assert {pod for pod, _ in world.from_pod(12, *urls)} == {other}


def test_source_ranges_close_the_load_balancers_address_alone(world: World) -> None:
    """Sources outside the ranges hear nothing; the node port is open; widened, the address opens."""
    address = world.address("guarded")
    eventually(lambda: _ask(world.nodes["node1"], world.node_port("guarded")))
    assert _silent(address, 80)
    widened = {"spec": {"loadBalancerSourceRanges": [ELSEWHERE, f"{_own_address(address)}/32"]}}
    world.kubectl("patch", "service", "guarded", "-p", json.dumps(widened))
    assert eventually(lambda: _ask(address, 80))


def test_another_port_of_a_load_balancers_address_is_refused(world: World) -> None:
    """At once, not forwarded to nowhere."""
    address = world.address("sticky")
    eventually(lambda: _ask(address, 80))
    with pytest.raises(ConnectionRefusedError), socket.create_connection((address, 81), 5):
        pass
