"""The shell around the decisions: when it programs, what it does in one batch, and how it heals."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from msgspec.structs import replace

from kubesvc.api.nodes import Node
from kubesvc.client.session import Session
from kubesvc.proxy import maps
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.fake import Connection, FakeBackend
from kubesvc.proxy.layout import TABLE, TCP
from kubesvc.proxy.main import Proxy
from support.lists import Api
from support.proxy import NODE_IP, RANGES, service, slice_of

CONFIG = ProxyConfig("node1", (ip_address(NODE_IP),), RANGES.service_cidrs, RANGES.pod_cidrs)
WEB = Connection("10.244.0.9", "10.96.0.10", TCP, 80)


class Recording(FakeBackend):
    """Counts calls, and lets a test wait for the next one to be tried."""

    def __init__(self) -> None:
        super().__init__(RANGES, [NODE_IP])
        self.calls: list[str] = []
        self._called = asyncio.Event()

    def apply(self, changes, revision):  # type: ignore[no-untyped-def]
        self._note("apply")
        super().apply(changes, revision)

    def resync(self, everything):  # type: ignore[no-untyped-def]
        self._note("resync")
        super().resync(everything)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._called.set()

    async def reaches(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.calls) < count:
                self._called.clear()
                await self._called.wait()


@asynccontextmanager
async def running(api: Api, backend: Recording, config: ProxyConfig = CONFIG) -> AsyncIterator[Proxy]:
    proxy = Proxy(Session(api), config, backend)
    task = asyncio.create_task(proxy.run())
    try:
        yield proxy
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_nothing_is_programmed_before_every_cache_is_whole() -> None:
    """Services alone would all be refused: the proxy waits for their slices."""
    api = Api(services=[service()], endpointslices=[slice_of("10.244.0.5")])
    api.held["endpointslices"] = asyncio.Event()
    backend = Recording()
    async with running(api, backend) as proxy:
        await asyncio.wait_for(proxy.services.synced.wait(), 60)
        await asyncio.wait_for(proxy.node.synced.wait(), 60)
        assert backend.calls == []
        api.held["endpointslices"].set()
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        assert backend.calls == ["resync"]
        assert backend.trace(WEB).output == "10.244.0.5:8080"


async def test_all_that_arrived_meanwhile_is_one_batch() -> None:
    """A burst of events becomes one transaction."""
    api = Api(services=[service()], endpointslices=[slice_of("10.244.0.5")])
    backend = Recording()
    async with running(api, backend) as proxy:
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        for last in range(6, 16):
            api.tell("endpointslices", "MODIFIED", slice_of(f"10.244.0.{last}"))
        await backend.reaches(2)
        assert backend.calls == ["resync", "apply"]
        assert backend.trace(WEB).output == "10.244.0.15:8080"


async def test_a_refused_change_is_healed_by_a_resync() -> None:
    """The kernel refuses a change: the old state answers until everything is programmed again."""
    api = Api(services=[service()], endpointslices=[slice_of("10.244.0.5")])
    backend = Recording()
    async with running(api, backend) as proxy:
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        backend.nft.refuse_next = errno.ENOMEM
        api.tell("endpointslices", "MODIFIED", slice_of("10.244.0.6"))
        await backend.reaches(2)
        assert backend.trace(WEB).output == "10.244.0.5:8080"
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        assert backend.calls == ["resync", "apply", "resync"]
        assert backend.trace(WEB).output == "10.244.0.6:8080"


async def test_what_changes_nothing_is_not_sent() -> None:
    """A Service's new annotation costs the kernel nothing."""
    api = Api(services=[service()], endpointslices=[slice_of("10.244.0.5")])
    backend = Recording()
    async with running(api, backend) as proxy:
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        api.tell("services", "MODIFIED", service(labels={"new": "label"}))
        api.tell("services", "ADDED", service("other", "10.96.0.20"))
        await backend.reaches(2)
        assert len(backend.nft.elements(TABLE, maps.FRONTENDS["4"])) == 1
        assert backend.calls == ["resync", "apply"]


@pytest.mark.parametrize("by_node", [False, True])
async def test_other_nodes_pods_are_known_once_this_node_has_its_network(by_node: bool) -> None:
    """Until the Node has a podCIDR every pod counts as this node's; then those of others are sources outside."""
    local = service(type="NodePort", externalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    api = Api(services=[local], endpointslices=[slice_of("10.244.2.5")])
    backend = Recording()
    other_pod = Connection("10.244.1.9", NODE_IP, TCP, 30080)
    async with running(api, backend, replace(CONFIG, pods_by_node=by_node)) as proxy:
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        assert backend.trace(other_pod).output == "10.244.2.5:8080"
        node = {"metadata": {"name": "node1", "resourceVersion": "2"}, "spec": {"podCIDR": "10.244.0.0/24"}}
        api.tell("nodes", "ADDED", msgspec.convert(node, Node))
        api.tell("services", "ADDED", service("other", "10.96.0.20"))
        await backend.reaches(2)
        await asyncio.wait_for(proxy.programmed.wait(), 60)
        assert backend.trace(other_pod).output == ("drop" if by_node else "10.244.2.5:8080")
        assert backend.trace(Connection("10.244.0.9", NODE_IP, TCP, 30080)).output == "10.244.2.5:8080"


def _primaries(*ips: str, within: tuple[str, ...] = ()) -> Iterator[str]:
    config = ProxyConfig(
        "n", tuple(map(ip_address, ips)), (), (), node_port_addresses=tuple(ip_network(n) for n in within)
    )
    return map(str, config.node_port_ips())


def test_node_ports_answer_on_the_primary_addresses() -> None:
    """One of each family, loopback never; or those inside the ranges asked for."""
    ips = ("172.29.7.11", "192.0.2.5", "127.0.0.1", "fd00::1", "fd00::2")
    assert list(_primaries(*ips)) == ["172.29.7.11", "fd00::1"]
    assert list(_primaries(*ips, within=("192.0.2.0/24", "127.0.0.0/8"))) == ["192.0.2.5"]
