"""What a Service asks of AWS, read from its spec and annotations. Pure.

Follows the AWS Load Balancer Controller's annotations of Services, defaults included. Whatever makes no sense is
Refused with the annotation, its value, and what it should be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service, ServicePort
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.aws import annotations as table
from kubesvc.loadbalancer.providers.aws.annotations import LISTENER_ATTRIBUTES, PREFIX, SOURCE_RANGES, rejected
from kubesvc.loadbalancer.providers.aws.model import Health
from kubesvc.loadbalancer.providers.aws.names import OURS

ALPN = ("HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred", "None")
OLD_ATTRIBUTES = {
    "access-log-enabled": "access_logs.s3.enabled",
    "access-log-s3-bucket-name": "access_logs.s3.bucket",
    "access-log-s3-bucket-prefix": "access_logs.s3.prefix",
    "cross-zone-load-balancing-enabled": "load_balancing.cross_zone.enabled",
}
PROXY_PROTOCOL = "proxy_protocol_v2.enabled"
IP_PASSED_OVER = (
    "spec.loadBalancerIP is passed over: an NLB has a host name; ask for its addresses with the annotations "
    f"{PREFIX}eip-allocations or {PREFIX}private-ipv4-addresses"
)
DEFAULT_POLICY = "ELBSecurityPolicy-2016-08"


class Port(msgspec.Struct, frozen=True):
    """One port to listen on, with the Service's port behind it. protocol: TCP, UDP, TCP_UDP or TLS."""

    service_port: ServicePort
    protocol: str
    target_protocol: str
    attributes: dict[str, str]
    proxy_protocol: bool


class Wish(msgspec.Struct, frozen=True):
    """Empty texts, tuples and mappings: nothing is asked."""

    target_type: str
    scheme: str  # "": as it is, or internal
    name: str
    subnets: tuple[str, ...]
    ip_address_type: str
    allocations: tuple[str, ...]
    private: tuple[str, ...]
    ipv6: tuple[str, ...]
    source_ranges: tuple[str, ...]
    prefix_lists: tuple[str, ...]
    icmp: bool
    security_groups: tuple[str, ...]
    manage_backend: bool
    without_security_group: bool
    node_labels: dict[str, str]
    certificates: tuple[str, ...]
    policy: str
    alpn: str
    ports: tuple[Port, ...]
    health: Health
    attributes: dict[str, str]
    group_attributes: dict[str, str]
    tags: dict[str, str]

    @property
    def carries_backend(self) -> bool:
        """Whether nodes are opened for it, by the security group that they let in."""
        return self.manage_backend and not self.without_security_group


