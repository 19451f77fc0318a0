"""Which UDP flows are ended, and a reconciler that survives a kernel that says no."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest

from kubesvc.api.core import Service
from kubesvc.kernel.conntrack import Flow
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.conntrack import Reconciler
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import UDP, pack, port_data, tail
from kubesvc.proxy.stale import Knowledge, Path, stale
from support.proxied import until
from support.proxy import NODE, NODE_IP, RANGES, endpoint, service, slice_of

VIP, PORT = "10.96.0.10", [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]


def key(address: str, port: int) -> bytes:
    return pack(address) + tail(UDP, port)


def path(address: str, port: int, to: str, *, translated: bool = True) -> Path:
    return Path(key(address, port), pack(to) + port_data(8053), translated)


SERVED, EMPTY, REMOVED = key(VIP, 53), key("10.96.0.11", 53), key("192.0.2.7", 53)
SERVING = {SERVED: {pack("10.244.0.1") + port_data(8053)}, EMPTY: set[bytes]()}


@pytest.mark.parametrize(
    ("flow", "ends"),
    [
        pytest.param(path(VIP, 53, "10.244.0.1"), False, id="to an endpoint that serves"),
        pytest.param(path(VIP, 53, "10.244.0.2"), True, id="to an endpoint that left"),
        pytest.param(path(VIP, 53, VIP, translated=False), True, id="from before the frontend was one"),
        pytest.param(path("10.96.0.11", 53, "10.244.0.1"), True, id="of a Service left without endpoints"),
        pytest.param(path("192.0.2.7", 53, "10.244.0.1"), True, id="of a frontend just removed"),
        pytest.param(path("10.96.9.9", 53, "10.244.0.1"), True, id="of a Service removed long ago"),
        pytest.param(path("10.96.9.9", 53, "10.96.9.9", translated=False), False, id="to an address nobody has"),
        pytest.param(path("192.0.2.8", 53, "10.244.0.1"), False, id="another tool's translation"),
        pytest.param(path("10.244.0.2", 8053, "10.244.0.2", translated=False), False, id="pod to pod"),
        pytest.param(path(NODE_IP, 30999, "10.244.0.2"), True, id="of a node port, when nothing is remembered"),
        pytest.param(path(NODE_IP, 30999, "192.0.2.9"), False, id="of the node's address, but to no pod"),
    ],
)
def test_a_flow_ends_when_no_service_would_send_it_there(flow: Path, ends: bool) -> None:
    """Against every frontend: with endpoints, emptied, removed."""
    known = Knowledge(SERVING.get, {REMOVED}, RANGES.service_cidrs, {pack(NODE_IP)}, RANGES.pod_cidrs)
    assert stale([flow], known) == ([flow] if ends else [])


def test_both_families_are_told_apart() -> None:
    """An IPv6 flow is compared with IPv6 ranges alone."""
    six = Path(pack("fd00:96::9") + tail(UDP, 53), pack("fd00:1::1") + port_data(53), True)
    assert stale([six], Knowledge(SERVING.get, (), RANGES.service_cidrs)) == []
    assert stale([six], Knowledge(SERVING.get, (), (ip_network("fd00:96::/108"),))) == [six]


def test_serving_is_more_than_chosen() -> None:
    """An endpoint that terminates while it serves is not chosen, and keeps its flows; one that fails doesn't."""
    frontends = Frontends(Locality(NODE), [])
    web: Service = service("dns", VIP, ports=PORT)
    frontends.set_service(web.key, web)
    ready, draining, dead = (endpoint(f"10.244.0.{n}", state=s) for n, s in enumerate(("ready", "draining", "dead"), 1))
    ports = [{"name": "dns", "port": 8053, "protocol": "UDP"}]
    frontends.set_slice(None, slice_of(ready, draining, dead, owner="dns", ports=ports))
    frontends.take()
    assert frontends.serving(SERVED) == {pack(f"10.244.0.{n}") + port_data(8053) for n in (1, 2)}
    assert frontends.serving(EMPTY) is None


class Tracking:
    """A kernel with one stale flow, that refuses the first deletion."""

    def __init__(self) -> None:
        self.refuse = True
        self.deleted: list[Flow] = []

    def flows(self, protocol: int) -> list[Flow]:
        return [Flow(pack("192.0.2.7"), 53, pack("10.244.0.1"), 8053, True, b"handle")]

    def delete(self, flows: Iterable[Flow]) -> int:
        if self.refuse:
            self.refuse = False
            raise PermissionError(1, "Operation not permitted")
        self.deleted += flows
        return 1


async def test_a_refused_deletion_is_remembered(caplog: pytest.LogCaptureFixture) -> None:
    """The kernel says no: a warning, and the next pass still knows which frontends went."""
    tracking, done = Tracking(), asyncio.Event()
    config = ProxyConfig(NODE, (ip_address(NODE_IP),), RANGES.service_cidrs, RANGES.pod_cidrs)
    reconciler = Reconciler(tracking, config, SERVING.get, lambda seconds, deleted: done.set())
    task = asyncio.create_task(reconciler.run())
    reconciler.programmed([REMOVED])
    await until("a warning", lambda: bool(caplog.records))
    reconciler.service_changed(None, service(ports=PORT))
    reconciler.programmed([])
    await asyncio.wait_for(done.wait(), 60)
    task.cancel()
    assert "CAP_NET_ADMIN" in caplog.text
    assert [flow.handle for flow in tracking.deleted] == [b"handle"]
