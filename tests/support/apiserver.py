"""API servers for tests: `local_session`, all in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import Store

ADMIN = User("admin", ("system:masters",))
NOWHERE = Path("/nonexistent")


def config(directory: Path = NOWHERE, *, port: int = 6443, cidrs: tuple[str, ...] = ("10.96.0.0/16",)) -> ApiConfig:
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
    )


@asynccontextmanager
async def local_server(
    store: Store | None = None, *, cidrs: tuple[str, ...] = ("10.96.0.0/16",)
) -> AsyncIterator[ApiServer]:
    """A started server over `store` (a fresh one in memory), without sockets."""
    server = ApiServer(store or MemoryStore(), config(cidrs=cidrs))
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
