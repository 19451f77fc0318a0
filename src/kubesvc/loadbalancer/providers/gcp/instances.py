"""Which VMs the nodes are. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.providers.gcp.wishes import Refusal


def instances_of(nodes: Sequence[Node], project: str, region: str) -> dict[str, frozenset[str]] | Refusal:
    """zone -> names of VMs, from `gce://PROJECT/ZONE/NAME` in spec.providerID. Nodes elsewhere are left out, unless
    there are no others."""
    found: dict[str, set[str]] = {}
    elsewhere: list[str] = []
    for node in nodes:
        scheme, _, rest = node.spec.provider_id.partition("://")
        parts = rest.split("/")
        if scheme == "gce" and len(parts) == 3 and parts[0] == project and parts[1].rpartition("-")[0] == region:
            found.setdefault(parts[1], set()).add(parts[2])
        else:
            elsewhere.append(f"{node.name} ({node.spec.provider_id or 'none'})")
    if elsewhere and not found:
        listed = ", ".join(sorted(elsewhere)[:3])
        return Refusal(
            "NoInstances",
            f"no node is a VM of project {project} in region {region}: spec.providerID must be "
            f"gce://{project}/{region}-ZONE/NAME; here it is {listed}",
        )
    return {zone: frozenset(names) for zone, names in found.items()}
