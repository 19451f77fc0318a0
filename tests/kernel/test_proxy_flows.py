"""The table of packet flows with real packets: TCP, UDP and SCTP, IPv4 and IPv6, between namespaces."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from kubesvc.kernel import netns
from kubesvc.proxy import localhost
from kubesvc.proxy.layout import SCTP, UDP
from support import sctp
from support.flows import CASES, HOSTS, PODS, Flow, case_id, everything, place, pods_of, world
from support.net import DEADLINE, Lab, Namespace, ask
from support.wires import Wires, build


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with Lab("flows") as lab:
        made = build(lab)
        made.backend.resync(everything())
        with forwarding(made.at["node"]):
            yield made
        made.backend.close()


@contextmanager
def forwarding(node: Namespace) -> Iterator[None]:
    """The node's forwarder for ::1, in a thread that lives in the node's namespace."""
    decided = world()
    decided.take()
    listener = node.call(localhost.listen)
    assert isinstance(listener, socket.socket)
    forwarder = localhost.Forwarder(listener, decided)
    loop = asyncio.new_event_loop()

    def live() -> None:
        netns.enter(node.path)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(forwarder.run())
    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(DEADLINE)
        forwarder.close()
        loop.close()


_REFUSED: dict[str, tuple[type[OSError], ...]] = {
    "reject": (ConnectionRefusedError,),
    "drop": (TimeoutError,),
    "untouched": (OSError,),
}


@pytest.mark.parametrize(("flow", "family"), CASES, ids=case_id)
def test_a_packet_ends_where_the_policies_say(wires: Wires, flow: Flow, family: str) -> None:
    """All the endpoints that may answer and no other, each seeing the source the rules promise."""
    address, protocol, port = place(family, flow.destination)
    where = wires.at[flow.source]
    refused = flow.ends in _REFUSED
    patience = 0.15 if refused and flow.ends != "reject" else DEADLINE
    with _asking(wires, family, protocol) as asks:
        if refused:
            # A filter in output fails send() itself.
            with pytest.raises((*_REFUSED[flow.ends], *([PermissionError] if flow.source == "node" else []))):
                asks(where, address, port, patience)
            return
        pods = pods_of(flow, family)
        seen = HOSTS[family]["node"] if flow.masqueraded else (HOSTS[family] | PODS[family])[flow.source]
        found: set[str] = set()
        for _ in range(6 if len(pods) == 1 else 80):  # 80: misses one of three pods once in 10^13 runs
            pod, source = asks(where, address, port, patience)
            assert pod in pods
            assert source == seen
            found.add(pod)
            if len(pods) > 1 and found == pods:
                break
        assert found == pods


@contextmanager
def _asking(
    wires: Wires, family: str, protocol: int
) -> Iterator[Callable[[Namespace, str, int, float], tuple[str, str]]]:
    """How to connect: gives a function that says who answered, and from which source it saw us come."""
    if protocol != SCTP:
        yield lambda where, address, port, patience: ask(where, address, port, udp=protocol == UDP, timeout=patience)
        return
    pods = {name: wires.at[name] for name in PODS[family]}
    with sctp.listening(pods, socket.AF_INET6 if family == "6" else socket.AF_INET) as ears:

        def knock(where: Namespace, address: str, port: int, patience: float) -> tuple[str, str]:
            pod, source, at = sctp.knock(where, address, port, ears, patience)
            assert at == 8080
            return pod, source

        yield knock
