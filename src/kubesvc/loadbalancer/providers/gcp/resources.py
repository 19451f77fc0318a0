"""Google Cloud's objects as this provider wants them: JSON as compute v1 has it. Pure.

Links are partial (`projects/P/regions/R/healthChecks/N`): the service takes them, and answers with whole ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.gcp.names import cluster_prefix, describe, service_name
from kubesvc.loadbalancer.providers.gcp.wishes import Wish

MAX_PORTS = 5  # of a forwarding rule that lists them
NODE_HEALTH_PORT = 10256  # the proxy's /healthz, of every node
PROBERS = ("130.211.0.0/22", "209.85.152.0/22", "209.85.204.0/22", "35.191.0.0/16")
"""Where Google's health checks come from, for internal and external load balancers."""


class Kind(StrEnum):
    """The collections, as paths and permissions call them."""

    RULE = "forwardingRules"
    BACKEND_SERVICE = "backendServices"
    HEALTH_CHECK = "healthChecks"
    ADDRESS = "addresses"
    FIREWALL = "firewalls"
    GROUP = "instanceGroups"
    """Their names are ZONE/NAME here."""


class Site(msgspec.Struct, frozen=True):
    """Where a cluster is. `network` and `subnetwork` are names; `node_tags` are network tags of the nodes' VMs."""

    project: str
    region: str
    cluster: str
    network: str = "default"
    subnetwork: str = ""
    node_tags: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        return cluster_prefix(self.cluster)

    @property
    def network_link(self) -> str:
        return f"projects/{self.project}/global/networks/{self.network}"

    def link(self, kind: Kind, name: str) -> str:
        if kind is Kind.GROUP:
            zone, _, bare = name.partition("/")
            return f"projects/{self.project}/zones/{zone}/{kind}/{bare}"
        return f"projects/{self.project}/regions/{self.region}/{kind}/{name}"

    def subnet_link(self, wish: Wish) -> str:
        name = wish.subnet or self.subnetwork
        return f"projects/{self.project}/regions/{self.region}/subnetworks/{name}" if name else ""


class Found(msgspec.Struct, frozen=True):
    """What there is. `members`: ZONE/NAME of a group -> names of its VMs."""

    objects: Mapping[Kind, Mapping[str, JSON]] = {}
    members: Mapping[str, frozenset[str]] = {}

    def of(self, kind: Kind) -> Mapping[str, JSON]:
        return self.objects.get(kind, {})

    def get(self, kind: Kind, name: str) -> JSON | None:
        return self.of(kind).get(name)


class Names(msgspec.Struct, frozen=True):
    """A Service's objects, and the shared health check."""

    base: str
    shared: str

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(f"{self.base}-{suffix}" for suffix in ("all", "tcp", "udp"))

    @property
    def check(self) -> str:
        return f"{self.base}-hc"

    @property
    def check_firewall(self) -> str:
        return f"{self.base}-hc-fw"

    @property
    def firewall(self) -> str:
        return f"{self.base}-fw"

    @property
    def address(self) -> str:
        """The static address that holds the load balancer's own while forwarding rules change."""
        return f"{self.base}-ip"

    @property
    def shared_check(self) -> str:
        return f"{self.shared}-hc"

    @property
    def shared_firewall(self) -> str:
        return f"{self.shared}-hc-fw"


def names_of(site: Site, service: Service) -> Names:
    return Names(service_name(site.cluster, service), site.prefix)


def scheme(wish: Wish) -> str:
    return "INTERNAL" if wish.internal else "EXTERNAL"


def health_check(name: str, description: str, port: int) -> JSON:
    """HTTP /healthz; intervals as Google's controller has them: a node is out after three that fail in a row."""
    return {
        "name": name,
        "description": description,
        "type": "HTTP",
        "httpHealthCheck": {"port": port, "requestPath": "/healthz"},
        "checkIntervalSec": 8,
        "timeoutSec": 1,
        "healthyThreshold": 1,
        "unhealthyThreshold": 3,
    }


