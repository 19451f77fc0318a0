"""A node for tests: a network namespace, an API server in this process, and an agent, in it or as a process."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from kubesvc.api import registry
from kubesvc.api.core import Pod
from kubesvc.api.errors import ApiError
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.informer import Informer
from kubesvc.client.kubeconfig import tls_context
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport
from kubesvc.kernel import netns
from kubesvc.kernel.links import Links
from kubesvc.node import main
from kubesvc.node.config import NodeConfig
from kubesvc.node.teardown import teardown
from kubesvc.store.memory import MemoryStore
from support import apiserver
from support.certificates import Authority

ADDRESS = IPv4Address("172.29.99.2")
DEADLINE = 20.0  # seconds any wait of a test may take

AGENT = """
import asyncio, logging, sys
from ipaddress import IPv4Address
from pathlib import Path
from kubesvc.client import kubeconfig
from kubesvc.node import main
from kubesvc.node.config import NodeConfig
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
directory, box = Path(sys.argv[1]), sys.argv[2]
config = NodeConfig(box, "node1", IPv4Address("172.29.99.2"), directory / "run", directory / "node.crt",
                    directory / "node.key", directory / "ca.crt", (IPv4Address("10.96.0.10"),))
asyncio.run(main.run(kubeconfig.load(directory / "node.kubeconfig"), config))
"""


class NodeBed:
    """`session` is an administrator's; `pods` a current copy of every pod."""

    def __init__(self, directory: Path, server: ApiServer, namespace: Path, box: str) -> None:
        self.directory, self.server, self.namespace = directory, server, namespace
        self.session = Session(LocalTransport(server.handler, apiserver.ADMIN))
        self.pods = Informer(self.session, registry.POD, Pod)
        self.config = NodeConfig(
            box,
            "node1",
            ADDRESS,
            directory / "run",
            directory / "node.crt",
            directory / "node.key",
            directory / "ca.crt",
            (IPv4Address("10.96.0.10"),),
        )
        self._changed = asyncio.Event()
        self._agent: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.pods.on_change(lambda _old, _new: self._changed.set())

    # ── the agent ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start_agent(self) -> None:
        session = Session(LocalTransport(self.server.handler, apiserver.ADMIN))
        self._agent = asyncio.create_task(main.run(session, self.config))
        await self._give_network()

    async def stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.cancel()
            with suppress(asyncio.CancelledError):
                await self._agent
            self._agent = None

    async def start_process(self) -> None:
        environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p.endswith("src")), "PATH": os.defpath}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AGENT, str(self.directory), self.config.box, env=environment
        )
        await self._give_network()

    async def kill_process(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def _give_network(self) -> None:
        """What a controller does: the node's pod CIDR, once the node has registered."""
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(ApiError):
                    node = await self.session.get(registry.NODE, "", "node1")
                    if not node["spec"].get("podCIDR"):
                        patch = {"spec": {"podCIDR": "10.244.9.0/24", "podCIDRs": ["10.244.9.0/24"]}}
                        await self.session.patch(registry.NODE, "", "node1", patch)
                    return
                await asyncio.sleep(0.01)

    # ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
        """A pod bound to the node, of one container `main`; `container` adds to it, `spec` to the pod."""
        container = {"name": "main", "image": "host", "command": command, **spec.pop("container", {})}
        tree = {
            "metadata": {"name": name, "namespace": "default", **spec.pop("metadata", {})},
            "spec": {"nodeName": "node1", "terminationGracePeriodSeconds": 2, "containers": [container], **spec},
        }
        return await self.session.create(registry.POD, tree)

    async def delete(self, name: str, **options: Any) -> None:
        await self.session.delete(registry.POD, "default", name, **options)

    async def until(self, name: str, condition: Callable[[Pod], Any], *, within: float = DEADLINE) -> Pod:
        """Wait until the pod is as `condition` says."""
        try:
            async with asyncio.timeout(within):
                while True:
                    self._changed.clear()
                    pod = self.pods.get("default", name)
                    if pod is not None and condition(pod):
                        return pod
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"pod {name} stayed {self.pods.get('default', name)}") from None

    async def until_gone(self, name: str, *, within: float = DEADLINE) -> None:
        async with asyncio.timeout(within):
            while self.pods.get("default", name) is not None:
                self._changed.clear()
                await self._changed.wait()

    async def running(self, name: str) -> Pod:
        return await self.until(name, lambda p: p.status.phase == "Running" and is_ready(p))

    async def log(self, name: str, query: str = "") -> str:
        async with self.http() as http, http.get(self.url(f"/containerLogs/default/{name}/main?{query}")) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    def http(self, client: str = "client") -> aiohttp.ClientSession:
        certificate = (self.directory / f"{client}.crt").read_bytes() if client else None
        key = (self.directory / f"{client}.key").read_bytes() if client else None
        tls = tls_context((self.directory / "ca.crt").read_bytes(), certificate, key)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))

    def url(self, path: str) -> str:
        return f"https://{ADDRESS}:10250{path}"

    async def events(self, name: str) -> list[dict[str, Any]]:
        answer = await self.session.raw("GET", "/api/v1/namespaces/default/events")
        found = msgspec.json.decode(answer.body)["items"]
        return [e for e in found if e["involvedObject"]["name"] == name]


def is_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def _kubeconfig(directory: Path, port: int) -> None:
    (directory / "node.kubeconfig").write_text(f"""
apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: ca.crt}}}}]
users: [{{name: node, user: {{client-certificate: client.crt, client-key: client.key}}}}]
contexts: [{{name: test, context: {{cluster: test, user: node}}}}]
""")


@asynccontextmanager
async def node_bed() -> AsyncIterator[NodeBed]:
    """The calling task's thread is inside the node's namespace meanwhile; nothing is left afterwards."""
    # Not pytest's directory: its name is long, and conmon's sockets have short ones.
    directory = Path(tempfile.mkdtemp(prefix="ksn"))
    namespace = directory / "netns"
    netns.create(namespace)
    with netns.entered(namespace):
        with Links() as links:
            links.up("lo")
            links.add_address("lo", ip_interface(f"{ADDRESS}/32"))
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        authority = Authority(directory)
        authority.serving("server", "127.0.0.1")
        authority.serving("node", str(ADDRESS))
        authority.client("client", "admin", "system:masters")
        authority.client("stranger", "somebody")
        authority.client("apiserver-node", "apiserver", "system:masters")
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        _kubeconfig(directory, port)
        server = ApiServer(MemoryStore(), apiserver.config(directory, port=port))
        await server.start()
        await server.serve([listener])
        bed = NodeBed(directory, server, namespace, f"test-{os.getpid()}-{secrets.token_hex(3)}")
        informing = asyncio.create_task(bed.pods.run())
        try:
            yield bed
        finally:
            await bed.stop_agent()
            await bed.kill_process()
            informing.cancel()
            await asyncio.gather(informing, return_exceptions=True)
            await server.close()
            teardown(bed.config)
    netns.delete(namespace)
    shutil.rmtree(directory)
