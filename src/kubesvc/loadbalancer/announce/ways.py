"""How this node reaches a router, asked of the kernel, in the namespace of the calling thread."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from kubesvc.kernel.links import Links
from kubesvc.loadbalancer.announce.bird_config import Way


def way_to(address: str) -> Way:
    """Raises nothing: a way that isn't there may come."""
    to = ip_address(address)
    try:
        with socket.socket(socket.AF_INET if to.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as asked:
            asked.connect((address, 9))  # sends nothing: the kernel looks up the route
            source = asked.getsockname()[0]
        with Links() as links:
            nearest = max((r for r in links.routes(to.version) if to in r.to), key=lambda r: r.to.prefixlen)
    except (OSError, ValueError):
        return Way()
    return Way(source, nearest.via is None)
