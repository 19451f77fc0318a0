"""One Service and the nodes -> its balancer, as each cloud would make it. Pure.

What a Service asks is read by that cloud's own provider: so what one refuses, the other refuses in the same words.

       status     packets arrive with          check, policy Cluster     check, policy Local       all unhealthy
aws    hostname   the node port, or a new      TCP node port             /healthz of the Service   all are tried
                  connection (PROXY, TLS)
gcp    ip, VIP    the balancer's address       /healthz of the proxy     the same                  all are tried
azure  ip, VIP    the balancer's address       TCP node port; UDP none   the same                  none is
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.aws import wishes as aws
from kubesvc.loadbalancer.providers.aws.annotations import NLB_CLASS
from kubesvc.loadbalancer.providers.azure import wish as azure
from kubesvc.loadbalancer.providers.azure.config import AZURE_CLASS
from kubesvc.loadbalancer.providers.desk.model import DOMAIN, Balancer, Check, Listener, Target
from kubesvc.loadbalancer.providers.gcp import wishes as gcp

REGION = {"aws": "us-east-1", "gcp": "us-central1", "azure": "eastus"}
PROXY_HEALTH_PORT = 10256
CLASS = "kubesvc.dev/desk"
CLASSES = {
    "aws": (NLB_CLASS,),
    "gcp": (gcp.EXTERNAL_CLASS, gcp.INTERNAL_CLASS),
    "azure": (AZURE_CLASS,),
}
NOBODY = "0.0.0.0/32"
"""No packet comes from there."""


def balancer(cloud: str, service: Service, nodes: Sequence[Node], address: Callable[[str], str]) -> Balancer:
    """`address` is given the address that is asked for, "" when any will do, and says which it is. Raises Refused."""
    shape = _SHAPES[cloud](service)
    return Balancer(
        uid=service.metadata.uid,
        service="/".join(service.key),
        address=address(shape.address),
        hostname=_hostname(service, shape) if cloud == "aws" else "",
        internal=shape.internal,
        sources=shape.sources,
        affinity=shape.affinity,
        fail_open=cloud != "azure",
        listeners=shape.listeners,
        targets=tuple(_target(node) for node in sorted(nodes, key=lambda n: n.name) if shape.takes(node)),
    )


def status(found: Balancer) -> LoadBalancerStatus:
    """A host name's balancer is never gone round: proxies know addresses alone."""
    if found.hostname:
        return LoadBalancerStatus(ingress=[LoadBalancerIngress(hostname=found.hostname)])
    return LoadBalancerStatus(ingress=[LoadBalancerIngress(ip=found.address, ip_mode="VIP")])


class _Shape:
    """What the clouds say differently. `sources` None: everybody; `address` "": any."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        internal: bool,
        affinity: bool,
        sources: Iterable[str] | None,
        address: str = "",
        name: str = "",
        takes: Callable[[Node], bool] = lambda _: True,
    ) -> None:
        self.listeners, self.internal, self.affinity, self.takes = tuple(listeners), internal, affinity, takes
        self.sources, self.address, self.name = _reachable(sources), address, name


def _reachable(sources: Iterable[str] | None) -> tuple[str, ...]:
    """Networks of IPv4, the only family here; none: everybody."""
    if sources is None:
        return ()
    found = tuple(text for text in sources if ip_network(text).version == 4)
    return () if "0.0.0.0/0" in found else found or (NOBODY,)


def _target(node: Node) -> Target:
    networks = tuple(n for n in node.spec.pod_cidrs or [node.spec.pod_cidr] if n and ":" not in n)
    return Target(name=node.name, address=next((a for a in node.internal_ips if ":" not in a), ""), networks=networks)


def _hostname(service: Service, shape: _Shape) -> str:
    """NAME-HASH.elb.REGION.…, `internal-` in front of one that the internet doesn't reach."""
    digest = hashlib.sha256(service.metadata.uid.encode()).hexdigest()
    name = shape.name or f"k8s-{service.namespace[:8]}-{service.name[:8]}-{digest[:10]}"
    return f"{'internal-' if shape.internal else ''}{name.lower()}-{digest[10:26]}.elb.{REGION['aws']}.{DOMAIN}"


