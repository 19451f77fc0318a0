"""Which annotations of a cloud mean something on the desk, are the cloud's alone, or are nobody's. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

AWS = "service.beta.kubernetes.io/aws-load-balancer-"
AZURE = "service.beta.kubernetes.io/azure-"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"

_HEALTH = ("protocol", "port", "path", "interval", "timeout", "healthy-threshold", "unhealthy-threshold")
_AWS_NAMES = (
    *("type", "nlb-target-type", "scheme", "internal", "name", "subnets", "ip-address-type", "security-groups"),
    *("target-node-labels", "eip-allocations", "private-ipv4-addresses", "ipv6-addresses", "ssl-cert", "ssl-ports"),
    *("ssl-negotiation-policy", "backend-protocol", "alpn-policy", "proxy-protocol", "proxy-protocol-per-target-group"),
    *("target-group-attributes", "attributes", "additional-resource-tags", "manage-backend-security-group-rules"),
    *("security-group-prefix-lists", "multi-cluster-target-group", "inbound-sg-rules-on-private-link-traffic"),
    *("disable-nlb-sg", "minimum-load-balancer-capacity"),
    *("enable-prefix-for-ipv6-source-nat", "source-nat-ipv6-prefixes"),
    *("enable-icmp-for-path-mtu-discovery", "enable-tcp-udp-listener"),
    *(f"healthcheck-{name}" for name in (*_HEALTH, "success-codes")),
)  # fmt: skip
_GCP_NAMES = (
    "networking.gke.io/load-balancer-type",
    "cloud.google.com/load-balancer-type",
    "cloud.google.com/l4-rbs",
    "cloud.google.com/neg",
    "cloud.google.com/network-tier",
    "networking.gke.io/load-balancer-ip-addresses",
    "networking.gke.io/load-balancer-subnet",
    "networking.gke.io/internal-load-balancer-allow-global-access",
    "networking.gke.io/internal-load-balancer-subnet",
    "networking.gke.io/weighted-load-balancing",
)
_AZURE_NAMES = (
    *("load-balancer-internal", "load-balancer-internal-subnet", "load-balancer-ipv4", "load-balancer-ipv6"),
    *("load-balancer-resource-group", "load-balancer-tcp-idle-timeout", "load-balancer-mode"),
    *("load-balancer-configurations", "load-balancer-enable-high-availability-ports"),
    *("load-balancer-disable-tcp-reset",),
    *(f"load-balancer-health-probe-{name}" for name in ("protocol", "interval", "num-of-probe", "request-path")),
    *("pip-name", "pip-name-ipv6", "pip-prefix-id", "pip-prefix-id-ipv6", "pip-tags", "pip-ip-tags", "dns-label-name"),
    *("allowed-service-tags", "allowed-ip-ranges", "deny-all-except-load-balancer-source-ranges"),
    *("disable-load-balancer-floating-ip", "additional-public-ips", "shared-securityrule", "pls-create"),
)  # fmt: skip
_AZURE_PORT = "service.beta.kubernetes.io/port_"
_AZURE_PORT_NAMES = ("no_lb_rule", "no_probe_rule", "health-probe_port", "health-probe_protocol",
                     "health-probe_interval", "health-probe_num-of-probe", "health-probe_request-path")  # fmt: skip

_FAMILIES = {
    "aws": (AWS,),
    "gcp": ("networking.gke.io/", "cloud.google.com/"),
    "azure": (AZURE, _AZURE_PORT),
}
"""cloud -> how its annotations begin."""

_NOT_EMULATED = {
    "aws": {AWS + "nlb-target-type": ("ip", "traffic goes to node ports, as with target type instance")},
    "gcp": {},
    "azure": {},
}
"""cloud -> annotation -> a value that the cloud obeys and the desk doesn't, and what it does instead."""


def _known(cloud: str, name: str) -> bool:
    if cloud == "aws":
        rest = name.removeprefix(AWS)
        return rest in _AWS_NAMES or rest.startswith("listener-attributes.")
    if cloud == "gcp":
        return name in _GCP_NAMES or not name.startswith(("networking.gke.io/load-balancer", "cloud.google.com/l4"))
    if name.startswith(_AZURE_PORT):
        port, _, rest = name.removeprefix(_AZURE_PORT).partition("_")
        return port.isdecimal() and rest in _AZURE_PORT_NAMES
    rest = name.removeprefix(AZURE)
    return rest in _AZURE_NAMES or rest.startswith("pls-")


def remarks(cloud: str, annotations: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each annotation that is passed over, with the remedy."""
    for name, value in sorted(annotations.items()):
        whose = next((c for c, starts in _FAMILIES.items() if name.startswith(starts)), None)
        if whose is None:
            continue
        if whose != cloud:
            yield f"{name} is for {whose}, and this is {cloud}: it does nothing here"
        elif not _known(cloud, name):
            yield f"{name} isn't an annotation that {cloud} knows: it does nothing; look at its spelling"
        elif name in _NOT_EMULATED[cloud] and value == _NOT_EMULATED[cloud][name][0]:
            yield f"{name}: {value} isn't emulated on the desk: {_NOT_EMULATED[cloud][name][1]}"
