"""What each process of a box runs: the rooms, wired.

    control-plane        API server, controllers, load-balancer controller; over SQLite, in the node network
    NODE/proxy           the data plane, and the answering of ARP for load-balancer addresses
    NODE/dns  NODE/node  the DNS server; the pods
    cloud                the balancers of --cloud, and their name server
    publish              node ports on the host's localhost, where there are any to publish

The supervisor must have imported a room before it forks what runs it. The rooms of nodes are imported once the control
plane is on its way: with two cores, one imports while the other starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from kubesvc.box import controlplane, publish
from kubesvc.box.certificates import Identities
from kubesvc.box.definition import Box
from kubesvc.box.importing import quickly
from kubesvc.box.sockets import Sockets
from kubesvc.box.supervisor import Child
from kubesvc.kernel import netns

_HOST = Path("/proc/self/ns/net")  # the supervisor's namespace


class Parts(msgspec.Struct):
    """What the processes of a box are made from. Nodes come and go: a process that starts is given what holds then."""

    box: Box
    identities: Identities
    sockets: Sockets
    progress: int  # a descriptor: what becomes ready is written to it, a name a line
    host: int = msgspec.field(default_factory=netns.current)  # kept open: the way back to the host's network

    def children(self) -> Iterator[Child]:
        """Every process of the box; who takes them one by one forks the first before the second's room is imported."""
        yield Child(
            "control-plane",
            netns.named(self.box.namespace("net")),
            lambda: controlplane.run(self.box, self.identities, self.sockets.api, self.progress),
            outlives=True,
        )
        for name in self.box.node_names:
            yield from self.of_node(name)
        if self.box.cloud:
            with quickly():
                from kubesvc.box import cloudprocess
            yield Child("cloud", netns.named(self.box.namespace("cloud")), lambda: cloudprocess.run(self.box))
        if self.sockets.published:
            yield Child("publish", _HOST, lambda: publish.run(self.box, self.sockets.published))

    def of_node(self, name: str) -> list[Child]:
        with quickly():
            from kubesvc.box import nodeprocesses
        box, identities = self.box, self.identities
        namespace = netns.named(box.namespace(name))
        return [
            Child(f"{name}/proxy", namespace, nodeprocesses.proxy(box, identities, name)),
            Child(f"{name}/dns", namespace, nodeprocesses.dns(box, identities, name, self.sockets, self.host)),
            Child(f"{name}/node", namespace, nodeprocesses.agent(box, identities, name, self.host)),
        ]
