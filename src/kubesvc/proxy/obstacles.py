"""Who else drops the packets that this node forwards to pods, and which command lets them pass. Pure.

An accept in our table doesn't overrule a drop in another: every base chain at a hook has its say. So another's chain is
an obstacle when its policy, or a last rule without a condition, drops, unless rules for the pods' addresses, from and
to, accept in its table. It is reported, never edited: the administrator's firewall is the administrator's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from kubesvc.kernel.nft.foreign import BaseChain

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A chain that drops what goes to and from `network`, and the command that opens it."""

    chain: str
    why: str
    network: Network
    remedy: str

    def __str__(self) -> str:
        return (
            f"packets of pods ({self.network}) may be dropped on this node by chain {self.chain} ({self.why}); "
            f"to let them pass: {self.remedy}"
        )


def find(chains: Iterable[BaseChain], pod_cidrs: Iterable[Network]) -> list[Obstacle]:
    """The obstacles among base chains of others, for each pod network."""
    networks = list(pod_cidrs)
    found: list[Obstacle] = []
    for chain in chains:
        if chain.hook != "forward":
            continue
        why = _drops(chain)
        for network in networks:
            if why and chain.family in ("inet", "ip" if network.version == 4 else "ip6") and not _open(chain, network):
                name = f"{chain.family} {chain.table} {chain.name}"
                found.append(Obstacle(name, why, network, _remedy(chain, network)))
    return found


def _drops(chain: BaseChain) -> str:
    """Why a packet that nothing accepts ends here; "" when it doesn't."""
    if chain.drops_by_policy:
        return "its policy is drop"
    own = [rule for rule in chain.rules if rule.chain == chain.name]
    if own and own[-1].ends == "drop" and not own[-1].conditional:
        return "its last rule drops"
    return ""


def _open(chain: BaseChain, network: Network) -> bool:
    """Whether rules of the table accept what comes from the network, and what goes there."""
    packed = network.network_address.packed
    forms = {packed, packed[: (network.prefixlen + 7) // 8]}
    sides: set[str] = set()
    for rule in chain.rules:
        if rule.ends == "accept" and rule.compared & forms:
            sides |= rule.sides
    return {"saddr", "daddr"} <= sides


def _remedy(chain: BaseChain, network: Network) -> str:
    """As whoever made the table would do it, so that it lasts where theirs last."""
    chains = {rule.chain for rule in chain.rules}
    tables = "iptables" if network.version == 4 else "ip6tables"
    ip = "ip" if network.version == 4 else "ip6"
    if chain.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-source={network} && firewall-cmd --reload"
    if any(name.startswith("ufw-") or name.startswith("ufw6-") for name in chains):
        return f"ufw route allow from {network} && ufw route allow to {network}"
    if chain.name == "FORWARD" and chain.table == "filter":
        into = "DOCKER-USER" if any(name.startswith("DOCKER") for name in chains) else "FORWARD"
        return f"{tables} -I {into} -s {network} -j ACCEPT && {tables} -I {into} -d {network} -j ACCEPT"
    where = f"nft insert rule {chain.family} {chain.table} {chain.name} {ip}"
    return f"{where} saddr {network} accept && {where} daddr {network} accept"
