"""The box's own network: a bridge in a namespace, a namespace for each node, and one link to the host.

    host                 kubesvc-NAME-net                kubesvc-NAME-node1
    ┌──────────┐  veth   ┌──────────────────────┐  veth  ┌──────────────────┐
    │ ks-NAME  ├─────────┤ host   bridge  node1 ├────────┤ eth0     pods…   │
    │ .254     │         │        .1 (API)      │        │ .2               │
    └──────────┘         └──────────────────────┘        └──────────────────┘

Everything is made sure of, not made: what is there already, after a crash, is kept.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kubesvc.box.definition import Box
from kubesvc.kernel import netns

BRIDGE = "bridge"


def host_link(name: str) -> str:
    """The host's interface into box `name`; the kernel allows 15 characters."""
    if len(name) <= 12:
        return f"ks-{name}"
    return f"ks-{name[:7]}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def host_networks(*, but: str) -> list[IPv4Network]:
    """Every IPv4 network this machine has a route to, except over the interface `but`."""
    with IPRoute() as ip:
        index = next(iter(ip.link_lookup(ifname=but)), 0)
        found = []
        for route in ip.get_routes(family=2):
            target = route.get_attr("RTA_DST")
            if target and route.get_attr("RTA_OIF") != index and not target.startswith("127."):
                found.append(IPv4Network(f"{target}/{route['dst_len']}", strict=False))
        return found


@contextmanager
def _inside(namespace: Path) -> Iterator[IPRoute]:
    """A netlink socket that lives in `namespace`."""
    with netns.entered(namespace):
        ip = IPRoute()
    try:
        yield ip
    finally:
        ip.close()


def _index(ip: IPRoute, link: str) -> int:
    """The link's index, or 0 when there is none of that name."""
    return int(next(iter(ip.link_lookup(ifname=link)), 0))


def _up(ip: IPRoute, link: str, address: IPv4Address | None = None, prefix: int = 32) -> None:
    index = _index(ip, link)
    if address is not None:
        try:
            ip.addr("add", index=index, address=str(address), prefixlen=prefix)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
    ip.link("set", index=index, state="up")


def _sysctl(namespace: Path, settings: dict[str, str]) -> None:
    with netns.entered(namespace):
        for key, value in settings.items():
            with suppress(FileNotFoundError):
                Path("/proc/sys/net", key).write_text(value)


def ensure(box: Box) -> None:
    """Make sure of the box's namespaces, links and addresses."""
    network = box.network
    prefix = network.network.prefixlen
    middle = netns.create_named(box.namespace("net"))
    # A bridge that passes frames, not packets: no filter of anybody's is asked about them.
    _sysctl(middle, {"bridge/bridge-nf-call-iptables": "0", "bridge/bridge-nf-call-ip6tables": "0"})
    with _inside(middle) as ip:
        if not _index(ip, BRIDGE):
            ip.link("add", ifname=BRIDGE, kind="bridge")
        _up(ip, "lo")
        _up(ip, BRIDGE, network.api, prefix)
        _ensure_host_link(box, ip)
        for node in box.node_names:
            _ensure_node(box, ip, node)


def _attach(ip: IPRoute, port: str) -> None:
    """Put the link on the bridge and bring it up."""
    ip.link("set", index=_index(ip, port), master=_index(ip, BRIDGE))
    _up(ip, port)


def _ensure_host_link(box: Box, middle: IPRoute) -> None:
    name = host_link(box.name)
    with IPRoute() as host:
        if not (_index(host, name) and _index(middle, "host")):
            if stale := _index(host, name):
                host.link("del", index=stale)
            peer = {"ifname": "host", "net_ns_fd": str(netns.named(box.namespace("net")))}
            host.link("add", ifname=name, kind="veth", peer=peer)
        _attach(middle, "host")
        _up(host, name, box.network.host, box.network.network.prefixlen)


def _ensure_node(box: Box, middle: IPRoute, node: str) -> None:
    namespace = netns.create_named(box.namespace(node))
    with _inside(namespace) as ip:
        _up(ip, "lo")
        if not (_index(ip, "eth0") and _index(middle, node)):
            peer = {"ifname": node, "net_ns_fd": str(netns.named(box.namespace("net")))}
            ip.link("add", ifname="eth0", kind="veth", peer=peer)
        _attach(middle, node)
        _up(ip, "eth0", box.node_ip(node), box.network.network.prefixlen)


def namespaces(box: Box) -> list[Path]:
    """Every namespace of the box that is there, nodes of an earlier `--nodes` included."""
    prefix = box.namespace("")
    parts = [path for path in netns.NAMED.glob(f"{prefix}*") if _is_part(path.name.removeprefix(prefix))]
    return sorted(parts)


def _is_part(part: str) -> bool:
    """Whether this is a part's name: another box's name may begin as ours does."""
    return part == "net" or (part.startswith("node") and part[4:].isdigit())


def remove(box: Box) -> None:
    """Take away the namespaces, and with them the links."""
    with IPRoute() as host:
        if index := _index(host, host_link(box.name)):
            host.link("del", index=index)
    for path in namespaces(box):
        netns.delete(path)
