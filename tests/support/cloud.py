"""A box with a cloud, pods that say who asks them, and a client host outside the nodes, on their network."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from kubesvc.kernel import netns
from support.box import BoxUnderTest, answers, eventually, fresh_box
from support.net import Lab, Namespace, look

SERVER = r"""
import os, socket, struct, threading
MAGIC = b"\r\n\r\n\0\r\nQUIT\n"
def serve(conn, peer):
    with conn:
        said, header, before = conn.recv(512), "-", 0
        if said.startswith(MAGIC):
            before = 16 + int.from_bytes(said[14:16], "big")
            source, target = said[16:20], said[20:24]
            ports = struct.unpack(">HH", said[24:28])
            header = "%s:%s>%s:%s" % (socket.inet_ntoa(source), ports[0], socket.inet_ntoa(target), ports[1])
        while len(said) <= before and (more := conn.recv(512)):  # what is left unread would reset the connection
            said += more
        conn.sendall(("%s %s %s %s" % (os.environ["HOSTNAME"], peer[0], header, conn.getsockname()[0])).encode())
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("", 8080))  # before TCP listens, which is what the probe asks
def datagrams():
    while True:
        _, peer = end.recvfrom(512)
        end.sendto(("%s %s" % (os.environ["HOSTNAME"], peer[0])).encode(), peer)
threading.Thread(target=datagrams, daemon=True).start()
listening = socket.create_server(("", 8080), backlog=256)
while True:
    threading.Thread(target=serve, args=listening.accept(), daemon=True).start()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as end:
    end.sendall(b"?"); print(end.recv(512).decode())
"""


class Cloud:
    """`client` is outside the nodes and inside the cloud's network; this machine plays the internet."""

    def __init__(self, box: BoxUnderTest, client: Namespace) -> None:
        self.box, self.client = box, client
        self.nodes = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in box.get("nodes")["items"]}
        network = IPv4Network(f"{self.nodes['node1']}/24", strict=False)
        self.client_address, self.host_address = str(network[-5]), str(network[-2])
        self.own_address = str(network[-3])

    def apply(self, *objects: dict) -> str:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.box.kubectl("apply", "-f", "-", input=json.dumps(whole))

    def pods(self, app: str, *nodes: str) -> None:
        """One pod on each of the nodes, named APP-NODE, and only those."""
        self.apply(*(pod(f"{app}-{node}", node, ["python3", "-c", SERVER], {"app": app}) for node in nodes))
        self.box.kubectl("wait", "--for=condition=Ready", "pods", "-l", f"app={app}", "--timeout=60s")

    def service(self, name: str, annotations: dict | None = None, **spec: object) -> None:
        ports = [{"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
        spec = {"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": ports} | spec
        meta = {"name": name, "annotations": annotations or {}}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})

    def ingress(self, name: str) -> dict:
        def found() -> dict | None:
            status = self.box.get("service", name)["status"].get("loadBalancer", {})
            return (status.get("ingress") or [None])[0]

        return eventually(found, 60, f"{name} has a balancer")  # type: ignore[return-value]

    def address(self, name: str) -> str:
        """Where the balancer is; a host name is asked for at the cloud's name server."""
        ingress = self.ingress(name)
        return ingress.get("ip") or str(eventually(lambda: self.resolve(ingress["hostname"]), 60, "the name resolves"))

    def resolve(self, hostname: str) -> str:
        command = ["dig", "+short", "+time=2", f"@{self.own_address}", hostname]
        return answers(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def asks(self, address: str, port: int = 80, *, where: Namespace | None = None, patience: float = 5) -> list[str]:
        """What a pod says: its name, who it thinks asks, the PROXY header, its address."""
        with (where or self.client).socket() as end:
            end.settimeout(patience)
            end.connect((address, port))
            end.sendall(b"?")
            return end.recv(512).decode().split()

    def machine_asks(self, address: str, port: int = 80, patience: float = 5) -> list[str]:
        import socket

        with socket.create_connection((address, port), patience) as end:
            end.sendall(b"?")
            return end.recv(512).decode().split()

    def silent(self, address: str, port: int = 80, *, machine: bool = False) -> bool:
        """Whether nothing comes back at all."""
        try:
            self.machine_asks(address, port, 0.7) if machine else self.asks(address, port, patience=0.7)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def udp(self, address: str, port: int = 80) -> tuple[str, str]:
        """Who answers a datagram, and who it thinks asks. To be asked again: a balancer loses what comes too early."""
        return look(self.client, address, port, udp=True)

    def from_pod(self, name: str, host: str, port: int = 80) -> list[str]:
        return self.box.kubectl("exec", name, "--", "python3", "-c", CLIENT, host, str(port)).split()

    def ledger(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in (self.box.directory / "balancers").glob("*.json")]

    def healthy(self, name: str) -> set[str]:
        """The nodes that answered the check of a Service with policy Local. The rules don't tell: while none has, all
        are tried."""
        port = self.box.get("service", name)["spec"]["healthCheckNodePort"]
        log = (self.box.directory / "logs" / "cloud.log").read_text()
        said = dict(re.findall(rf"(\S+) is (healthy|unhealthy): http port {port}$", log, re.MULTILINE))
        return {node for node, address in self.nodes.items() if said.get(address) == "healthy"}

    def rules(self) -> str:
        return self.box.inside("cloud", "nft", "list", "ruleset")

    def reasons(self, name: str) -> dict[str, str]:
        """Event reason -> its last message."""
        items = self.box.get("events", f"--field-selector=involvedObject.name={name}")["items"]
        return {event["reason"]: event["message"] for event in items}


def pod(name: str, node: str, command: list[str], labels: dict[str, str]) -> dict:
    container: dict = {"name": "c", "image": "host", "command": command}
    if labels:
        container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


@contextmanager
def cloud(kind: str, directory: Path, *options: str) -> Iterator[Cloud]:
    """A box of two nodes with echo pods on both and a pod `client` on node2."""
    with fresh_box(directory) as box, Lab("cloud") as lab:
        box.up("--nodes", "2", "--cloud", kind, "--cloud-speed", "20", "--node-grace", "4", *options)
        client = lab.namespace("client")
        middle = Namespace(box.namespace("net"), netns.named(box.namespace("net")))
        lab.link(middle, "client", client, "eth0")
        middle.ip("link", "set", "client", "master", "bridge")
        made = Cloud(box, client)
        client.ip("addr", "add", f"{made.client_address}/24", "dev", "eth0")
        made.pods("echo", "node1", "node2")
        made.apply(pod("client", "node2", ["sleep", "1000000"], {}))
        box.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        yield made
