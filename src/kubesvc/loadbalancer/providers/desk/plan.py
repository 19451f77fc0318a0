"""One Service and the nodes -> its balancer, as each cloud would make it. Pure.

       status     packets arrive with          check, policy Cluster     check, policy Local       all unhealthy
aws    hostname   the node port, or a new      TCP node port             /healthz of the Service   all are tried
                  connection (PROXY, TLS)
gcp    ip, VIP    the balancer's address       /healthz of the proxy     the same                  all are tried
azure  ip, VIP    the balancer's address       TCP node port; UDP none   the same                  none is
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.providers.aws.annotations import NLB_CLASS
from kubesvc.loadbalancer.providers.desk.model import DOMAIN, Balancer, Check, Listener, Target
from kubesvc.loadbalancer.providers.desk.vocabulary import AWS, AZURE, rejection
from kubesvc.loadbalancer.providers.desk.wishes import BadWish, Wishes, sources
from kubesvc.loadbalancer.providers.gcp import wishes as gcp

REGION = {"aws": "us-east-1", "gcp": "us-central1", "azure": "eastus"}
PROXY_HEALTH_PORT = 10256
CLASS = "kubesvc.dev/desk"
CLASSES = {
    "aws": (NLB_CLASS,),
    "gcp": (gcp.EXTERNAL_CLASS, gcp.INTERNAL_CLASS),
    "azure": (),
}


def balancer(cloud: str, service: Service, nodes: Sequence[Node], address: str) -> Balancer:
    """Raises BadWish."""
    if refused := rejection(cloud, service.metadata.annotations):
        raise BadWish(refused)
    shape = _SHAPES[cloud](service)
    return Balancer(
        uid=service.metadata.uid,
        service="/".join(service.key),
        address=address,
        hostname=_hostname(service, shape.internal) if cloud == "aws" else "",
        internal=shape.internal,
        sources=sources(service),
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


def wanted_address(cloud: str, service: Service) -> str:
    """The address that the Service asks for; "" when any will do."""
    if cloud == "aws":
        return ""
    asked = Wishes(service.metadata.annotations, AZURE).text("load-balancer-ipv4") if cloud == "azure" else ""
    return asked or service.spec.load_balancer_ip


class _Shape:
    """What the clouds say differently."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        internal: bool,
        affinity: bool,
        takes: Callable[[Node], bool] = lambda _: True,
    ) -> None:
        self.listeners, self.internal, self.affinity, self.takes = tuple(listeners), internal, affinity, takes


def _target(node: Node) -> Target:
    networks = tuple(n for n in node.spec.pod_cidrs or [node.spec.pod_cidr] if n and ":" not in n)
    return Target(name=node.name, address=next((a for a in node.internal_ips if ":" not in a), ""), networks=networks)


def _is_local(service: Service) -> bool:
    return service.spec.external_traffic_policy == "Local" and bool(service.spec.health_check_node_port)


def _hostname(service: Service, internal: bool) -> str:
    """NAME-HASH.elb.REGION.…, `internal-` in front of one that the internet doesn't reach."""
    given = Wishes(service.metadata.annotations, AWS).text("name")
    digest = hashlib.sha256(service.metadata.uid.encode()).hexdigest()
    name = given or f"k8s-{service.namespace[:8]}-{service.name[:8]}-{digest[:10]}"
    return f"{'internal-' if internal else ''}{name.lower()}-{digest[10:26]}.elb.{REGION['aws']}.{DOMAIN}"


# ── aws ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _aws(service: Service) -> _Shape:
    wishes = Wishes(service.metadata.annotations, AWS)
    scheme = wishes.one_of("scheme", "internal", "internal", "internet-facing")
    if wishes.text("internal"):
        scheme = "internal" if wishes.is_true("internal") else "internet-facing"
    group = wishes.pairs("target-group-attributes")
    told = wishes.text("proxy-protocol")
    if told not in ("", "*"):
        raise BadWish(f"annotation {AWS}proxy-protocol is {told!r}: expected *")
    header = told == "*" or group.get("proxy_protocol_v2.enabled") == "true"
    secured = {p.strip() for p in wishes.text("ssl-ports", "*").split(",")} if wishes.text("ssl-cert") else set()
    labels = wishes.pairs("target-node-labels")

    def listener(port: ServicePort) -> Listener:
        udp = port.protocol == "UDP"
        tls = not udp and bool(secured & {"*", str(port.port), port.name})
        own = not udp and (header or tls or group.get("preserve_client_ip.enabled") == "false")
        return Listener(
            protocol=port.protocol,
            port=port.port,
            node_port=port.node_port,
            mode="proxy" if own else "nat",
            check=_aws_check(service, wishes, port),
            proxy_protocol=own and header,
            tls=tls,
        )

    return _Shape(
        [listener(port) for port in service.spec.ports],
        internal=scheme == "internal",
        affinity=group.get("stickiness.enabled") == "true",
        takes=lambda node: labels.items() <= node.metadata.labels.items(),
    )


