"""A whole proxy, attendants and all, in a scratch namespace, fed by an API in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from kubesvc.client.session import Session
from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy import namespace
from kubesvc.proxy.attendants import Attendants
from kubesvc.proxy.backend import Ranges
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.main import Proxy
from kubesvc.proxy.nftables import NftablesBackend
from support.lists import Api
from support.net import DEADLINE, Namespace
from support.proxy import NODE, NODE_IP, RANGES

CONFIG = ProxyConfig(NODE, (ip_address(NODE_IP),), RANGES.service_cidrs, RANGES.pod_cidrs)


@dataclass
class Proxied:
    proxy: Proxy
    attendants: Attendants

    def metric(self, name: str, **labels: str) -> float:
        return self.attendants.metrics.registry.get_sample_value(f"kubeproxy_{name}", labels) or 0.0


@asynccontextmanager
async def proxied(node: Namespace, api: Api, config: ProxyConfig = CONFIG) -> AsyncIterator[Proxied]:
    """A proxy that has programmed what `api` has."""
    session = Session(api)
    node.call(lambda: namespace.prepare(config))
    connection = node.call(Connection)
    assert isinstance(connection, Connection)
    backend = NftablesBackend(connection, Ranges(config.service_cidrs, config.pod_cidrs))
    proxy = Proxy(session, config, backend)
    attendants = node.call(lambda: Attendants(proxy, session, config, connection))
    assert isinstance(attendants, Attendants)
    tasks = [asyncio.ensure_future(proxy.run()), asyncio.ensure_future(attendants.run())]
    try:
        await asyncio.wait_for(proxy.programmed.wait(), DEADLINE)
        yield Proxied(proxy, attendants)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        attendants.close()
        backend.close()


async def until(what: str, holds: Callable[[], bool], patience: float = DEADLINE) -> None:
    """Wait until `holds()`, looked at every few milliseconds; fails naming `what`."""
    try:
        async with asyncio.timeout(patience):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {patience} s") from None
