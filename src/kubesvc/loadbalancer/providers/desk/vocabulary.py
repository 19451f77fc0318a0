"""What becomes of a cloud's annotations on the desk: the tables are the real providers', and here is what acts. Pure.

supported   and in ACTS: the desk does it, too; otherwise the cloud would, and the desk says that it doesn't
ignored     by the real provider, for the reason its table gives
rejected    by the real provider, and so here: `plan` asks it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubesvc.loadbalancer.providers.aws import annotations as aws
from kubesvc.loadbalancer.providers.azure import annotations as azure
from kubesvc.loadbalancer.providers.gcp import wishes as gcp

AWS = aws.PREFIX
AZURE = azure.AZURE
SOURCE_RANGES = aws.SOURCE_RANGES

SUPPORTED, IGNORED = azure.SUPPORTED, azure.IGNORED

_FAMILIES = {"aws": (AWS,), "gcp": gcp.CLOUD_PREFIXES, "azure": (AZURE, f"{azure.PREFIX}port_")}
"""cloud -> how its annotations begin."""

_AWS_CHECK = ("protocol", "port", "path", "interval", "timeout", "healthy-threshold", "unhealthy-threshold")
_PROBE = ("protocol", "interval", "num-of-probe", "request-path")
ACTS = {
    "aws": frozenset(
        AWS + name
        for name in (
            *("type", "nlb-target-type", "scheme", "internal", "name", "target-node-labels", "ssl-cert", "ssl-ports"),
            *("proxy-protocol", "proxy-protocol-per-target-group", "target-group-attributes"),
            *(f"healthcheck-{name}" for name in _AWS_CHECK),
        )
    ),
    "gcp": frozenset((gcp.TYPE, gcp.OLD_TYPE, gcp.RBS)),
    "azure": frozenset(
        (
            *("azure-load-balancer-internal", "azure-load-balancer-ipv4", "azure-disable-load-balancer-floating-ip"),
            *("azure-allowed-ip-ranges", "azure-deny-all-except-load-balancer-source-ranges"),
            *(f"azure-load-balancer-health-probe-{name}" for name in _PROBE),
            *("port_{port}_no_lb_rule", "port_{port}_no_probe_rule", "port_{port}_health-probe_port"),
            *(f"port_{{port}}_health-probe_{name}" for name in _PROBE),
        )
    ),
}
"""cloud -> annotations that change what the desk does, or that it does always. Azure's without their prefix."""

_NODE_PORTS = "traffic goes to node ports, as with target type instance"
_VALUES = {AWS + "nlb-target-type": ("ip", _NODE_PORTS), AWS + "type": ("nlb-ip", _NODE_PORTS)}
"""Annotation -> a value that the cloud obeys and the desk doesn't, and what it does instead."""


def fate(cloud: str, name: str) -> tuple[str, str, bool] | None:
    """(what the real provider does with it, its table's words, whether the desk does it); None: it isn't known."""
    if cloud == "aws":
        one = aws.known(name)
        return (one.standing, one.means, name in ACTS[cloud]) if one else None
    if cloud == "gcp":
        two = gcp.known(name)
        return (two.verdict, two.text, name in ACTS[cloud]) if two else None
    return next(((a.fate, a.says, a.name in ACTS[cloud]) for *_, a in azure.found({name: ""})), None)


def remarks(cloud: str, annotations: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each annotation that is passed over, with the remedy."""
    for name, value in sorted(annotations.items()):
        whose = next((c for c, starts in _FAMILIES.items() if name.startswith(starts)), None)
        if whose is None:
            continue
        found = fate(cloud, name)
        if whose != cloud:
            yield f"{name} is for {whose}, and this is {cloud}: it does nothing here"
        elif found is None:
            yield f"{name} isn't an annotation that {cloud} knows: it does nothing; look at its spelling"
        elif found[0] == IGNORED:
            yield f"{name} does nothing: {found[1]}"
        elif found[0] == SUPPORTED and not found[2]:
            yield f"{name} isn't emulated on the desk: it acts with provider {cloud} alone"
        elif name in _VALUES and value == _VALUES[name][0]:
            yield f"{name}: {value} isn't emulated on the desk: {_VALUES[name][1]}"