def _aws_check(service: Service, wishes: Wishes, port: ServicePort) -> Check:
    local = _is_local(service)
    protocol = wishes.one_of("healthcheck-protocol", "http" if local else "tcp", "http", "https", "tcp")
    told = wishes.text("healthcheck-port", "traffic-port")
    if told == "traffic-port":
        # Without a port of their own, Services of policy Local are asked at the port that knows.
        number = service.spec.health_check_node_port if local else port.node_port
        if port.protocol == "UDP" and not local:
            number = next((p.node_port for p in service.spec.ports if p.protocol == "TCP"), PROXY_HEALTH_PORT)
    else:
        number = wishes.number("healthcheck-port", 0, 1, 65535)
    low = (10, 6, 2, 2) if local else (10, 10, 3, 3)
    return Check(
        protocol="tcp" if protocol == "https" else protocol,
        port=number,
        path=wishes.text("healthcheck-path", "/healthz" if local else "/"),
        interval=wishes.number("healthcheck-interval", low[0], 5, 300),
        timeout=wishes.number("healthcheck-timeout", low[1], 2, 120),
        healthy=wishes.number("healthcheck-healthy-threshold", low[2], 2, 10),
        unhealthy=wishes.number("healthcheck-unhealthy-threshold", low[3], 2, 10),
    )


# ── gcp ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gcp(service: Service) -> _Shape:
    annotations = service.metadata.annotations
    for name in (gcp.TYPE, gcp.OLD_TYPE):
        if annotations.get(name) not in (None, "Internal", "internal"):
            raise BadWish(f"annotation {name} is {annotations[name]!r}: expected Internal")
    port = service.spec.health_check_node_port if _is_local(service) else PROXY_HEALTH_PORT
    check = Check(protocol="http", port=port, path="/healthz", interval=8, timeout=1, healthy=1, unhealthy=3)
    listeners = [
        Listener(protocol=p.protocol, port=p.port, node_port=p.node_port, mode="vip", check=check)
        for p in service.spec.ports
    ]
    affinity = service.spec.session_affinity == "ClientIP"
    return _Shape(listeners, internal=gcp.is_internal(service), affinity=affinity)


# ── azure ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _azure(service: Service) -> _Shape:
    wishes = Wishes(service.metadata.annotations, AZURE)
    mode = "nat" if wishes.is_true("disable-load-balancer-floating-ip") else "vip"
    listeners = []
    for port in service.spec.ports:
        own = Wishes(service.metadata.annotations, f"service.beta.kubernetes.io/port_{port.port}_")
        if own.is_true("no_lb_rule"):
            continue
        check = None if own.is_true("no_probe_rule") else _azure_check(service, wishes, own, port)
        listeners.append(
            Listener(protocol=port.protocol, port=port.port, node_port=port.node_port, mode=mode, check=check)
        )
    internal, affinity = wishes.is_true("load-balancer-internal"), service.spec.session_affinity == "ClientIP"
    return _Shape(listeners, internal=internal, affinity=affinity)


def _azure_check(service: Service, wishes: Wishes, own: Wishes, port: ServicePort) -> Check | None:
    local = _is_local(service)
    interval = wishes.number("load-balancer-health-probe-interval", 5, 5, 300)
    probes = wishes.number("load-balancer-health-probe-num-of-probe", 2, 1, 100)
    interval = own.number("health-probe_interval", interval, 5, 300)
    probes = own.number("health-probe_num-of-probe", probes, 1, 100)
    if local:
        return Check(
            protocol="http",
            port=service.spec.health_check_node_port,
            path="/healthz",
            interval=interval,
            timeout=interval,
            healthy=1,
            unhealthy=probes,
        )
    if port.protocol != "TCP":
        return None
    kinds = ("tcp", "http", "https")
    protocol = wishes.one_of("load-balancer-health-probe-protocol", "tcp", *kinds)
    protocol = own.one_of("health-probe_protocol", protocol, *kinds)
    path = own.text("health-probe_request-path", wishes.text("load-balancer-health-probe-request-path", "/"))
    return Check(
        protocol="tcp" if protocol == "https" else protocol,
        port=own.number("health-probe_port", port.node_port, 1, 65535),
        path=path,
        interval=interval,
        timeout=interval,
        healthy=1,
        unhealthy=probes,
    )


_SHAPES: dict[str, Callable[[Service], _Shape]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
