"""What one Service asks of Azure, out of its spec and annotations, or why it can't be had. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service, ServicePort
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.azure import annotations as known
from kubesvc.loadbalancer.providers.azure.annotations import AZURE, PREFIX

FAMILIES = {"IPv4": 4, "IPv6": 6}
PROBES = {"tcp": "Tcp", "http": "Http", "https": "Https"}
MAX_PROBING = 120  # seconds that interval times count must stay below


class Probe(msgspec.Struct, frozen=True):
    protocol: str  # Tcp | Http | Https
    port: int
    path: str | None
    interval: int  # seconds
    count: int


class Port(msgspec.Struct, frozen=True):
    protocol: str  # Tcp | Udp
    port: int
    node_port: int
    probe: Probe | None


class Wish(msgspec.Struct, frozen=True):
    """Of one Service; mappings are family ("IPv4", "IPv6") -> what."""

    uid: str
    key: str  # namespace/name
    status: LoadBalancerStatus  # what it shows
    families: tuple[str, ...]
    internal: bool
    subnet: str  # "": the configured one
    addresses: Mapping[str, str]
    pip_names: Mapping[str, str]
    prefixes: Mapping[str, str]
    group: str  # "": the cluster's
    tags: Mapping[str, str]
    ip_tags: Mapping[str, str]
    dns_label: str | None  # None: as it is; "": none
    ports: tuple[Port, ...]
    local_probe: bool  # every port's probe is the one of policy Local
    idle_timeout: int  # minutes
    floating: bool
    sticky: bool
    sources: Mapping[str, tuple[str, ...]] | None  # None: not restricted by address
    service_tags: tuple[str, ...]
    deny_rest: bool

    def refused(self, reason: str, message: str) -> Refused:
        return Refused(reason, message, self.status)


def wish_of(service: Service) -> Wish:
    """Raises Refused, with the annotation, its value, what was expected."""
    reader = _Reader(service)
    spec = service.spec
    reader.reject()
    ports = tuple(reader.ports())
    if not ports:
        raise reader.refused("NoPorts", "no port is left to balance; take a port_…_no_lb_rule annotation away")
    families = tuple(f for f in spec.ip_families if f in FAMILIES) or ("IPv4",)
    internal = reader.flag("load-balancer-internal")
    floating = not reader.flag("disable-load-balancer-floating-ip")
    if spec.allocate_load_balancer_node_ports is False and not (
        floating and spec.external_traffic_policy == "Local"
    ) and any(not p.node_port for p in spec.ports):  # fmt: skip
        raise reader.refused(
            "NodePortsNeeded", "without node ports externalTrafficPolicy must be Local and floating IP enabled"
        )
    return Wish(
        uid=service.metadata.uid,
        key=f"{service.namespace}/{service.name}",
        status=service.status.load_balancer,
        families=families,
        internal=internal,
        subnet=reader.text("load-balancer-internal-subnet") or "",
        addresses=reader.addresses(families),
        pip_names=_by_family(reader, "pip-name"),
        prefixes=_by_family(reader, "pip-prefix-id"),
        group=reader.text("load-balancer-resource-group") or "",
        tags=reader.pairs("pip-tags"),
        ip_tags=reader.pairs("pip-ip-tags"),
        dns_label=reader.text("dns-label-name"),
        ports=ports,
        local_probe=spec.external_traffic_policy == "Local" and spec.health_check_node_port > 0,
        idle_timeout=reader.number(AZURE + "load-balancer-tcp-idle-timeout", 4, 4, 30),
        floating=floating,
        sticky=spec.session_affinity == "ClientIP",
        sources=reader.sources(),
        service_tags=reader.listed("allowed-service-tags"),
        deny_rest=reader.flag("deny-all-except-load-balancer-source-ranges"),
    )


def remarks(service: Service) -> list[str]:
    """What is passed over, a sentence each."""
    said = []
    values = service.metadata.annotations
    internal = values.get(AZURE + "load-balancer-internal", "").lower() == "true"
    local = service.spec.external_traffic_policy == "Local"
    named = any(values.get(AZURE + n) for n in ("pip-name", "pip-name-ipv6"))
    for key, _, annotation in known.found(values):
        short = key.removeprefix(PREFIX)
        if annotation.fate == known.IGNORED:
            said.append(f"{key} is ignored: {annotation.says}")
        elif annotation.public_only and internal:
            said.append(f"{key} is ignored: the load balancer is internal and has no public IP")
        elif named and short in ("azure-dns-label-name", "azure-pip-tags", "azure-pip-ip-tags"):
            said.append(f"{key} is ignored: the public IP is yours, set it there")
        elif local and short.endswith(("probe-protocol", "probe-request-path", "probe_port")):
            said.append(f"{key} is ignored: with externalTrafficPolicy Local the probe is HTTP /healthz")
    return said


def _by_family(reader: _Reader, name: str) -> dict[str, str]:
    found = {"IPv4": reader.text(name), "IPv6": reader.text(name + "-ipv6")}
    return {family: value for family, value in found.items() if value}


class _Reader:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._values = service.metadata.annotations

    def refused(self, reason: str, message: str) -> Refused:
        return Refused(reason, message, self._service.status.load_balancer)

    def bad(self, key: str, expected: str) -> Refused:
        return self.refused("InvalidAnnotation", f"{key}: {self._values[key]!r} isn't {expected}")

    def reject(self) -> None:
        for key, value, annotation in known.found(self._values):
            if annotation.fate == known.REJECTED and value.lower() == "true":
                raise self.refused("Unsupported", f"{key}: {annotation.says}; leave it out")

    def text(self, name: str) -> str | None:
        value = self._values.get(AZURE + name)
        return None if value is None else value.strip()

    def flag(self, name: str) -> bool:
        return self.truth(AZURE + name)

    def truth(self, key: str) -> bool:
        value = self._values.get(key, "").strip().lower()
        if value not in ("", "true", "false"):
            raise self.bad(key, "true or false")
        return value == "true"

    def number(self, key: str, default: int, least: int, most: int) -> int:
        if key not in self._values:
            return default
        try:
            value = int(self._values[key])
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise self.bad(key, f"a number from {least} to {most}")
        return value

    def listed(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def pairs(self, name: str) -> dict[str, str]:
        found = {}
        for part in self.listed(name):
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise self.bad(AZURE + name, "pairs with commas between them: a=b,c=d")
            found[key.strip()] = value.strip()
        return found

    def addresses(self, families: tuple[str, ...]) -> dict[str, str]:
        found: dict[str, str] = {}
        asked = [(AZURE + f"load-balancer-{family.lower()}", family) for family in FAMILIES]
        for source, family in [("spec.loadBalancerIP", ""), *asked]:
            value = self._service.spec.load_balancer_ip if not family else self._values.get(source, "").strip()
            if not value:
                continue
            try:
                address = ip_address(value)
            except ValueError:
                address = None
            if address is None or (family and address.version != FAMILIES[family]):
                raise self.refused("InvalidAddress", f"{source}: {value!r} isn't an {family or 'IP'} address")
            version = f"IPv{address.version}"
            if version not in families:
                raise self.refused("WrongFamily", f"{source}: {value} is {version}, but the Service isn't: ipFamilies")
            found[version] = str(address)
        return found

    def sources(self) -> dict[str, tuple[str, ...]] | None:
        field, mine = self._service.spec.load_balancer_source_ranges, self.listed("allowed-ip-ranges")
        older = self._values.get(PREFIX + "load-balancer-source-ranges", "")
        ranges = field or [part.strip() for part in older.split(",") if part.strip()]
        if ranges and mine:
            raise self.refused(
                "ConflictingSources", f"{AZURE}allowed-ip-ranges and loadBalancerSourceRanges are both given: keep one"
            )
        if not ranges and not mine:
            return None
        found: dict[str, list[str]] = {family: [] for family in FAMILIES}
        for text in ranges or mine:
            try:
                network = ip_network(text.strip(), strict=False)
            except ValueError:
                why = f"source range {text!r} isn't a network such as 192.0.2.0/24"
                raise self.refused("InvalidSource", why) from None
            found[f"IPv{network.version}"].append(str(network))
        return {family: tuple(sorted(set(listed))) for family, listed in found.items()}

    # ── ports and probes ─────────────────────────────────────────────────────────────────────────────────────────────

    def ports(self) -> list[Port]:
        found = []
        for port in self._service.spec.ports:
            if port.protocol not in ("TCP", "UDP"):
                raise self.refused(
                    "UnsupportedProtocol", f"port {port.port}: Azure balances TCP and UDP, not {port.protocol}"
                )
            if not self.truth(f"{PREFIX}port_{port.port}_no_lb_rule"):
                found.append(Port(port.protocol.capitalize(), port.port, port.node_port, self._probe(port)))
        return found

    def _probe(self, port: ServicePort) -> Probe | None:
        spec = self._service.spec
        if self.truth(f"{PREFIX}port_{port.port}_no_probe_rule"):
            return None
        if spec.external_traffic_policy == "Local" and spec.health_check_node_port:
            interval, count = self._pace(None)
            return Probe("Http", spec.health_check_node_port, "/healthz", interval, count)
        target = self._probe_port(port)
        if port.protocol != "TCP" or not target:
            return None
        interval, count = self._pace(port.port)
        protocol = self._probe_protocol(port)
        path = None
        if protocol != "Tcp":
            own = self._values.get(self._own(port.port, "request-path"))
            path = own or self.text("load-balancer-health-probe-request-path") or "/"
            if not path.startswith("/"):
                key = self._own(port.port, "request-path")
                key = key if own else AZURE + "load-balancer-health-probe-request-path"
                raise self.bad(key, "a path that begins with /")
        return Probe(protocol, target, path, interval, count)

    def _probe_protocol(self, port: ServicePort) -> str:
        """The port's annotation, appProtocol, the Service's annotation, TCP: in upstream's order."""
        own, shared = self._own(port.port, "protocol"), AZURE + "load-balancer-health-probe-protocol"
        for key in (own, shared):
            if key in self._values and self._values[key].lower() not in PROBES:
                raise self.bad(key, "tcp, http or https")
        asked = self._values.get(own) or port.app_protocol or self._values.get(shared) or "tcp"
        return PROBES.get(asked.lower(), "Tcp")

    def _probe_port(self, port: ServicePort) -> int:
        key = self._own(port.port, "port")
        asked = self._values.get(key)
        if asked is None:
            return port.node_port
        for other in self._service.spec.ports:
            if asked in (other.name, str(other.port)):
                return other.node_port
        return self.number(key, 0, 1, 65535)

    def _pace(self, port: int | None) -> tuple[int, int]:
        """(seconds, failures)."""
        keys = {}
        for what in ("interval", "num-of-probe"):
            own = self._own(port, what) if port is not None else ""
            keys[what] = own if own in self._values else f"{AZURE}load-balancer-health-probe-{what}"
        interval = self.number(keys["interval"], 5, 5, MAX_PROBING - 1)
        count = self.number(keys["num-of-probe"], 2, 1, MAX_PROBING - 1)
        if interval * count >= MAX_PROBING:
            raise self.refused(
                "InvalidAnnotation",
                f"probing {count} times every {interval} s takes {interval * count} s; it must stay below "
                f"{MAX_PROBING} s: lower {keys['interval']} or {keys['num-of-probe']}",
            )
        return interval, count

    @staticmethod
    def _own(port: int, what: str) -> str:
        return f"{PREFIX}port_{port}_health-probe_{what}"
