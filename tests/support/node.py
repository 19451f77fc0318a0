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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from msgspec.structs import replace

from kubesvc.api import registry
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.informer import Informer
from kubesvc.client.kubeconfig import tls_context
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport
from kubesvc.kernel import netns
from kubesvc.kernel.descriptors import readable
from kubesvc.kernel.links import Links
from kubesvc.node import main
from kubesvc.node.config import NodeConfig
from kubesvc.node.teardown import teardown
from kubesvc.store.memory import MemoryStore
from support import apiserver
from support.certificates import Authority
from support.watching import DEADLINE, Changes, Event

ADDRESS = IPv4Address("172.29.99.2")

AGENT = """
import asyncio, logging, sys
from ipaddress import IPv4Address
from pathlib import Path
from kubesvc.client import kubeconfig
from kubesvc.node import main
from kubesvc.node.config import NodeConfig
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
directory, box = Path(sys.argv[1]), sys.argv[2]
config = NodeConfig(box, "node1", (IPv4Address("172.29.99.2"),), directory / "run", directory / "node.crt",
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
            (ADDRESS,),
            directory / "run",
            directory / "node.crt",
            directory / "node.key",
            directory / "ca.crt",
            (IPv4Address("10.96.0.10"),),
        )
        self._agent: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.nodes = Informer(self.session, registry.NODE, Node)
        self._events = Informer(self.session, registry.EVENT, Event)
        self.informers: list[Informer[Any]] = [self.pods, self.nodes, self._events]
        self._wait = Changes(*self.informers).until

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
        await self._wait(lambda: self.nodes.get("", "node1"), "the node")
        patch = {"spec": {"podCIDR": "10.244.9.0/24", "podCIDRs": ["10.244.9.0/24"]}}
        await self.session.patch(registry.NODE, "", "node1", patch)

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

        def look() -> Pod | None:
            pod = self.pods.get("default", name)
            return pod if pod is not None and condition(pod) else None

        return await self._wait(look, f"pod {name} as awaited", within=within)

    async def until_gone(self, name: str, *, within: float = DEADLINE) -> None:
        await self._wait(lambda: self.pods.get("default", name) is None, f"pod {name} gone", within=within)

    async def running(self, name: str) -> Pod:
        return await self.until(name, lambda p: p.status.phase == "Running" and is_ready(p))

    async def log(self, name: str, query: str = "") -> str:
        async with self.http() as http, http.get(self.url(f"/containerLogs/default/{name}/main?{query}")) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def log_with(self, name: str, text: str) -> str:
        """The log, followed until `text` is in it."""
        follow = self.url(f"/containerLogs/default/{name}/main?follow=true")
        async with asyncio.timeout(DEADLINE), self.http() as http, http.get(follow) as answer:
            found = ""
            async for line in answer.content:
                found += line.decode()
                if text in found:
                    return found
        raise AssertionError(f"the log ended: {found}")

    @contextmanager
    def outside_listener(self) -> Iterator[int]:
        """A port that takes connections and says nothing, where images are pulled."""
        assert self.config.image_network is not None
        with netns.socket_in(self.config.image_network) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            yield listener.getsockname()[1]

    def http(self, client: str = "client") -> aiohttp.ClientSession:
        certificate = (self.directory / f"{client}.crt").read_bytes() if client else None
        key = (self.directory / f"{client}.key").read_bytes() if client else None
        tls = tls_context((self.directory / "ca.crt").read_bytes(), certificate, key)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))

    def url(self, path: str) -> str:
        return f"https://{ADDRESS}:10250{path}"

    async def execute(self, name: str, command: list[str], stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
        """Run a command in container main, over v5.channel.k8s.io; (exit code, stdout, stderr)."""
        pairs = [("command", word) for word in command] + [("stdout", "1"), ("stderr", "1")]
        pairs += [("stdin", "1")] if stdin is not None else []
        url = self.url(f"/exec/default/{name}/main?{urlencode(pairs)}")
        out = {1: b"", 2: b"", 3: b""}
        connect = {"protocols": ("v5.channel.k8s.io",), "max_msg_size": 0}
        async with asyncio.timeout(DEADLINE), self.http() as http, http.ws_connect(url, **connect) as socket:
            if stdin is not None:
                await socket.send_bytes(b"\x00" + stdin)
                await socket.send_bytes(b"\xff\x00")
            async for message in socket:
                out[message.data[0]] += message.data[1:]
        status = msgspec.json.decode(out[3])
        code = 0 if status["status"] == "Success" else int(status["details"]["causes"][0]["message"])
        return code, out[1], out[2]

    async def printed(self, name: str, script: str) -> list[str]:
        """The lines that a shell's script prints in container main."""
        code, out, error = await self.execute(name, ["sh", "-c", script])
        assert code == 0, error
        return out.decode().splitlines()

    async def until_event(self, name: str, reason: str, start: str) -> None:
        """Wait for an event about a pod whose message begins with `start`."""
        wanted = lambda: any(r == reason and m.startswith(start) for r, m in self.events(name))  # noqa: E731
        await self._wait(wanted, f"an event {reason}: {start}")

    def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the events about a pod, in the order they came."""
        return [(e.reason, e.message) for e in self._events.items.values() if e.involved_object.name == name]


async def process_end(pid: int) -> None:
    """Wait until process `pid` is gone."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            async with asyncio.timeout(DEADLINE):
                await readable(descriptor)
        finally:
            os.close(descriptor)


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


async def _publish_ca(server: ApiServer, authority: Authority) -> None:
    """What a controller does: pods have it mounted."""
    tree = {
        "metadata": {"name": "kube-root-ca.crt", "namespace": "default"},
        "data": {"ca.crt": authority.path.read_text()},
    }
    await Session(LocalTransport(server.handler, apiserver.ADMIN)).create(registry.CONFIG_MAP, tree)


@asynccontextmanager
async def node_bed(*, outside: bool = False) -> AsyncIterator[NodeBed]:
    """Images are pulled in the namespace the test began in if `outside`.

    The calling task's thread is inside the node's namespace meanwhile; nothing is left afterwards."""
    # Not pytest's directory: its name is long, and conmon's sockets have short ones.
    directory = Path(tempfile.mkdtemp(prefix="ksn"))
    namespace = directory / "netns"
    netns.create(namespace)
    network = netns.current() if outside else None
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
        await _publish_ca(server, authority)
        bed = NodeBed(directory, server, namespace, f"test-{os.getpid()}-{secrets.token_hex(3)}")
        bed.config = replace(bed.config, image_network=network)
        informing = [asyncio.create_task(informer.run()) for informer in bed.informers]
        try:
            yield bed
        finally:
            await bed.stop_agent()
            await bed.kill_process()
            for task in informing:
                task.cancel()
            await asyncio.gather(*informing, return_exceptions=True)
            await server.close()
            teardown(bed.config)
    if network is not None:
        os.close(network)
    netns.delete(namespace)
    shutil.rmtree(directory)
