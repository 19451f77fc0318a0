"""API servers for tests: `local_session`, all in this process; `tls_server`, for kubectl."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import Store
from kubesvc.store.sqlite import SqliteStore
from support.certificates import Authority

T = TypeVar("T")

ADMIN = User("admin", ("system:masters",))
NOWHERE = Path("/nonexistent")


def config(
    directory: Path = NOWHERE, *, port: int = 6443, cidrs: tuple[str, ...] = ("10.96.0.0/16",), **more: Any
) -> ApiConfig:
    """A server's configuration, its certificates in `directory`."""
    return ApiConfig(
        service_cidrs=tuple(ip_network(cidr) for cidr in cidrs),
        node_port_range=(30000, 32767),
        advertise_address="192.0.2.1",
        advertise_port=port,
        tls_cert=directory / "server.crt",
        tls_key=directory / "server.key",
        client_ca=directory / "ca.crt",
        node_client_cert=directory / "apiserver-node.crt",
        node_client_key=directory / "apiserver-node.key",
        **more,
    )


Open = Callable[..., Session]
"""A session as NAME, of these groups."""


@asynccontextmanager
async def local_server(
    store: Store | None = None, *, cidrs: tuple[str, ...] = ("10.96.0.0/16",), **more: Any
) -> AsyncIterator[ApiServer]:
    """A started server over `store` (a fresh one in memory), without sockets."""
    server = ApiServer(store or MemoryStore(), config(cidrs=cidrs, **more))
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def local_session(
    user: User = ADMIN, *, store: Store | None = None, cidrs: tuple[str, ...] = ("10.96.0.0/16",)
) -> AsyncIterator[Session]:
    """A session as `user` with a fresh server in this process: the whole chain, admission included."""
    async with local_server(store, cidrs=cidrs) as server:
        session = Session(LocalTransport(server.handler, user))
        yield session
        await session.close()


class ServerThread:
    """A server over SQLite behind TLS on `host`, with an event loop and a thread of its own, for kubectl.

    `kubeconfig` is an administrator's; `stranger` one without a client certificate. `run` runs a coroutine beside it.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self.directory = directory
        self._host = host
        self.authority = Authority(directory)
        self.authority.serving("server", host, "localhost")
        self.authority.client("admin", ADMIN.name, *ADMIN.groups)
        self.authority.client("apiserver-node", "apiserver", "system:masters")
        self.authority.signing("sa")
        self._socket = socket.create_server((host, 0))
        self.port: int = self._socket.getsockname()[1]
        self.kubeconfig = self._write_kubeconfig("admin")
        self.stranger = self._write_kubeconfig("")
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="apiserver", daemon=True)
        self._store: SqliteStore | None = None
        self._server: ApiServer | None = None

    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    def stop(self) -> None:
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """The result of `work`, run in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def session(self) -> Session:
        """In the server's loop: to use inside `run`."""
        assert self._server is not None
        return Session(LocalTransport(self._server.handler, ADMIN))

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _start(self) -> None:
        self._store = SqliteStore(self.directory / "store.db")
        self._server = ApiServer(
            self._store, config(self.directory, port=self.port, signing_key=self.directory / "sa.key")
        )
        await self._server.start()
        await self._server.serve([self._socket])

    async def _stop(self) -> None:
        assert self._server is not None
        assert self._store is not None
        await self._server.close()
        await self._store.close()

    def _write_kubeconfig(self, user: str) -> Path:
        credentials = {"client-certificate": f"{user}.crt", "client-key": f"{user}.key"} if user else {}
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": f"https://{self._host}:{self.port}", "certificate-authority": "ca.crt"},
                }
            ],
            "users": [{"name": "user", "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        path = self.directory / f"{user or 'stranger'}.kubeconfig"
        path.write_text(yaml.safe_dump(tree))
        return path


@contextmanager
def tls_server(directory: Path) -> Iterator[ServerThread]:
    server = ServerThread(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()
