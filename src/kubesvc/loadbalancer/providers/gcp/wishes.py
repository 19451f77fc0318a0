"""What a Service asks of Google Cloud, or why that can't be had. Pure.

`ANNOTATIONS` is the whole of what is known: the table in docs/guide/gcp.md says the same, held by a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

import msgspec

from kubesvc.api.core import Service
from kubesvc.loadbalancer.providers.standing import Standing

EXTERNAL_CLASS = "networking.gke.io/l4-regional-external"
INTERNAL_CLASS = "networking.gke.io/l4-regional-internal"

TYPE = "networking.gke.io/load-balancer-type"
OLD_TYPE = "cloud.google.com/load-balancer-type"
RBS = "cloud.google.com/l4-rbs"
ADDRESSES = "networking.gke.io/load-balancer-ip-addresses"
SUBNET = "networking.gke.io/load-balancer-subnet"
OLD_SUBNET = "networking.gke.io/internal-load-balancer-subnet"
GLOBAL_ACCESS = "networking.gke.io/internal-load-balancer-allow-global-access"
TIER = "cloud.google.com/network-tier"
WEIGHTED = "networking.gke.io/weighted-load-balancing"
STRONG_AFFINITY = "networking.gke.io/l4-strong-session-affinity"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"

CLOUD_PREFIXES = ("cloud.google.com/", "networking.gke.io/", "beta.cloud.google.com/")


class Annotation(msgspec.Struct, frozen=True):
    """`text`: what it means; for one that is ignored or rejected, what to do instead."""

    name: str
    verdict: Standing
    text: str


ANNOTATIONS = (
    Annotation(TYPE, Standing.SUPPORTED, '`"Internal"`: an internal load balancer; of no account beside a class'),
    Annotation(OLD_TYPE, Standing.SUPPORTED, f"the older name of `{TYPE}`"),
    Annotation(RBS, Standing.SUPPORTED, '`"enabled"`: an external load balancer has a backend service; it always has'),
    Annotation(ADDRESSES, Standing.SUPPORTED, "the name of a static IPv4 address of the region"),
    Annotation(SUBNET, Standing.SUPPORTED, "internal: the subnet that the address is from"),
    Annotation(OLD_SUBNET, Standing.SUPPORTED, f"the older name of `{SUBNET}`"),
    Annotation(GLOBAL_ACCESS, Standing.SUPPORTED, 'internal: `"true"` lets clients of other regions in'),
    Annotation(TIER, Standing.SUPPORTED, "external: `Premium` or `Standard`; a change of it changes the address"),
    Annotation(WEIGHTED, Standing.SUPPORTED, "`pods-per-node`, with externalTrafficPolicy Local: by ready pods"),
    Annotation(SOURCE_RANGES, Standing.SUPPORTED, "who may connect, where `spec.loadBalancerSourceRanges` is empty"),
    Annotation("cloud.google.com/neg", Standing.IGNORED, "backends are instance groups; leave it out"),
    Annotation("cloud.google.com/neg-status", Standing.IGNORED, "GKE's own note; leave it out"),
    Annotation("cloud.google.com/backend-config", Standing.IGNORED, "it is for Ingress; leave it out"),
    Annotation("beta.cloud.google.com/backend-config", Standing.IGNORED, "it is for Ingress; leave it out"),
    Annotation("cloud.google.com/app-protocols", Standing.IGNORED, "packets pass through unread; leave it out"),
    Annotation("networking.gke.io/transparent-health-checker", Standing.IGNORED, "the proxy's own health is checked"),
    Annotation(STRONG_AFFINITY, Standing.REJECTED, "Google allows it to few projects; use `spec.sessionAffinity`"),
)
_KNOWN = {annotation.name: annotation for annotation in ANNOTATIONS}


def known(name: str) -> Annotation | None:
    """What there is to say of the annotation with that name."""
    return _KNOWN.get(name)


class Refusal(msgspec.Struct, frozen=True):
    """`reason` is a CamelCase word for the condition."""

    reason: str
    message: str


class Wish(msgspec.Struct, frozen=True):
    """`ports`: protocol -> ports, in order of number; `health_port` 0: the shared check of policy Cluster will do."""

    internal: bool
    ports: tuple[tuple[str, tuple[int, ...]], ...]
    sources: tuple[str, ...] = ("0.0.0.0/0",)
    ip: str = ""
    address_name: str = ""
    subnet: str = ""
    global_access: bool = False
    tier: str = "PREMIUM"
    weighted: bool = False
    sticky: bool = False
    health_port: int = 0


def is_internal(service: Service) -> bool:
    """The class decides; without one, the annotation does."""
    if service.spec.load_balancer_class in (EXTERNAL_CLASS, INTERNAL_CLASS):
        return service.spec.load_balancer_class == INTERNAL_CLASS
    annotations = service.metadata.annotations
    return "internal" in (annotations.get(TYPE, "").lower(), annotations.get(OLD_TYPE, "").lower())


def wish_of(service: Service) -> Wish | Refusal:
    """What the Service asks for, or why that makes no sense."""
    spec = service.spec
    internal = is_internal(service)
    local = spec.external_traffic_policy == "Local"
    ports: dict[str, set[int]] = {}
    for port in spec.ports:
        ports.setdefault(port.protocol, set()).add(port.port)
    sources = _sources(service)
    if isinstance(sources, Refusal):
        return sources
    refusal = _refused_spec(service, ports) or _refused_values(service, local)
    if refusal is not None:
        return refusal
    annotations = service.metadata.annotations
    return Wish(
        internal=internal,
        ports=tuple((protocol, tuple(sorted(ports[protocol]))) for protocol in sorted(ports)),
        sources=sources,
        ip=spec.load_balancer_ip,
        address_name=annotations.get(ADDRESSES, "").strip(),
        subnet=(annotations.get(SUBNET) or annotations.get(OLD_SUBNET, "")) if internal else "",
        global_access=internal and annotations.get(GLOBAL_ACCESS) == "true",
        tier="" if internal else annotations.get(TIER, "Premium").upper(),
        weighted=bool(annotations.get(WEIGHTED)) and local,
        sticky=spec.session_affinity == "ClientIP",
        health_port=spec.health_check_node_port if local else 0,
    )


def remarks(service: Service) -> Sequence[str]:
    """What of the Service's annotations is passed over, a sentence each."""
    internal, annotations = is_internal(service), service.metadata.annotations
    found: list[str] = []
    for name in sorted(annotations):
        what = known(name)
        if what is not None and what.verdict is Standing.IGNORED:
            found.append(f"annotation {name}: {what.text}")
        elif what is None and name.startswith(CLOUD_PREFIXES):
            found.append(f"annotation {name}: it isn't known here; leave it out")
        elif name == TIER and internal:
            found.append(f"annotation {name}: an internal address has no network tier; leave it out")
        elif name in (SUBNET, OLD_SUBNET, GLOBAL_ACCESS) and not internal:
            found.append(f"annotation {name}: it is for internal load balancers; leave it out")
        elif name in (TYPE, OLD_TYPE) and service.spec.load_balancer_class == EXTERNAL_CLASS:
            found.append(f"annotation {name}: the class {EXTERNAL_CLASS} decides; leave it out")
        elif name == WEIGHTED and service.spec.external_traffic_policy != "Local":
            found.append(f"annotation {name}: weights need externalTrafficPolicy Local")
    return found


