"""Who else drops the packets of Services on this node, and which command lets them pass. Pure.

    forward   from and to pods                     output   from this node to pods
    input     to this node itself: health checks, and endpoints at its own addresses (`Door`)

An accept in our table doesn't overrule a drop in another: every base chain at a hook has its say. So another's chain is
an obstacle when its policy, or a last rule without a condition, drops, unless rules of its table accept: for the pods'
addresses, from and to, or for the port. A rule that looks ports up in a set is taken to open them. An obstacle is
reported, never edited: the administrator's firewall is the administrator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

import msgspec

from kubesvc.kernel.nft.foreign import BaseChain
from kubesvc.proxy.doors import Door
from kubesvc.proxy.layout import PROTOCOLS

Network = IPv4Network | IPv6Network

_SIDES = {"forward": ("saddr", "daddr"), "output": ("daddr",)}  # hook -> which addresses are pods'
_AT_ONCE = 15  # ports in a rule of iptables' multiport
_TOLD = 3  # reasons in a message


class Obstacle(msgspec.Struct, frozen=True):
    """A chain that drops what `passage` says, and the command that opens it."""

    chain: str
    why: str
    passage: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"{self.passage} may be dropped on this node by chain {self.chain} ({self.why}); "
            f"to let them pass: {self.remedy}"
        )


def find(chains: Iterable[BaseChain], pod_cidrs: Iterable[Network], doors: Iterable[Door] = ()) -> list[Obstacle]:
    """The obstacles among base chains of others, for each pod network and for the doors of each protocol."""
    networks, doors = list(pod_cidrs), sorted(doors, key=lambda door: (door.protocol, door.port, door.what))
    found: list[Obstacle] = []
    for chain in chains:
        why = _drops(chain)
        if why and chain.hook in _SIDES:
            found += _to_pods(chain, why, networks)
        elif why and chain.hook == "input":
            found += _to_node(chain, why, doors)
    return found


def _to_pods(chain: BaseChain, why: str, networks: Iterable[Network]) -> Iterator[Obstacle]:
    for network in networks:
        if _sees(chain, network.version) and not _is_open_to(chain, network):
            passage = f"packets {'of' if chain.hook == 'forward' else 'to'} pods ({network})"
            yield Obstacle(_name(chain), why, passage, _let_network(chain, network))


def _to_node(chain: BaseChain, why: str, doors: Iterable[Door]) -> Iterator[Obstacle]:
    closed = [door for door in doors if _sees(chain, door.version) and not _is_open_at(chain, door)]
    for protocol in dict.fromkeys(door.protocol for door in closed):
        whys: dict[int, str] = {}  # port -> what for
        for door in closed:
            if door.protocol == protocol:
                whys.setdefault(door.port, door.what)
        told = [f"{port} ({what})" for port, what in list(whys.items())[:_TOLD]]
        told += [str(port) for port in list(whys)[_TOLD:]]
        passage = f"connections to {protocol} port {', '.join(told)} of this node"
        version = closed[0].version if chain.family != "inet" else 4
        yield Obstacle(_name(chain), why, passage, _let_ports(chain, protocol, list(whys), version))


def _name(chain: BaseChain) -> str:
    return f"{chain.family} {chain.table} {chain.name}" + " of iptables-legacy" * chain.legacy


def _sees(chain: BaseChain, version: int) -> bool:
    return chain.family in ("inet", "ip" if version == 4 else "ip6")


def _drops(chain: BaseChain) -> str:
    """Why a packet that nothing accepts ends here; "" when it doesn't."""
    own = [rule for rule in chain.rules if rule.chain == chain.name]
    if any(rule.ends == "accept" and not rule.conditional for rule in own):
        return ""
    if own and own[-1].ends == "drop" and not own[-1].conditional:
        return "its last rule drops"
    return "its policy is drop" if chain.drops_by_policy else ""


def _is_open_to(chain: BaseChain, network: Network) -> bool:
    """Whether rules of the table accept what comes from the network, and what goes there, as far as this hook asks."""
    packed = network.network_address.packed
    forms = {packed, packed[: (network.prefixlen + 7) // 8]}
    sides: set[str] = set()
    for rule in chain.rules:
        if rule.ends == "accept" and rule.compared & forms:
            sides |= rule.sides
    return sides.issuperset(_SIDES[chain.hook])


def _is_open_at(chain: BaseChain, door: Door) -> bool:
    protocol = PROTOCOLS[door.protocol.upper()]
    for rule in chain.rules:
        if rule.ends != "accept":
            continue
        protocols = {value[0] for value in rule.compared if len(value) == 1}
        if protocols and protocol not in protocols:
            continue
        if rule.unclear or any(first <= door.port <= last for first, last in rule.ports or ()):
            return True
    return False


# ── remedies: as whoever made the table would do it, so that they last where theirs last ──


def _let_network(chain: BaseChain, network: Network) -> str:
    ip = "ip" if network.version == 4 else "ip6"
    if chain.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-source={network} && firewall-cmd --reload"
    if _is_ufw(chain):
        ways = {"forward": ("route allow from", "route allow to"), "output": ("allow out to",)}[chain.hook]
        return " && ".join(f"ufw {way} {network}" for way in ways)
    if _is_iptables(chain):
        into = "DOCKER-USER" if chain.hook == "forward" and _has(chain, "DOCKER") else chain.name
        flags = {"saddr": "-s", "daddr": "-d"}
        rules = (f"{flags[side]} {network} -j ACCEPT" for side in _SIDES[chain.hook])
        return " && ".join(f"{_iptables(chain, network.version)} -I {into} {rule}" for rule in rules)
    where = f"nft insert rule {chain.family} {chain.table} {chain.name} {ip}"
    return " && ".join(f"{where} {side} {network} accept" for side in _SIDES[chain.hook])


def _let_ports(chain: BaseChain, protocol: str, ports: Sequence[int], version: int) -> str:
    if chain.table == "firewalld":
        each = " ".join(f"--add-port={port}/{protocol}" for port in ports)
        return f"firewall-cmd --permanent {each} && firewall-cmd --reload"
    if _is_ufw(chain):
        return " && ".join(f"ufw allow {_list(some)}/{protocol}" for some in _split(ports))
    if _is_iptables(chain):
        rules = (
            f"-p {protocol} {'--dport' if len(some) == 1 else '-m multiport --dports'} {_list(some)} -j ACCEPT"
            for some in _split(ports)
        )
        return " && ".join(f"{_iptables(chain, version)} -I {chain.name} {rule}" for rule in rules)
    among = str(ports[0]) if len(ports) == 1 else f"{{ {', '.join(map(str, ports))} }}"
    return f"nft insert rule {chain.family} {chain.table} {chain.name} {protocol} dport {among} accept"


def _split(ports: Sequence[int]) -> list[Sequence[int]]:
    return [ports[start : start + _AT_ONCE] for start in range(0, len(ports), _AT_ONCE)]


def _list(ports: Iterable[int]) -> str:
    return ",".join(map(str, ports))


def _has(chain: BaseChain, *beginnings: str) -> bool:
    return any(rule.chain.startswith(beginnings) for rule in chain.rules)


def _is_ufw(chain: BaseChain) -> bool:
    return _has(chain, "ufw-", "ufw6-")


def _is_iptables(chain: BaseChain) -> bool:
    return chain.legacy or (chain.table == "filter" and chain.family != "inet" and chain.name == chain.hook.upper())


def _iptables(chain: BaseChain, version: int) -> str:
    return ("iptables" if version == 4 else "ip6tables") + "-legacy" * chain.legacy
