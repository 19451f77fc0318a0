"""A pod's network: a namespace, and a routed veth to the node. No bridge, no ARP, no NAT.

        pod namespace                              node namespace
    eth0  POD-IP/32                                vethXXXXXXXXXXX
      default via 169.254.1.1 onlink ────────────►   route POD-IP/32 dev vethXXXXXXXXXXX src NODE-IP
      169.254.1.1 is at the veth's MAC                POD-IP is at eth0's MAC

The gateway's address is on no link: permanent neighbour entries at both ends say where each is, so the first packet
needs no ARP and nobody answers for it. The node's forwarding sysctls are the proxy's business.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path

from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import PROTO_KUBESVC, Links

GATEWAY = ip_address("169.254.1.1")
DEFAULT = ip_network("0.0.0.0/0")
NODE_MAC = "02:6b:73:00:00:01"

# Set inside each pod's namespace: low ports and ping without privileges, no link-local IPv6 that nobody routes.
SYSCTLS = {
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 2147483647",
    "ipv6/conf/default/addr_gen_mode": "1",
}


def veth_name(uid: str) -> str:
    """The node's end of a pod's pair: the same for a pod always, 15 characters at most."""
    return "veth" + hashlib.sha1(uid.encode(), usedforsecurity=False).hexdigest()[:11]


def pod_mac(address: IPv4Address) -> str:
    return "02:6b:" + address.packed.hex(":")


def attach(links: Links, node_ip: IPv4Address, uid: str, path: Path, address: IPv4Address) -> None:
    """Make the pod's namespace at `path` and connect it to the node's (`links`). Doing it again is fine."""
    if netns.create(path):
        with netns.entered(path):
            for name, value in SYSCTLS.items():
                sysctl.ensure_each(name, value)  # a kernel without IPv6 has not all of them
    veth, mac = veth_name(uid), pod_mac(address)
    with Links(path) as inside:
        if not inside.exists("eth0") or not links.exists(veth):
            links.delete(veth)
            links.add_veth(veth, "eth0", peer_namespace=path, mac=NODE_MAC, peer_mac=mac, up=True)
        inside.up("lo")
        inside.up("eth0")
        inside.add_address("eth0", ip_interface((address, 32)))
        inside.set_neighbour("eth0", GATEWAY, NODE_MAC)
        inside.set_route(DEFAULT, via=GATEWAY, dev="eth0", onlink=True)
    links.set_neighbour(veth, address, mac)
    links.set_route(IPv4Network((address, 32)), dev=veth, source=node_ip, proto=PROTO_KUBESVC)


def detach(links: Links, uid: str, path: Path) -> None:
    """Take the pod's link and namespace away; its route goes with the link. Missing is fine."""
    links.delete(veth_name(uid))
    netns.delete(path)