def _refused_spec(service: Service, ports: dict[str, set[int]]) -> Refusal | None:
    spec = service.spec
    if (spec.ip_families and "IPv4" not in spec.ip_families) or spec.ip_family_policy == "RequireDualStack":
        return Refusal(
            "FamilyNotServed", "only IPv4 is served: set ipFamilies to [IPv4] and ipFamilyPolicy to SingleStack"
        )
    others = sorted(set(ports) - {"TCP", "UDP"})
    if others:
        return Refusal("ProtocolNotServed", f"{', '.join(others)} isn't served: use TCP or UDP")
    if not ports:
        return Refusal("NoPorts", "the Service has no port to serve")
    if spec.load_balancer_ip:
        try:
            IPv4Address(spec.load_balancer_ip)
        except ValueError:
            return Refusal("InvalidAddress", f"spec.loadBalancerIP: {spec.load_balancer_ip!r} is not an IPv4 address")
    return None


def _refused_values(service: Service, local: bool) -> Refusal | None:
    """Of annotations: rejected ones, and values that are none."""
    allowed = {
        TYPE: ("Internal", "internal"),
        OLD_TYPE: ("Internal", "internal"),
        RBS: ("enabled",),
        GLOBAL_ACCESS: ("true", "false"),
        TIER: ("Premium", "Standard"),
        WEIGHTED: ("pods-per-node",),
    }
    annotations = service.metadata.annotations
    for name, value in sorted(annotations.items()):
        what = known(name)
        if what is not None and what.verdict is Standing.REJECTED:
            return Refusal("AnnotationRejected", f"annotation {name}: {what.text}")
        if name in allowed and value not in allowed[name]:
            return Refusal("InvalidAnnotation", f"annotation {name}: {value!r} isn't {' or '.join(allowed[name][:2])}")
    if "," in annotations.get(ADDRESSES, ""):
        return Refusal("InvalidAnnotation", f"annotation {ADDRESSES}: one IPv4 address is served; name one")
    subnets = {annotations[name] for name in (SUBNET, OLD_SUBNET) if annotations.get(name)}
    if len(subnets) > 1:
        return Refusal("ConflictingRequest", f"{SUBNET} and {OLD_SUBNET} name two subnets; name one")
    return None


def _sources(service: Service) -> tuple[str, ...] | Refusal:
    """IPv4 networks, in the order of the text."""
    asked = service.spec.load_balancer_source_ranges
    where = "spec.loadBalancerSourceRanges"
    if not asked:
        where = f"annotation {SOURCE_RANGES}"
        asked = [part for part in service.metadata.annotations.get(SOURCE_RANGES, "").split(",") if part.strip()]
    networks: list[IPv4Network | IPv6Network] = []
    for text in asked:
        try:
            networks.append(ip_network(text.strip(), strict=False))
        except ValueError:
            return Refusal("InvalidSourceRange", f"{where}: {text!r} is not a network such as 192.0.2.0/24")
    if networks and all(network.version == 6 for network in networks):
        return Refusal("InvalidSourceRange", f"{where}: only IPv4 is served, and no range is IPv4's")
    return tuple(dict.fromkeys(str(n) for n in networks if n.version == 4)) or ("0.0.0.0/0",)
