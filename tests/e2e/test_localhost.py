"""Node ports on localhost, of a node and of this machine; their addresses; and a range that changes under Services."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from support.box import BoxUnderTest, eventually, footprint, fresh_box, own_network
from support.ports import free_port

ECHO = r"""
import socketserver, threading
class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        said = self.rfile.read()
        self.wfile.write(said + b" " + self.client_address[0].encode())
class Udp(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read() + b" " + self.client_address[0].encode())
class Tcp_(socketserver.ThreadingTCPServer): request_queue_size = 128
threading.Thread(target=socketserver.ThreadingUDPServer(("", 8080), Udp).serve_forever).start()
Tcp_(("", 8080), Tcp).serve_forever()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as end:
    end.sendall(b"hello"); end.shutdown(socket.SHUT_WR); print(end.makefile().read())
"""
ASK_UDP = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.settimeout(1); end.connect((address, port)); end.send(b"hello")
    try: print(end.recv(100).decode())
    except ConnectionRefusedError: print("refused")
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "echo", "labels": {"app": "echo"}},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "c",
                "image": "host",
                "command": ["python3", "-c", ECHO],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }
        ],
    },
}


def service(name: str, node_port: int = 0, **spec: object) -> dict:
    ports = [{"name": "tcp", "port": 80, "targetPort": 8080}, {"name": "udp", "port": 80, "targetPort": 8080}]
    ports[1]["protocol"] = "UDP"
    if node_port:
        ports = [port | {"nodePort": node_port} for port in ports]
    spec = {"type": "NodePort", "selector": {"app": "echo"}, "ports": ports} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def box(tmp_path):
    with fresh_box(tmp_path / "box") as fresh:
        yield fresh


def apply(box: BoxUnderTest, *objects: dict) -> str:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return box.kubectl("apply", "-f", "-", input=text, check=False)


def ask(address: str, port: int, text: str = "hello", patience: float = 10) -> list[str]:
    with socket.create_connection((address, port), patience) as end:
        end.sendall(text.encode())
        end.shutdown(socket.SHUT_WR)
        return end.makefile().read().split()


def ask_udp(address: str, port: int) -> list[str]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as end:
        end.settimeout(1)
        end.sendto(b"hello", (address, port))
        return end.recv(100).decode().split()


def node_ip(box: BoxUnderTest) -> str:
    return str(box.get("node", "node1")["status"]["addresses"][0]["address"])


def test_published_node_ports_answer_on_this_machines_localhost(box: BoxUnderTest, tmp_path: Path) -> None:
    """TCP and UDP, 127.0.0.1 and ::1; after a kill of every process on the way; no longer after `down`."""
    before = footprint(box)["processes"]
    web, other, nobody = free_port(), free_port(), free_port()
    flags = (f"{web}:30080", f"{other}:30080/udp", f"{nobody}:30099")
    box.up("--nodes", "2", *own_network(), *(word for flag in flags for word in ("--publish", flag)))
    assert f"localhost:{web}/tcp is node port 30080." in "".join(box.output)
    with socket.create_connection(("127.0.0.1", nobody), 60) as end, pytest.raises(ConnectionResetError):
        end.recv(1)  # nothing else: what is done after the reset fails otherwise
    # Local, and the only pod on node2: who asks node1 from outside is sent away, localhost isn't.
    on_node2 = POD | {"spec": POD["spec"] | {"nodeName": "node2"}}
    assert "created" in apply(box, on_node2, service("web", 30080, externalTrafficPolicy="Local"))
    box.kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    seen = ["hello", node_ip(box)]
    for address in ("127.0.0.1", "::1"):
        eventually(lambda address=address: ask(address, web) == seen, what=f"TCP by {address}")
        eventually(lambda address=address: ask_udp(address, other) == seen, what=f"UDP by {address}")
    assert len(ask("localhost", web, "x" * 3_000_000, 60)[0]) == 3_000_000

    for name in ("publish", "node1/proxy", "control-plane"):
        pid = box.pids()[name]
        os.kill(pid, signal.SIGKILL)
        assert ask("127.0.0.1", web, patience=60) == seen  # queued, if need be, until the process is there again
        eventually(lambda name=name, pid=pid: box.pids()[name] not in (0, pid), what=f"{name} restarted")
    shown = eventually(lambda: "default/web" in (out := box.kubesvc("status").stdout) and out, what="status")
    lines = [line.split() for line in str(shown).splitlines()]
    assert [f"localhost:{web}", "30080/TCP", "default/web"] in lines
    assert [f"localhost:{other}", "30080/UDP", "default/web"] in lines
    assert [f"localhost:{nobody}", "30099/TCP", "(no", "Service", "has", "this", "node", "port)"] in lines

    with fresh_box(tmp_path / "second") as second:
        refused = second.kubesvc("up", "--publish", f"{web}:30080", check=False)
        assert refused.returncode == 1
        assert f"--publish {web}:30080: tcp port {web} of 127.0.0.1 is taken on this machine" in refused.stderr
        assert f"ss -Hlnpt 'sport = {web}'" in refused.stderr
        assert not (Path("/run/kubesvc") / second.name).exists()
        assert not second.directory.exists()
    box.interrupt()
    for address in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            ask(address, web)
    assert footprint(box)["processes"] == before
    box.up("--publish", "")  # nothing is published any more
    assert "is node port" not in "".join(box.output)
    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", web)


def test_node_ports_answer_on_the_nodes_own_localhost_and_where_they_are_told_to(box: BoxUnderTest) -> None:
    """127.0.0.1 and ::1 inside every node; with --node-port-addresses other addresses of it, and no longer its own."""
    box.up("--nodes", "2", *own_network())
    assert "created" in apply(box, POD, service("web", 30080))
    box.kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    for node in ("node1", "node2"):
        for address in ("127.0.0.1", "::1"):

            def tcp(node: str = node, address: str = address) -> bool:
                return box.inside(node, "python3", "-c", ASK, address, "30080").startswith("hello")

            def udp(node: str = node, address: str = address) -> bool:
                return box.inside(node, "python3", "-c", ASK_UDP, address, "30080").startswith("hello")

            eventually(tcp, what=f"TCP on {address} of {node}")
            eventually(udp, what=f"UDP on {address} of {node}")
    box.kubectl("patch", "service", "web", "-p", '{"spec": {"selector": {"app": "nobody"}}}')
    eventually(lambda: "refused" in box.inside("node1", "python3", "-c", ASK_UDP, "::1", "30080"), what="refused")
    box.kubectl("patch", "service", "web", "-p", '{"spec": {"selector": {"app": "echo"}}}')
    eventually(lambda: ask(node_ip(box), 30080)[0] == "hello", what="an answer again")
    box.interrupt()
    box.up("--node-port-addresses", "192.0.2.0/24")
    box.kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    with pytest.raises(ConnectionRefusedError):
        ask(node_ip(box), 30080)
    box.inside("node1", "ip", "addr", "add", "192.0.2.7/32", "dev", "eth0")
    box.inside("node2", "ip", "route", "add", "192.0.2.7/32", "via", node_ip(box))
    eventually(lambda: box.inside("node2", "python3", "-c", ASK, "192.0.2.7", "30080").startswith("hello"))
    assert box.inside("node1", "python3", "-c", ASK, "127.0.0.1", "30080").startswith("hello")


def test_the_node_port_range_grows_and_shrinks_under_services(box: BoxUnderTest) -> None:
    """What is outside the new range is kept, served, named and may be updated; what is new obeys."""
    box.up(*own_network())
    local = service("old", 30080, type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30081)
    assert "created" in apply(box, POD, local)
    box.kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    box.interrupt()

    box.up("--node-port-range", "10240-10260")
    output = "".join(box.output)
    assert "outside --node-port-range 10240-10260: 2 node ports: 30080 of default/old, 30081 of default/old" in output
    box.kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    eventually(lambda: ask(node_ip(box), 30080)[0] == "hello", what="the old port answers")
    box.kubectl("annotate", "service", "old", "still=writable")
    assert box.get("service", "old")["spec"]["healthCheckNodePort"] == 30081
    refused = apply(box, service("static", 30090))
    assert "The range of valid ports is 10240-10260" in refused
    taken = apply(box, service("static", 10250))  # the kubelet API's
    assert "provided port is already allocated" in taken
    names = [f"new{number}" for number in range(17)]
    said = apply(box, *(service(name) for name in names))
    assert said.count("created") == 17, said
    given = {box.get("service", name)["spec"]["ports"][0]["nodePort"] for name in names}
    assert given == set(range(10240, 10261)) - {10247, 10249, 10250, 10256}
    assert "range is full" in apply(box, service("toomany"))
    doctor = box.kubesvc("doctor").stdout
    assert "node port 30080 of default/old is outside --node-port-range 10240-10260" in doctor
    assert "All is well" in doctor
    box.interrupt()

    box.up("--node-port-range", "10240-32767")
    assert "outside" not in "".join(box.output)
    assert "created" in apply(box, service("more"))
    assert "outside" not in box.kubesvc("doctor").stdout
    running = box.kubesvc("up", "--node-port-range", "30000-32767")
    assert "options take effect at its next start" in running.stderr
