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
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path

from kubesvc.box.definition import NODE_NAME, Box
from kubesvc.box.errors import BoxError
from kubesvc.box.families import Address, Network
from kubesvc.box.ranges import NodeNetwork
from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import Links

BRIDGE = "bridge"
USUAL_MTU = 1500  # bytes, a veth's own


def host_link(name: str) -> str:
    """The host's interface into box `name`; the kernel allows 15 characters."""
    if len(name) <= 12:
        return f"ks-{name}"
    return f"ks-{name[:7]}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def host_networks(*, but: str) -> list[Network]:
    """Every network this machine has a route to, except over the interface `but`."""
    with Links() as host:
        return [route.to for version in (4, 6) for route in host.routes(version) if route.dev != but]


def mtu(box: Box) -> int:
    """Bytes: what the user said, else the least of what carries the pods' packets. With a way out that is this
    machine's links to everywhere, too."""
    if box.mtu:
        return box.mtu
    with Links() as host:
        defaults = {r.dev for version in box.versions for r in host.routes(version) if not r.to.prefixlen and r.dev}
        return min([USUAL_MTU, *(host.mtu(dev) for dev in defaults if box.egress)])


def check(box: Box) -> None:
    """Raises BoxError for a family that this machine's kernel doesn't have."""
    if 6 in box.versions and sysctl.read("ipv6/conf/all/disable_ipv6") is None:
        raise BoxError(
            f"--ip-family {box.ip_family}: this machine's kernel has no IPv6; see ipv6.disable on its command line"
        )


def ensure(box: Box) -> None:
    """Make sure of the box's namespaces, links and addresses."""
    middle = netns.create_named(box.namespace("net"))
    # A bridge that passes frames, not packets: no filter of anybody's is asked about them.
    _allow_families(box, middle)
    with netns.entered(middle):
        sysctl.ensure_each("bridge/bridge-nf-call-ip*tables", "0")
    with Links(middle) as links, Links() as host:
        links.up("lo")
        if not links.exists(BRIDGE):
            links.add_bridge(BRIDGE)
        _add_addresses(box, links, BRIDGE, lambda network: network.api)
        name, size = host_link(box.name), mtu(box)
        _ensure_pair(host, name, links, "host", middle, size)
        if 6 in box.versions:
            sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
        _add_addresses(box, host, name, lambda network: network.host)
        for node in box.node_names:
            namespace = netns.create_named(box.namespace(node))
            _allow_families(box, namespace)
            with Links(namespace) as inside:
                inside.up("lo")
                _ensure_pair(inside, "eth0", links, node, middle, size)
                own = dict(zip(box.versions, box.node_ips(node), strict=True))
                _add_addresses(box, inside, "eth0", lambda network, own=own: own[network.network.version])  # type: ignore[misc]
        links.set_mtu(BRIDGE, size)


def _allow_families(box: Box, namespace: Path) -> None:
    """A namespace may begin with what its machine says of IPv6."""
    if 6 in box.versions:
        with netns.entered(namespace):
            for which in ("all", "default"):
                sysctl.ensure(f"ipv6/conf/{which}/disable_ipv6", "0")


def _add_addresses(box: Box, links: Links, name: str, choose: Callable[[NodeNetwork], Address]) -> None:
    """One of each family."""
    for network in box.networks:
        links.add_address(name, ip_interface((choose(network), network.network.prefixlen)))


def _ensure_pair(outer: Links, name: str, bridge: Links, port: str, middle: Path, mtu: int) -> None:
    """A veth pair from `name` to `port` on the bridge, both up; half a pair, left by a crash, is made anew."""
    if not (outer.exists(name) and bridge.exists(port)):
        outer.delete(name)
        bridge.delete(port)
        outer.add_veth(name, port, peer_namespace=middle, mtu=mtu)
    outer.set_mtu(name, mtu)
    bridge.set_mtu(port, mtu)
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
