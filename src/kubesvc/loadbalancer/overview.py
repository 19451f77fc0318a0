"""What `kubesvc loadbalancer status` shows, from objects alone."""

from __future__ import annotations

import msgspec

from kubesvc.api.balancing import BGPPeer, IPAddressPool
from kubesvc.api.core import Service
from kubesvc.api.registry import BGP_PEER, IP_ADDRESS_POOL, SERVICE
from kubesvc.client.session import Session
from kubesvc.loadbalancer.plan import LOAD_BALANCER, ready_condition


class Overview(msgspec.Struct, frozen=True):
    """Rows of text: a pool's name, addresses, how many are assigned and free, what is wrong; a Service's name, class,
    addresses, what to write in DNS, why it waits; a peer's name, address, node, state, routes told, last error."""

    pools: list[tuple[str, ...]]
    services: list[tuple[str, ...]]
    sessions: list[tuple[str, ...]]


async def overview(session: Session) -> Overview:
    """Raises ApiError, Unreachable."""
    pools = await session.list(IP_ADDRESS_POOL, IPAddressPool)
    services = await session.list(SERVICE, Service, fields="spec.type=LoadBalancer")
    peers = await session.list(BGP_PEER, BGPPeer)
    return Overview(
        [_pool(pool) for pool in sorted(pools.items, key=lambda o: o.name)],
        [_service(s) for s in sorted(services.items, key=lambda o: o.key) if s.spec.type == LOAD_BALANCER],
        [row for peer in sorted(peers.items, key=lambda o: o.name) for row in _sessions(peer)],
    )


def _pool(pool: IPAddressPool) -> tuple[str, ...]:
    status = pool.status
    return (
        pool.name,
        ", ".join(pool.spec.addresses),
        str(status.assigned_ipv4 + status.assigned_ipv6),
        str(status.available_ipv4 + status.available_ipv6),
        status.message,
    )


def dns_records(service: Service) -> list[str]:
    """Type and data of the records that lead a name to the Service: an address's is A or AAAA, a host name's CNAME."""
    return [
        f"CNAME {i.hostname}." if i.hostname else f"{'AAAA' if ':' in i.ip else 'A'} {i.ip}"
        for i in service.status.load_balancer.ingress
        if i.hostname or i.ip
    ]


def waits(service: Service) -> str:
    """Why its load balancer isn't as it wants, or empty."""
    ready = ready_condition(service)
    if ready is not None:
        return f"{ready.reason}: {ready.message}" if ready.status != "True" else ""
    if service.status.load_balancer.ingress:
        return ""
    asked = service.spec.load_balancer_class
    return "no load balancer has taken it on" + (f": is there one for class {asked}?" if asked else "")


def _service(service: Service) -> tuple[str, ...]:
    return (
        f"{service.namespace}/{service.name}",
        service.spec.load_balancer_class or "",
        ", ".join(dns_records(service)) or "<pending>",
        waits(service),
    )


def _sessions(peer: BGPPeer) -> list[tuple[str, ...]]:
    return [
        (peer.name, peer.spec.peer_address, node, found.state, str(found.advertised), found.message)
        for node, found in sorted(peer.status.sessions.items())
    ] or [(peer.name, peer.spec.peer_address, "", "no node speaks to it", "0", "")]
