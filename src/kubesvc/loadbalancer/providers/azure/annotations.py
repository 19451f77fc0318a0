"""Every annotation that cloud-provider-azure knows, and what becomes of it here. Pure.

The names and their meaning are upstream's (cloud-provider-azure, `pkg/consts` and "Azure LoadBalancer"). The table of
the guide's page is `table()`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from kubesvc.loadbalancer.providers.standing import Standing

PREFIX = "service.beta.kubernetes.io/"
AZURE = PREFIX + "azure-"
PORT = re.compile(re.escape(PREFIX) + r"port_(\d+)_(.+)")

SUPPORTED, IGNORED, REJECTED = Standing.SUPPORTED, Standing.IGNORED, Standing.REJECTED


class Annotation(msgspec.Struct, frozen=True):
    """`name` without the prefix; `says`: what it does, or why it is passed over and what to do instead."""

    name: str
    fate: Standing
    says: str
    public_only: bool = False


ANNOTATIONS = (
    Annotation("azure-load-balancer-internal", SUPPORTED, "`true`: an address of the subnet instead of a public one"),
    Annotation("azure-load-balancer-internal-subnet", SUPPORTED, "the subnet of the VNet for an internal address"),
    Annotation("azure-load-balancer-ipv4", SUPPORTED, "this address; a public one must exist already"),
    Annotation("azure-load-balancer-ipv6", SUPPORTED, "the same for IPv6"),
    Annotation("azure-load-balancer-resource-group", SUPPORTED, "where the public IP is, or is made", True),
    Annotation("azure-pip-name", SUPPORTED, "an existing public IP; never changed, never deleted", True),
    Annotation("azure-pip-name-ipv6", SUPPORTED, "the same for IPv6", True),
    Annotation("azure-pip-prefix-id", SUPPORTED, "make the public IP out of this prefix", True),
    Annotation("azure-pip-prefix-id-ipv6", SUPPORTED, "the same for IPv6", True),
    Annotation("azure-pip-tags", SUPPORTED, "tags of the public IP that is made: `a=b,c=d`; tags are only added", True),
    Annotation("azure-pip-ip-tags", SUPPORTED, "IP tags of it, such as `RoutingPreference=Internet`", True),
    Annotation("azure-dns-label-name", SUPPORTED, "its DNS label; empty: none; absent: as it is", True),
    Annotation("azure-load-balancer-tcp-idle-timeout", SUPPORTED, "minutes, 4 to 30; default 4"),
    Annotation("azure-load-balancer-health-probe-protocol", SUPPORTED, "`tcp`, `http` or `https`"),
    Annotation("azure-load-balancer-health-probe-interval", SUPPORTED, "seconds, 5 or more; default 5"),
    Annotation("azure-load-balancer-health-probe-num-of-probe", SUPPORTED, "failures that condemn; default 2"),
    Annotation("azure-load-balancer-health-probe-request-path", SUPPORTED, "path for http and https; default `/`"),
    Annotation("azure-allowed-service-tags", SUPPORTED, "service tags that may connect, with commas"),
    Annotation("azure-allowed-ip-ranges", SUPPORTED, "as `spec.loadBalancerSourceRanges`; not both"),
    Annotation("load-balancer-source-ranges", SUPPORTED, "the same, older; the field comes first"),
    Annotation("azure-deny-all-except-load-balancer-source-ranges", SUPPORTED, "`true`: close it to the VNet, too"),
    Annotation(
        "azure-disable-load-balancer-floating-ip", SUPPORTED, "`true`: node ports instead of the VIP at the nodes"
    ),
    Annotation("port_{port}_no_lb_rule", SUPPORTED, "`true`: the port isn't served"),
    Annotation("port_{port}_no_probe_rule", SUPPORTED, "`true`: nodes get the port unprobed"),
    Annotation("port_{port}_health-probe_protocol", SUPPORTED, "as above, for one port"),
    Annotation("port_{port}_health-probe_port", SUPPORTED, "a port of the Service (name, number) or a node's port"),
    Annotation("port_{port}_health-probe_interval", SUPPORTED, "as above, for one port"),
    Annotation("port_{port}_health-probe_num-of-probe", SUPPORTED, "as above, for one port"),
    Annotation("port_{port}_health-probe_request-path", SUPPORTED, "as above, for one port"),
    Annotation("azure-load-balancer-mode", IGNORED, "one Standard load balancer has all nodes: leave it out"),
    Annotation("azure-load-balancer-configurations", IGNORED, "there is one load balancer a cluster: leave it out"),
    Annotation("azure-shared-securityrule", IGNORED, "each Service has rules of its own: leave it out"),
    Annotation("azure-load-balancer-disable-tcp-reset", IGNORED, "idle connections are reset, as upstream does"),
    Annotation("azure-load-balancer-enable-high-availability-ports", IGNORED, "each port has a rule: list the ports"),
    Annotation("azure-additional-public-ips", IGNORED, "give each address a Service of its own with azure-pip-name"),
    Annotation("azure-dns-label-service", IGNORED, "use azure-dns-label-name"),
    Annotation("azure-pls-create", REJECTED, "a load balancer with nodes by address can't be a Private Link service"),
    Annotation("azure-pls-*", IGNORED, "there is no Private Link service: leave it out"),
)

_EXACT = {a.name: a for a in ANNOTATIONS}


def found(annotations: Mapping[str, str]) -> Iterator[tuple[str, str, Annotation]]:
    """(key, value, what it is) of each that concerns Azure; unknown ones as ignored."""
    for key, value in annotations.items():
        port = PORT.fullmatch(key)
        if port is None and not key.startswith(AZURE) and key.removeprefix(PREFIX) not in _EXACT:
            continue
        name = f"port_{{port}}_{port[2]}" if port else key.removeprefix(PREFIX)
        family = _EXACT["azure-pls-*"] if name.startswith("azure-pls-") else None
        unknown = Annotation(name, IGNORED, "no such annotation is known: is it spelt right?")
        yield key, value, _EXACT.get(name) or family or unknown


def table() -> str:
    """The guide's table, in Markdown."""
    rows = ["| annotation `service.beta.kubernetes.io/…` | | |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| `{a.name}` | {a.fate} | {a.says} |" for a in ANNOTATIONS)]) + "\n"