def backend_service(site: Site, service: Service, wish: Wish, zones: Iterable[str]) -> JSON:
    """Without zones it says nothing of backends: an update leaves them as they are, their groups empty."""
    names = names_of(site, service)
    check = names.check if wish.health_port else names.shared_check
    body: JSON = {
        "name": names.base,
        "description": describe(site.cluster, service),
        "loadBalancingScheme": scheme(wish),
        "protocol": wish.ports[0][0] if len(wish.ports) == 1 else "UNSPECIFIED",
        "healthChecks": [site.link(Kind.HEALTH_CHECK, check)],
        "sessionAffinity": "CLIENT_IP" if wish.sticky else "NONE",
        "connectionDraining": {"drainingTimeoutSec": 30},
        "localityLbPolicy": "WEIGHTED_MAGLEV" if wish.weighted else "MAGLEV",
    }
    backends = [
        {"group": site.link(Kind.GROUP, f"{zone}/{site.prefix}"), "balancingMode": "CONNECTION"}
        for zone in sorted(zones)
    ]
    return body | ({"backends": backends} if backends else {})


def forwarding_rules(site: Site, service: Service, wish: Wish, ip: str) -> dict[str, JSON]:
    """name -> rule. Internal ones of several protocols are one rule of all ports: internal rules can't share an
    address that nobody reserved for sharing. What isn't a Service's port stops at the firewall."""
    names = names_of(site, service)
    common: JSON = {
        "description": describe(site.cluster, service),
        "loadBalancingScheme": scheme(wish),
        "backendService": site.link(Kind.BACKEND_SERVICE, names.base),
    }
    if ip:
        common["IPAddress"] = ip
    if wish.internal:
        subnet = site.subnet_link(wish)
        common |= {"network": site.network_link, "allowGlobalAccess": wish.global_access}
        common |= {"subnetwork": subnet} if subnet else {}
    else:
        common["networkTier"] = wish.tier
    if wish.internal and len(wish.ports) > 1:
        name = f"{names.base}-all"
        return {name: {"name": name, **common, "IPProtocol": "L3_DEFAULT", "allPorts": True}}
    rules: dict[str, JSON] = {}
    for protocol, ports in wish.ports:
        name = f"{names.base}-{protocol.lower()}"
        rules[name] = {"name": name, **common, "IPProtocol": protocol, **_ports(wish, ports)}
    return rules


def _ports(wish: Wish, ports: tuple[int, ...]) -> JSON:
    if len(ports) <= MAX_PORTS:
        return {"ports": [str(port) for port in ports]}
    return {"allPorts": True} if wish.internal else {"portRange": f"{ports[0]}-{ports[-1]}"}


def held_address(site: Site, service: Service, wish: Wish, ip: str) -> JSON:
    body: JSON = {
        "name": names_of(site, service).address,
        "description": describe(site.cluster, service),
        "addressType": scheme(wish),
    }
    if ip:
        body["address"] = ip
    if not wish.internal:
        body["networkTier"] = wish.tier
    elif site.subnet_link(wish):
        body["subnetwork"] = site.subnet_link(wish)
    return body


def firewall(site: Site, service: Service, wish: Wish, ip: str) -> JSON:
    """Packets come to the nodes with the load balancer's address and the Service's own ports."""
    allowed = [(protocol.lower(), [str(port) for port in ports]) for protocol, ports in wish.ports]
    name = names_of(site, service).firewall
    return _firewall(site, name, describe(site.cluster, service), wish.sources, allowed, [ip])


def check_firewall(site: Site, name: str, description: str, port: int) -> JSON:
    """A check goes to the load balancer's address: the firewall must not ask for the node's own."""
    return _firewall(site, name, description, PROBERS, [("tcp", [str(port)])], [])


def _firewall(
    site: Site,
    name: str,
    description: str,
    sources: Iterable[str],
    allowed: list[tuple[str, list[str]]],
    destinations: list[str],
) -> JSON:
    body: JSON = {
        "name": name,
        "description": description,
        "network": site.network_link,
        "direction": "INGRESS",
        "sourceRanges": list(sources),
        "allowed": [{"IPProtocol": protocol, "ports": ports} for protocol, ports in allowed],
    }
    if destinations:
        body["destinationRanges"] = destinations
    if site.node_tags:
        body["targetTags"] = list(site.node_tags)
    return body


def instance_group(site: Site) -> JSON:
    return {"name": site.prefix, "description": describe(site.cluster)}
