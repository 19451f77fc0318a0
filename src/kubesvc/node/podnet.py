"""A pod's network: a namespace, and a routed veth to the node. No bridge, no ARP, no NAT.

        pod namespace                              node namespace
    eth0  POD-IP/32, /128                          vethXXXXXXXXXXX
      default via 169.254.1.1 onlink ────────────►   route POD-IP/32 dev vethXXXXXXXXXXX src NODE-IP
      and         fe80::1                            and   POD-IP/128
      both are at the veth's MAC                     POD-IP is at eth0's MAC

The gateways' addresses are on no link: permanent neighbour entries at both ends say where each is, so the first packet
needs no ARP or NDP and nobody answers for it. The node's forwarding sysctls are the proxy's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import PROTO_KUBESVC, Links
from kubesvc.kernel.rtnetlink import Address

GATEWAYS = {4: ip_address("169.254.1.1"), 6: ip_address("fe80::1")}
DEFAULTS = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
NODE_MAC = "02:6b:73:00:00:01"

# Set inside each pod's namespace: low ports and ping without privileges, no link-local IPv6 that nobody routes.
SYSCTLS = {
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 2147483647",
    "ipv6/conf/default/addr_gen_mode": "1",
}
SYSCTLS_6 = {"ipv6/conf/all/disable_ipv6": "0", "ipv6/conf/default/disable_ipv6": "0"}


def veth_name(uid: str) -> str:
    """The node's end of a pod's pair: the same for a pod always, 15 characters at most."""
    return "veth" + hashlib.sha1(uid.encode(), usedforsecurity=False).hexdigest()[:11]


def pod_mac(address: Address) -> str:
    return "02:6b:" + address.packed[-4:].hex(":")


def attach(
    links: Links, node_ips: Sequence[Address], uid: str, path: Path, addresses: Sequence[Address], mtu: int = 0
) -> None:
    """Make the pod's namespace at `path` and connect it to the node's (`links`). Doing it again is fine."""
    make_namespace(path, 6 in (address.version for address in addresses))
    veth, mac = veth_name(uid), pod_mac(addresses[0])
    with Links(path) as inside:
        if not inside.exists("eth0") or not links.exists(veth):
            links.delete(veth)
            links.add_veth(veth, "eth0", peer_namespace=path, mac=NODE_MAC, peer_mac=mac, mtu=mtu, up=True)
        inside.up("eth0")
        for address in addresses:
            gateway = GATEWAYS[address.version]
            inside.add_address("eth0", ip_interface(address))
            inside.set_neighbour("eth0", gateway, NODE_MAC)
            inside.set_route(DEFAULTS[address.version], via=gateway, dev="eth0", onlink=True)
    for address in addresses:
        source = next((ip for ip in node_ips if ip.version == address.version), None)
        links.set_neighbour(veth, address, mac)
        links.set_route(ip_network(address), dev=veth, source=source, proto=PROTO_KUBESVC)


def make_namespace(path: Path, ipv6: bool) -> None:
    """The pod's, unless it is there."""
    if netns.create(path):
        with netns.entered(path):
            for name, value in (SYSCTLS | (SYSCTLS_6 if ipv6 else {})).items():
                sysctl.ensure_each(name, value)  # a kernel without IPv6 has not all of them
        with Links(path) as inside:
            inside.up("lo")


def detach(links: Links, uid: str, path: Path) -> None:
    """Take the pod's link and namespace away; its routes go with the link. Missing is fine."""
    links.delete(veth_name(uid))
    netns.delete(path)
