"""The box's own network: a bridge in a namespace, a namespace for each node, and one link to the host.

    host                 kubesvc-NAME-net                kubesvc-NAME-node1
    ┌──────────┐  veth   ┌──────────────────────┐  veth  ┌──────────────────┐
    │ ks-NAME  ├─────────┤ host   bridge  node1 ├────────┤ eth0     pods…   │
    │ .254     │         │        .1 (API)      │        │ .2               │
    └──────────┘         └──────────────────────┘        └──────────────────┘

Everything is made sure of, not made: what is there already, after a crash, is kept.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from kubesvc.box import cloud
from kubesvc.box.definition import NODE_NAME, Box
from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import Links

BRIDGE = "bridge"


def host_link(name: str) -> str:
    """The host's interface into box `name`; the kernel allows 15 characters."""
    if len(name) <= 12:
        return f"ks-{name}"
    return f"ks-{name[:7]}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def host_networks(*, but: str) -> list[IPv4Network]:
    """Every IPv4 network this machine has a route to, except over the interface `but`."""
    with Links() as host:
        return [route.to for route in host.routes(4) if route.dev != but and isinstance(route.to, IPv4Network)]


def ensure(box: Box) -> None:
    """Make sure of the box's namespaces, links and addresses."""
    middle = netns.create_named(box.namespace("net"))
    # A bridge that passes frames, not packets: no filter of anybody's is asked about them.
    with netns.entered(middle):
        sysctl.ensure_each("bridge/bridge-nf-call-ip*tables", "0")
    with Links(middle) as links, Links() as host:
        links.up("lo")
        if not links.exists(BRIDGE):
            links.add_bridge(BRIDGE)
        links.add_address(BRIDGE, _interface(box, box.network.api))
        name = host_link(box.name)
        _ensure_pair(host, name, links, "host", middle)
        host.add_address(name, _interface(box, box.network.host))
        for node in box.node_names:
            with Links(netns.create_named(box.namespace(node))) as inside:
                inside.up("lo")
                _ensure_pair(inside, "eth0", links, node, middle)
                inside.add_address("eth0", _interface(box, box.node_ip(node)))
        if box.cloud:
            with Links(netns.create_named(box.namespace(cloud.NAMESPACE))) as inside:
                inside.up("lo")
                _ensure_pair(inside, "eth0", links, cloud.NAMESPACE, middle)
            cloud.ensure_balancers(box)
            cloud.ensure_nodes(box)


def _interface(box: Box, address: IPv4Address) -> IPv4Interface:
    return IPv4Interface((address, box.network.network.prefixlen))


def _ensure_pair(outer: Links, name: str, bridge: Links, port: str, middle: Path) -> None:
    """A veth pair from `name` to `port` on the bridge, both up; half a pair, left by a crash, is made anew."""
    if not (outer.exists(name) and bridge.exists(port)):
        outer.delete(name)
        bridge.delete(port)
        outer.add_veth(name, port, peer_namespace=middle)
    bridge.set_master(port, BRIDGE)
    bridge.up(port)
    outer.up(name)


def namespaces(box: Box) -> list[Path]:
    """Every namespace of the box that is there, nodes of an earlier `--nodes` included."""
    prefix = box.namespace("")
    parts = [path for path in netns.NAMED.glob(f"{prefix}*") if _is_part(path.name.removeprefix(prefix))]
    return sorted(parts)


def _is_part(part: str) -> bool:
    """Whether this is a part's name: another box's name may begin as ours does."""
    return NODE_NAME.fullmatch(part) is not None


def remove_node(box: Box, name: str) -> None:
    """Take away one node's namespace, and its link with it."""
    netns.delete(netns.named(box.namespace(name)))


def remove(box: Box) -> None:
    """Take away the namespaces, and with them the links."""
    with Links() as host:
        host.delete(host_link(box.name))
    for path in namespaces(box):
        netns.delete(path)