class _Reader:
    """A Service's annotations, with refusals that name them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._annotations = service.metadata.annotations

    def refuse(self, name: str, expected: str) -> Refused:
        whole = name if "/" in name else PREFIX + name
        value = self._annotations.get(whole, "")
        return Refused("InvalidAnnotation", f"{whole}: {value!r} isn't {expected}", self._service.status.load_balancer)

    def text(self, name: str, default: str = "") -> str:
        return self._annotations.get(name if "/" in name else PREFIX + name, "").strip() or default

    def listed(self, name: str) -> tuple[str, ...]:
        return tuple(filter(None, (part.strip() for part in self.text(name).split(","))))

    def mapping(self, name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for part in self.listed(name):
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise self.refuse(name, "a list of key=value with commas between")
            found[key.strip()] = value.strip()
        return found

    def choice(self, name: str, *choices: str, default: str = "", fold: bool = False) -> str:
        found = self.text(name, default)
        found = found.lower() if fold else found
        if found and found not in choices:
            raise self.refuse(name, f"one of {', '.join(choices)}")
        return found

    def flag(self, name: str) -> bool | None:
        found = self.choice(name, "true", "false", fold=True)
        return None if not found else found == "true"

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        text = self.text(name, str(default))
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise self.refuse(name, f"a number from {lowest} to {highest}")
        return int(text)


def wish_of(service: Service) -> Wish:
    """What the Service asks for. Raises Refused."""
    read = _Reader(service)
    shown = service.status.load_balancer
    bad = rejected(service.metadata.annotations)
    if bad is not None:
        raise Refused("AnnotationRejected", f"{bad.full_name} isn't supported: {bad.means}", shown)
    kind = read.choice("type", "external", "nlb", "nlb-ip", default="external")
    target_type = read.choice(
        "nlb-target-type", "instance", "ip", default="ip" if kind == "nlb-ip" else "instance", fold=True
    )
    ip_address_type = read.choice("ip-address-type", "ipv4", "dualstack", default="ipv4")
    scheme = read.choice("scheme", "internal", "internet-facing") or _old_scheme(read)
    security_groups = read.listed("security-groups")
    managed = read.flag("manage-backend-security-group-rules")
    tags = read.mapping("additional-resource-tags")
    if taken := sorted(key for key in tags if key in OURS or key.startswith("aws:") or " " in key):
        raise read.refuse("additional-resource-tags", f"free to set {', '.join(taken)}")
    name = read.text("name")
    if name and (not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?", name) or name[:9] == "internal-"):
        raise read.refuse("name", "1 to 32 letters, digits and hyphens, with no hyphen or 'internal-' in front")
    _same_number(read, "eip-allocations", read.listed("subnets"), scheme, "internet-facing")
    _same_number(read, "private-ipv4-addresses", read.listed("subnets"), scheme or "internal", "internal")
    if read.listed("ipv6-addresses") and ip_address_type != "dualstack":
        raise read.refuse("ipv6-addresses", "possible without ip-address-type: dualstack")
    return Wish(
        target_type=target_type,
        scheme=scheme,
        name=name,
        subnets=read.listed("subnets"),
        ip_address_type=ip_address_type,
        allocations=read.listed("eip-allocations"),
        private=read.listed("private-ipv4-addresses"),
        ipv6=read.listed("ipv6-addresses"),
        source_ranges=_source_ranges(service, read, ip_address_type),
        prefix_lists=read.listed("security-group-prefix-lists"),
        icmp=read.choice("enable-icmp-for-path-mtu-discovery", "on", "off") == "on",
        security_groups=security_groups,
        manage_backend=managed if managed is not None else not security_groups,
        without_security_group=bool(read.flag("disable-nlb-sg")),
        node_labels=read.mapping("target-node-labels"),
        certificates=read.listed("ssl-cert"),
        policy=read.text("ssl-negotiation-policy", DEFAULT_POLICY),
        alpn=read.choice("alpn-policy", *ALPN, default="None"),
        ports=_ports(service, read, target_type),
        health=_health(service, read, target_type),
        attributes={new: read.text(old) for old, new in OLD_ATTRIBUTES.items() if read.text(old)}
        | read.mapping("attributes"),
        group_attributes=read.mapping("target-group-attributes"),
        tags=tags,
    )


def remarks(service: Service) -> list[str]:
    """What of the Service is passed over, a sentence each."""
    said = table.remarks(service.metadata.annotations)
    if service.spec.load_balancer_ip:
        said.append(IP_PASSED_OVER)
    return said


def _old_scheme(read: _Reader) -> str:
    internal = read.flag("internal")
    return "" if internal is None else "internal" if internal else "internet-facing"


def _same_number(read: _Reader, name: str, subnets: tuple[str, ...], scheme: str, needed: str) -> None:
    found = read.listed(name)
    if found and scheme != needed:
        raise read.refuse(name, f"possible without scheme: {needed}")
    if found and subnets and len(found) != len(subnets):
        raise read.refuse(name, f"one for each of the {len(subnets)} subnets")


def _source_ranges(service: Service, read: _Reader, ip_address_type: str) -> tuple[str, ...]:
    asked = tuple(r.strip() for r in service.spec.load_balancer_source_ranges) or read.listed(SOURCE_RANGES)
    try:
        ranges = tuple(dict.fromkeys(str(ip_network(text, strict=False)) for text in asked))
    except ValueError:
        raise read.refuse(SOURCE_RANGES, "a list of CIDRs with commas between") from None
    both = ("0.0.0.0/0", "::/0")
    return ranges or (both if ip_address_type == "dualstack" else both[:1])


def _ports(service: Service, read: _Reader, target_type: str) -> tuple[Port, ...]:
    shown = service.status.load_balancer
    by_number: dict[int, list[ServicePort]] = {}
    for port in service.spec.ports:
        if port.protocol not in ("TCP", "UDP"):
            raise Refused(
                "ProtocolNotServed", f"port {port.port}: an NLB has no {port.protocol}; use TCP or UDP", shown
            )
        if target_type == "instance" and not port.node_port:
            remedy = "give it a nodePort, or set nlb-target-type: ip"
            raise Refused(
                "NodePortMissing", f"port {port.port} has no node port for targets to answer on; {remedy}", shown
            )
        by_number.setdefault(port.port, []).append(port)
    tls = _tls_ports(read, service)
    proxied = read.listed("proxy-protocol-per-target-group")
    everywhere = read.choice("proxy-protocol", "*") == "*"
    backend = read.choice("backend-protocol", "tcp", "ssl", default="tcp", fold=True)
    ports: list[Port] = []
    for number, same in by_number.items():
        protocol = same[0].protocol if len(same) == 1 else "TCP_UDP"
        if len(same) > 1:
            _check_shared(number, same, read, target_type, shown)
        over_tls = protocol == "TCP" and tls(same[0])
        protocol = "TLS" if over_tls else protocol
        attributes = read.mapping(f"{LISTENER_ATTRIBUTES}{protocol}-{number}")
        target_protocol = "TLS" if over_tls and backend == "ssl" else "TCP" if over_tls else protocol
        ports.append(Port(same[0], protocol, target_protocol, attributes, everywhere or str(number) in proxied))
    return tuple(ports)


def _check_shared(
    number: int, same: list[ServicePort], read: _Reader, target_type: str, shown: LoadBalancerStatus
) -> None:
    """One port of an NLB is one listener, and one of TCP and UDP has one target group."""
    behind = {port.node_port if target_type == "instance" else port.target_port for port in same}
    if read.flag("enable-tcp-udp-listener") is False:
        raise read.refuse("enable-tcp-udp-listener", f"possible while port {number} is in TCP and in UDP")
    if len(behind) > 1:
        which = "nodePort" if target_type == "instance" else "targetPort"
        message = f"port {number} is in TCP and in UDP with a different {which}; give both the same"
        raise Refused("PortsNotServed", message, shown)


def _tls_ports(read: _Reader, service: Service) -> Callable[[ServicePort], bool]:
    """Which TCP ports terminate TLS."""
    named = read.listed("ssl-ports")
    if not read.listed("ssl-cert"):
        if named:
            raise read.refuse("ssl-ports", "possible without ssl-cert: name a certificate's ARN")
        return lambda port: False
    known = {port.name for port in service.spec.ports} | {str(port.port) for port in service.spec.ports}
    if unknown := [text for text in named if text not in known and text != "*"]:
        raise read.refuse("ssl-ports", f"made of the Service's ports: {', '.join(unknown)}")
    return lambda port: not named or port.name in named or str(port.port) in named


def _health(service: Service, read: _Reader, target_type: str) -> Health:
    local = service.spec.external_traffic_policy == "Local" and target_type == "instance"
    protocol = read.choice(
        "healthcheck-protocol", "tcp", "http", "https", default="http" if local else "tcp", fold=True
    ).upper()
    port = read.text("healthcheck-port", str(service.spec.health_check_node_port) if local else "traffic-port")
    if port != "traffic-port":
        named = {p.name: p for p in service.spec.ports if p.name}
        if port in named:
            chosen = named[port].node_port if target_type == "instance" else named[port].target_port
            port = str(chosen)
        if not port.isdigit() or not 1 <= int(port) <= 65535:
            raise read.refuse("healthcheck-port", "traffic-port, a port number, or the name of a port with one")
    http = protocol != "TCP"
    threshold = 2 if local else 3
    interval = read.number("healthcheck-interval", 10, 5, 300)
    return Health(
        protocol,
        port,
        read.text("healthcheck-path", "/healthz" if local else "/") if http else "",
        interval,
        min(read.number("healthcheck-timeout", 6 if local else 10, 2, 120), interval),
        read.number("healthcheck-healthy-threshold", threshold, 2, 10),
        read.number("healthcheck-unhealthy-threshold", threshold, 2, 10),
        read.text("healthcheck-success-codes", "200-399") if http else "",
    )


def matches(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())