# ── aws ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _aws(service: Service) -> _Shape:
    wish = aws.wish_of(service)
    if any(not port.node_port for port in service.spec.ports):
        message = "instance targets need node ports: leave allocateLoadBalancerNodePorts out"
        raise Refused("NoNodePorts", message, service.status.load_balancer)
    group = wish.group_attributes
    asked = {port.service_port.port: port for port in wish.ports}

    def listener(port: ServicePort) -> Listener:
        told, udp = asked[port.port], port.protocol == "UDP"
        header = told.proxy_protocol or group.get(aws.PROXY_PROTOCOL) == "true"
        tls = told.protocol == "TLS"
        own = not udp and (header or tls or group.get("preserve_client_ip.enabled") == "false")
        return Listener(
            protocol=port.protocol,
            port=port.port,
            node_port=port.node_port,
            mode="proxy" if own else "nat",
            check=_aws_check(service, wish, port),
            proxy_protocol=own and header,
            tls=tls,
        )

    return _Shape(
        [listener(port) for port in service.spec.ports],
        internal=wish.scheme != "internet-facing",
        affinity=group.get("stickiness.enabled") == "true",
        sources=wish.source_ranges,
        name=wish.name,
        takes=lambda node: aws.matches(node.metadata.labels, wish.node_labels),
    )


def _aws_check(service: Service, wish: aws.Wish, port: ServicePort) -> Check:
    told = wish.health
    number = port.node_port
    if told.port != "traffic-port":
        number = int(told.port)
    elif port.protocol == "UDP":
        number = next((p.node_port for p in service.spec.ports if p.protocol == "TCP"), PROXY_HEALTH_PORT)
    return Check(
        protocol="http" if told.protocol == "HTTP" else "tcp",
        port=number,
        path=told.path or "/",
        interval=told.interval,
        timeout=told.timeout,
        healthy=told.healthy,
        unhealthy=told.unhealthy,
    )


# ── gcp ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gcp(service: Service) -> _Shape:
    wish = gcp.wish_of(service)
    if isinstance(wish, gcp.Refusal):
        raise Refused(wish.reason, wish.message, service.status.load_balancer)
    port = wish.health_port or PROXY_HEALTH_PORT
    check = Check(protocol="http", port=port, path="/healthz", interval=8, timeout=1, healthy=1, unhealthy=3)
    listeners = [
        Listener(protocol=p.protocol, port=p.port, node_port=p.node_port, mode="vip", check=check)
        for p in service.spec.ports
    ]
    return _Shape(listeners, internal=wish.internal, affinity=wish.sticky, sources=wish.sources, address=wish.ip)


# ── azure ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _azure(service: Service) -> _Shape:
    wish = azure.wish_of(service)
    listeners = [
        Listener(
            protocol=port.protocol.upper(),
            port=port.port,
            node_port=port.node_port,
            mode="vip" if wish.floating else "nat",
            check=_azure_check(port.probe) if port.probe else None,
        )
        for port in wish.ports
    ]
    closed = wish.sources is not None and (wish.deny_rest or not wish.internal)  # to the VNet only when asked
    return _Shape(
        listeners,
        internal=wish.internal,
        affinity=wish.sticky,
        sources=wish.sources["IPv4"] if wish.sources is not None and closed else None,
        address=wish.addresses.get("IPv4", ""),
    )


def _azure_check(probe: azure.Probe) -> Check:
    return Check(
        protocol="http" if probe.protocol == "Http" else "tcp",
        port=probe.port,
        path=probe.path or "/",
        interval=probe.interval,
        timeout=probe.interval,
        healthy=1,
        unhealthy=probe.count,
    )


_SHAPES: dict[str, Callable[[Service], _Shape]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
