"""Which annotations of a cloud mean something on the desk, are the cloud's alone, or are nobody's. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubesvc.loadbalancer.providers.azure import annotations as azure

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
_FAMILIES = {
    "aws": (AWS,),
    "gcp": ("networking.gke.io/", "cloud.google.com/"),
    "azure": (AZURE, "service.beta.kubernetes.io/port_"),
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
    return all(found.fate == azure.SUPPORTED for *_, found in azure.found({name: ""}))


def remarks(cloud: str, annotations: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each annotation that is passed over, with the remedy."""
    for name, value in sorted(annotations.items()):
        whose = next((c for c, starts in _FAMILIES.items() if name.startswith(starts)), None)
        if whose is None:
            continue
        if whose != cloud:
            yield f"{name} is for {whose}, and this is {cloud}: it does nothing here"
        elif cloud == "azure" and not _known(cloud, name):
            yield from (f"{name} does nothing: {found.says}" for *_, found in azure.found({name: value}))
        elif not _known(cloud, name):
            yield f"{name} isn't an annotation that {cloud} knows: it does nothing; look at its spelling"
        elif name in _NOT_EMULATED[cloud] and value == _NOT_EMULATED[cloud][name][0]:
            yield f"{name}: {value} isn't emulated on the desk: {_NOT_EMULATED[cloud][name][1]}"
