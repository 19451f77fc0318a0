"""BIRD 2's configuration, from peers and routes. Pure.

Load-balancer addresses are blackhole routes of a static protocol: they are told to peers and never programmed, since
there is no kernel protocol; the proxy's rules turn the packets before the kernel would ask for a route.
https://bird.network.cz/?get_doc&v=20
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from ipaddress import ip_address

import msgspec

from kubesvc.api.balancing import BGPPeerSpec, parse_duration
from kubesvc.loadbalancer.announce.adverts import Network, Route


class Way(msgspec.Struct, frozen=True):
    """How this node reaches a router: `source` is the address it speaks from, "" when there is no route; `direct`: no
    router is between."""

    source: str = ""
    direct: bool = False


class Neighbour(msgspec.Struct, frozen=True):
    """A BGPPeer as one node sees it, its password read and the `way` to it known."""

    name: str
    spec: BGPPeerSpec
    password: str = ""
    way: Way = Way()

    @property
    def version(self) -> int:
        """The IP family of the session, and of the routes that are told over it."""
        return ip_address(self.spec.peer_address).version


def protocol(name: str) -> str:
    """The name of a peer's protocol in BIRD, which has room for 64 characters: another one for every peer."""
    readable = name.replace("-", "_").replace(".", "D")
    return f"peer_{readable}" if len(name) < 50 else f"peer_{readable[:32]}_{sha256(name.encode()).hexdigest()[:16]}"


def render(router_id: str, neighbours: Iterable[Neighbour], routes: Sequence[Route]) -> str:
    """The whole file. `router_id` is an IPv4 address."""
    told = sorted(neighbours, key=lambda n: n.name)
    parts = [
        "# written by kubesvc: changes are lost",
        "log stderr { info, remote, warning, error, auth, fatal, bug };",
        f"router id {router_id};",
        "protocol device { }",
        *_bfd(told),
        *(_static(version, routes) for version in (4, 6)),
        *(_session(neighbour, routes) for neighbour in told),
    ]
    return "\n".join(parts) + "\n"


def _bfd(neighbours: Sequence[Neighbour]) -> list[str]:
    return ["protocol bfd { }"] if any(n.spec.bfd for n in neighbours) else []


def _static(version: int, routes: Sequence[Route]) -> str:
    networks = sorted({str(r.network) for r in routes if r.network.version == version})
    lines = "".join(f"  route {network} blackhole;\n" for network in networks)
    return f"protocol static addresses{version} {{\n  ipv{version};\n{lines}}}"


def _session(neighbour: Neighbour, routes: Sequence[Route]) -> str:
    spec = neighbour.spec
    internal = spec.my_asn == spec.peer_asn
    far = not neighbour.way.direct if internal else spec.ebgp_multi_hop
    # BFD over several hops needs an address to speak from, so that it waits for a route; BIRD takes an internal peer
    # for a far one.
    source = spec.source_address or (neighbour.way.source if spec.bfd else "")
    lines = [f"local {source} as {spec.my_asn};" if source else f"local as {spec.my_asn};"]
    lines.append(f"neighbor {spec.peer_address} port {spec.peer_port} as {spec.peer_asn};")
    if internal and not far:
        lines.append("direct;")
    if far and not internal:
        lines.append("multihop;")
    if neighbour.password:
        lines.append(f'password "{neighbour.password}";')
    lines.append(f"hold time {_seconds(spec.hold_time)};")
    if spec.keepalive_time:
        lines.append(f"keepalive time {_seconds(spec.keepalive_time)};")
    lines.append(f"connect retry time {_seconds(spec.connect_time or '5s')};")
    lines += ["connect delay time 1;", "error wait time 1, 10;"]
    lines.append(f"graceful restart {'yes' if spec.enable_graceful_restart else 'aware'};")
    if spec.bfd and (source or not far):
        lines.append(
            f"bfd {{ min rx interval {spec.bfd.receive_interval} ms; min tx interval {spec.bfd.transmit_interval} ms; "
            f"multiplier {spec.bfd.detect_multiplier}; }};"
        )
    export = _export(neighbour, routes)
    lines.append(f"ipv{neighbour.version} {{ import none; next hop self; export filter {{\n{export}  }}; }};")
    body = "".join(f"  {line}\n" for line in lines)
    return f"protocol bgp {protocol(neighbour.name)} {{\n{body}}}"


def _export(neighbour: Neighbour, routes: Sequence[Route]) -> str:
    """A filter: what is told to this neighbour, with which attributes. Rules of one network add up."""
    attributes: dict[Network, tuple[int | None, frozenset[str]]] = {}  # network -> (local-pref, communities)
    for route in routes:
        if route.network.version == neighbour.version and (route.peers is None or neighbour.name in route.peers):
            pref, communities = attributes.get(route.network, (None, frozenset[str]()))
            pref = max((p for p in (pref, route.local_pref) if p is not None), default=None)
            attributes[route.network] = pref, communities | frozenset(route.communities)
    groups: dict[tuple[int | None, frozenset[str]], list[str]] = defaultdict(list)
    for network, found in attributes.items():
        groups[found].append(str(network))
    lines = ""
    for (pref, communities), networks in sorted(groups.items(), key=lambda g: g[1]):
        actions = [f"bgp_local_pref = {pref};"] if pref is not None else []
        actions += [_community(text) for text in sorted(communities)]
        lines += f"    if net ~ [ {', '.join(networks)} ] then {{ {' '.join([*actions, 'accept;'])} }}\n"
    return lines + "    reject;\n"


def _community(text: str) -> str:
    if text.startswith("large:"):
        return f"bgp_large_community.add(({', '.join(text.split(':')[1:])}));"
    return f"bgp_community.add(({text.replace(':', ', ')}));"


def _seconds(duration: str) -> int:
    """Whole seconds; none is none, and less than one is one."""
    found = parse_duration(duration)
    return max(1, round(found)) if found else 0
