"""In which subnets a load balancer stands. Pure.

Named by annotation, or found by the tags that the AWS Load Balancer Controller reads as well: kubernetes.io/role/elb
for internet-facing ones, kubernetes.io/role/internal-elb for internal ones. One subnet of a zone; where there are
several, the one it stands in already, then one tagged for this cluster, then the first by id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from kubesvc.api.core import LoadBalancerStatus
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.aws.model import Place
from kubesvc.loadbalancer.providers.aws.wishes import Wish

ROLES = {"internet-facing": "kubernetes.io/role/elb", "internal": "kubernetes.io/role/internal-elb"}
_CLUSTER = "kubernetes.io/cluster/"
ENOUGH = 8
"""Free addresses that a load balancer's subnet needs."""


class Subnet(msgspec.Struct, frozen=True):
    id: str
    zone: str
    tags: dict[str, str]
    free: int


def places_of(
    wish: Wish,
    scheme: str,
    subnets: Sequence[Subnet],
    cluster: str,
    standing_in: Collection[str],
    shown: LoadBalancerStatus,
) -> tuple[Place, ...]:
    """`subnets` are the VPC's, `standing_in` the ids that the load balancer has now. Raises Refused."""
    chosen = _named(wish, subnets, shown) if wish.subnets else _tagged(scheme, subnets, cluster, standing_in)
    if not chosen:
        role = ROLES[scheme]
        raise Refused(
            "NoSubnet",
            f"no subnet of the VPC is tagged {role} with {ENOUGH} free addresses; tag one of each zone, or name them "
            "with the annotation service.beta.kubernetes.io/aws-load-balancer-subnets",
            shown,
        )
    for what, given in (("eip-allocations", wish.allocations), ("private-ipv4-addresses", wish.private),
                        ("ipv6-addresses", wish.ipv6)):  # fmt: skip
        if given and len(given) != len(chosen):
            message = f"{what} has {len(given)} for {len(chosen)} subnets ({', '.join(s.id for s in chosen)})"
            raise Refused("AddressesAndSubnetsDiffer", f"{message}; give one for each", shown)
    return tuple(
        Place(subnet.id, *(given[n] if given else "" for given in (wish.allocations, wish.private, wish.ipv6)))
        for n, subnet in enumerate(chosen)
    )


def _named(wish: Wish, subnets: Sequence[Subnet], shown: LoadBalancerStatus) -> list[Subnet]:
    known = {s.tags.get("Name", ""): s for s in subnets} | {s.id: s for s in subnets}
    if missing := [text for text in wish.subnets if text not in known]:
        raise Refused("SubnetNotFound", f"the VPC has no subnet {', '.join(missing)}: name it by id or Name tag", shown)
    chosen = [known[text] for text in wish.subnets]
    zones = [subnet.zone for subnet in chosen]
    if twice := sorted({zone for zone in zones if zones.count(zone) > 1}):
        raise Refused("ZoneTwice", f"several subnets are in {', '.join(twice)}: name one of each zone", shown)
    return chosen


def _tagged(scheme: str, subnets: Sequence[Subnet], cluster: str, standing_in: Collection[str]) -> list[Subnet]:
    def rank(subnet: Subnet) -> tuple[bool, bool, str]:
        return subnet.id not in standing_in, _CLUSTER + cluster not in subnet.tags, subnet.id

    best: dict[str, Subnet] = {}  # zone -> subnet
    for subnet in sorted(subnets, key=rank):
        others = any(tag.startswith(_CLUSTER) for tag in subnet.tags) and _CLUSTER + cluster not in subnet.tags
        fits = subnet.tags.get(ROLES[scheme]) in ("", "1") and not others
        if subnet.id in standing_in or (fits and subnet.free >= ENOUGH):
            best.setdefault(subnet.zone, subnet)
    return sorted(best.values(), key=lambda subnet: subnet.id)
