"""Real packets through Services of every type, on three nodes."""

from __future__ import annotations

import collections
import json
import socket
import urllib.request

import pytest

from support.box import eventually

SERVER = r"""
import http.server, os, socket, threading
name = os.environ["HOSTNAME"]
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (name + " " + self.client_address[0]).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 8080))  # before TCP listens, which is what the probe asks
def udp():
    while True:
        data, peer = s.recvfrom(2048); s.sendto(name.encode(), peer)
threading.Thread(target=udp, daemon=True).start()
Server(("", 8080), Answer).serve_forever()
"""


def manifest(objects: list[dict]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def service(name: str, **spec) -> dict:
    ports = [
        {"name": "tcp", "port": 80, "targetPort": "http"},
        {"name": "udp", "port": 80, "protocol": "UDP", "targetPort": 8080},
    ]
    base = {"selector": {"app": "echo"}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": base | spec}


@pytest.fixture(scope="module")
def echo(three_nodes):
    """A namespace with an echo server on every node and a Service of each kind; yields a kubectl for it."""
    namespace = "echo"
    three_nodes.kubectl("create", "namespace", namespace)
    container = {
        "name": "echo",
        "image": "host",
        "command": ["python3", "-c", SERVER],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [container]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "echo"}}, "template": template},
    }
    client = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {"containers": [{"name": "c", "image": "host", "command": ["sleep", "1000000"]}]},
    }
    services = [
        service("cluster"),
        service("headless", clusterIP="None"),
        service("node", type="NodePort"),
        service("balanced", type="LoadBalancer"),
        service("empty", selector={"app": "nobody"}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "alias"},
            "spec": {"type": "ExternalName", "externalName": "cluster.echo.svc.cluster.local"},
        },
    ]

    def kubectl(*words: str, **options) -> str:
        return three_nodes.kubectl("-n", namespace, *words, **options)

    kubectl("apply", "-f", "-", input=manifest([deployment, client, *services]))
    kubectl("rollout", "status", "deployment/echo", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    three_nodes.wait_programmed(namespace)
    yield kubectl
    three_nodes.kubectl("delete", "namespace", namespace, "--wait=false")


def in_client(kubectl, code: str, *words: str) -> str:
    return kubectl("exec", "client", "--", "python3", "-c", code, *words)


ASK = """
import sys, urllib.request
for _ in range(int(sys.argv[2])): print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""
ASK_UDP = """
import socket, sys
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
    s.sendto(b"?", (sys.argv[1], 80)); print(s.recv(100).decode())
"""
CONNECT = """
import socket, sys
try: socket.create_connection((sys.argv[1], 80), 5)
except ConnectionRefusedError: print("refused")
"""
NAMES = "import socket,sys\nprint(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET)}))"


def pod_ips(kubectl) -> set[str]:
    return set(kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[*].status.podIP}").split())


@pytest.mark.parametrize(
    "name", ["cluster", "cluster.echo", "cluster.echo.svc", "cluster.echo.svc.cluster.local", "alias"]
)
def test_a_pod_reaches_a_service_by_each_of_its_names(echo, name):
    """The search path, the full name, and an in-zone alias."""
    eventually(lambda: in_client(echo, ASK, f"http://{name}/", "1"))


def test_tcp_and_udp_are_spread_over_all_pods(echo):
    """Every replica, whichever node it is on, gets its share; the pod sees the client's own address."""
    seen = collections.Counter(line.split()[0] for line in in_client(echo, ASK, "http://cluster/", "60").splitlines())
    assert len(seen) == 3, seen
    client_ip = echo("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
    assert in_client(echo, ASK, "http://cluster/", "1").split()[1] == client_ip
    assert len(set(in_client(echo, ASK_UDP, "cluster", "60").split())) == 3


def test_a_headless_name_answers_with_the_pods_own_addresses(echo):
    """No virtual address in between."""
    eventually(lambda: set(in_client(echo, NAMES, "headless").split()) == pod_ips(echo))


def test_pods_reach_each_other_across_nodes_without_translation(echo):
    """The server sees the client pod's address."""
    client_ip = echo("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
    for address in pod_ips(echo):
        assert in_client(echo, ASK, f"http://{address}:8080/", "1").split()[1] == client_ip


def test_a_service_without_endpoints_refuses_at_once(echo):
    """Connection refused, not a timeout; and the name still resolves."""
    eventually(lambda: in_client(echo, NAMES, "empty"))
    assert in_client(echo, CONNECT, "empty") == "refused\n"


def test_a_pod_reaches_itself_through_its_service(echo):
    """Hairpin: the connection comes back to the pod that made it."""
    pod = echo("get", "pods", "-l", "app=echo", "-o", "name").split()[0]
    seen = echo("exec", pod, "--", "python3", "-c", ASK, "http://cluster/", "60")
    assert pod.removeprefix("pod/") in seen


def ask_from_host(address: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=5) as answer:
        return answer.read().decode().split()[0]


def test_a_node_port_answers_on_every_node(echo, three_nodes):
    """From the host, TCP and UDP, whichever node the pods are on."""
    ports = json.loads(echo("get", "service", "node", "-o", "jsonpath={.spec.ports}"))
    for node in three_nodes.get("nodes")["items"]:
        address = node["status"]["addresses"][0]["address"]
        assert ask_from_host(address, ports[0]["nodePort"]).startswith("echo-")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(20)
            udp.sendto(b"?", (address, ports[1]["nodePort"]))
            assert udp.recv(100).startswith(b"echo-")


def test_a_load_balancer_address_answers_host_and_pods(echo, three_nodes):
    """From the pool; no node has it as its own address."""
    path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
    address = eventually(lambda: echo("get", "service", "balanced", "-o", path), what="an address from the pool")
    assert eventually(lambda: ask_from_host(address, 80)).startswith("echo-")
    eventually(lambda: "echo-" in in_client(echo, ASK, f"http://{address}/", "1"))
    for node in ("node1", "node2", "node3"):
        assert f"{address}/" not in three_nodes.inside(node, "ip", "-o", "addr")


def test_a_cluster_ip_is_not_for_the_host(echo, three_nodes):
    """No route leads there: asked over the box's own link, nobody answers."""
    address = echo("get", "service", "cluster", "-o", "jsonpath={.spec.clusterIP}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"ks-{three_nodes.name}".encode())
        asking.settimeout(20)
        with pytest.raises(OSError):
            asking.connect((address, 80))


def test_the_kernel_state_reads_back_in_clear(echo, three_nodes):
    """Debian's nft prints our table with addresses and ports."""
    address = echo("get", "service", "cluster", "-o", "jsonpath={.spec.clusterIP}")
    ruleset = three_nodes.inside("node2", "nft", "list", "ruleset")
    assert "table inet kubesvc" in ruleset
    assert address in ruleset
    assert all(pod in ruleset for pod in pod_ips(echo))


def test_a_deleted_service_is_gone_from_names_and_kernel(echo, three_nodes):
    """Its name is NXDOMAIN, its address in no map."""
    echo("expose", "deployment", "echo", "--name=brief", "--port=80", "--target-port=8080")
    address = echo("get", "service", "brief", "-o", "jsonpath={.spec.clusterIP}")
    eventually(lambda: in_client(echo, ASK, "http://brief/", "1"))
    echo("delete", "service", "brief")
    eventually(lambda: address not in three_nodes.inside("node1", "nft", "list", "ruleset"))
    code = "import socket,sys\ntry: socket.getaddrinfo(sys.argv[1], 80)\nexcept socket.gaierror as e: print(e.errno)"
    eventually(lambda: in_client(echo, code, "brief").strip() == str(socket.EAI_NONAME), what="no such name")
