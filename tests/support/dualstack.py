"""What tests of IPv6 and dual-stack boxes share: a server that listens for both families, and how it is asked."""

from __future__ import annotations

import json
import socket

from support.box import BoxUnderTest

SERVER = r"""
import http.server, os, socket, threading
name = os.environ["HOSTNAME"]
def peer(address): return address[0].removeprefix("::ffff:")
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{name} {peer(self.client_address)} ".encode() + body
        self.send_response(200); self.send_header("Content-Length", str(len(answer))); self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        http.server.HTTPServer.server_bind(self)
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 8080))  # before TCP listens, which is what the probe asks
def udp():
    while True:
        data, who = s.recvfrom(65536); s.sendto(f"{name} {peer(who)} ".encode() + data, who)
threading.Thread(target=udp, daemon=True).start()
Server(("::", 8080), Answer).serve_forever()
"""
ASK = r"""
import http.client, socket, sys
kind, address, port, count, size = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
for _ in range(count):
    if kind == "udp":
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(5); s.connect((address, port)); s.send(b"x" * size); answer = s.recv(65536)
    else:
        c = http.client.HTTPConnection(address, port, timeout=5); c.request("POST", "/", b"x" * size)
        answer = c.getresponse().read(); c.close()
    print(*answer[:100].decode().split()[:2], answer.count(b"x"))
"""
"""tcp|udp ADDRESS PORT COUNT BYTES -> a line each time: who answered, whom it saw, how many bytes came back."""

PORTS = [
    {"name": "tcp", "port": 80, "targetPort": 8080},
    {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"},
]


def pod(name: str, node: str, **labels: str) -> dict:
    """An echo server on a node."""
    container = {
        "name": "c",
        "image": "host",
        "command": ["python3", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def service(name: str, **spec: object) -> dict:
    spec = {"selector": {"app": "echo"}, "ports": PORTS} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def apply(box: BoxUnderTest, *objects: dict) -> str:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return box.kubectl("apply", "-f", "-", input=text, check=False)


def ask(box: BoxUnderTest, pod: str, kind: str, address: str, port: int = 80, count: int = 1, size: int = 1) -> list:
    """From inside a pod: (who answered, whom it saw, bytes that came back), each time."""
    words = ("python3", "-c", ASK, kind, address, str(port), str(count), str(size))
    lines = box.kubectl("exec", pod, "--", *words).splitlines()
    return [(name, seen, int(back)) for name, seen, back in map(str.split, lines)]


def ask_from_host(address: str, port: int, kind: str = "tcp") -> tuple[str, str]:
    """From this machine: (who answered, whom it saw)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as end:
        end.settimeout(5)
        end.connect((address, port))
        end.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
        answer = b""
        while data := end.recv(65536):
            answer += data
            if kind == "udp":
                break
    name, seen, *_ = answer.decode().split("\r\n\r\n")[0 if kind == "udp" else 1].split()
    return name, seen


def family(address: str) -> int:
    return 6 if ":" in address else 4


def pod_ips(box: BoxUnderTest, name: str) -> list[str]:
    return [found["ip"] for found in box.get("pod", name)["status"]["podIPs"]]


def node_ips(box: BoxUnderTest, name: str) -> list[str]:
    addresses = box.get("node", name)["status"]["addresses"]
    return [found["address"] for found in addresses if found["type"] == "InternalIP"]
