"""The table of packet flows through the tracer; `tests/kernel/test_proxy_flows.py` sends real packets along it."""

from __future__ import annotations

import pytest

from kubesvc.proxy.fake import Connection, FakeBackend, Where
from kubesvc.proxy.layout import pack, unpack
from support.flows import FLOWS, HOSTS, PODS, RANGES, SERVICES, Flow, everything, place, pods_of


@pytest.fixture(scope="module")
def backend() -> FakeBackend:
    made = FakeBackend(RANGES, [HOSTS[f]["node"] for f in "46"])
    made.resync(everything())
    return made


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize("flow", FLOWS, ids=str)
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
    found = set()
    for draw in range(12):
        trace = backend.trace(Connection(source, address, protocol, port, where, 40000 + draw), draw=draw)
        found.add(trace.output)
        matched = "\n".join(["matched:", *backend.packet.matched])
        assert trace.output in ends, matched
        assert trace.masqueraded is flow.masqueraded, matched
        if trace.output not in ("drop", "reject"):
            assert (backend.packet.mark, backend.packet.priority) == (0, 0), matched
    assert found == ends


def test_every_service_of_the_world_is_in_the_table() -> None:
    """A Service nobody connects to proves nothing."""
    assert {flow.destination.split()[0] for flow in FLOWS} >= SERVICES.keys()
