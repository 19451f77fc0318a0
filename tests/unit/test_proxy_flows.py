"""The table of packet flows through the tracer; `tests/kernel/test_proxy_flows.py` sends real packets along it."""

from __future__ import annotations

import pytest

from kubesvc.proxy.fake import Connection, FakeBackend, Where
from kubesvc.proxy.layout import TCP, pack, unpack
from kubesvc.proxy.localhost import FORWARDER_PORT
from support.flows import CASES, FLOWS, HOSTS, PODS, RANGES, SERVICES, Flow, case_id, everything, place, pods_of


@pytest.fixture(scope="module")
def backend() -> FakeBackend:
    made = FakeBackend(RANGES, [HOSTS[f]["node"] for f in "46"])
    made.resync(everything())
    return made


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@pytest.mark.parametrize(("flow", "family"), CASES, ids=case_id)
def test_a_connection_ends_where_the_policies_say(backend: FakeBackend, flow: Flow, family: str) -> None:
    """All the endpoints that may answer and no other, with the source the rules promise, and nothing left on it."""
    address, protocol, port = place(family, flow.destination)
    source = (HOSTS[family] | PODS[family])[flow.source]
    where = Where.NODE if flow.source == "node" else Where.WIRE
    ends = {
        "untouched": {_shown(str(unpack(pack(address))), port)},
        "drop": {"drop"},
        "reject": {"reject"},
    }.get(flow.ends) or {_shown(str(unpack(pack(PODS[family][pod]))), 8080) for pod in pods_of(flow, family)}
    masqueraded = flow.masqueraded
    if address == "::1" and masqueraded:  # by way of the forwarder, which asks once more
        ends, masqueraded = {f"[::1]:{FORWARDER_PORT}"}, False
    found = set()
    for draw in range(12):
        trace = backend.trace(Connection(source, address, protocol, port, where, 40000 + draw), draw=draw)
        found.add(trace.output)
        matched = "\n".join(["matched:", *backend.packet.matched])
        assert trace.output in ends, matched
        assert trace.masqueraded is masqueraded, matched
        if trace.output not in ("drop", "reject"):
            assert (backend.packet.mark, backend.packet.priority) == (0, 0), matched
    assert found == ends


@pytest.mark.parametrize(("source", "destination"), [("172.29.7.99", "127.0.0.1"), ("127.0.0.1", "10.96.0.11")])
def test_loopback_addresses_from_elsewhere_are_kept_out(backend: FakeBackend, source: str, destination: str) -> None:
    """With `route_localnet` the kernel no longer does; what the node itself sends is none of this."""
    port = 30011 if destination == "127.0.0.1" else 80
    assert backend.trace(Connection(source, destination, TCP, port)).output == "drop"
    assert backend.trace(Connection(source, destination, TCP, port, Where.NODE)).output != "drop"


def test_every_service_of_the_world_is_in_the_table() -> None:
    """A Service nobody connects to proves nothing."""
    assert {flow.destination.split()[0] for flow in FLOWS} >= SERVICES.keys()
