"""Nodes of a running box, come and gone: what the supervisor does for `kubesvc node add` and `remove`."""

from __future__ import annotations

import logging

from kubesvc.box import egress, network, sockets
from kubesvc.box.certificates import ensure_certificates
from kubesvc.box.children import Parts
from kubesvc.box.control import Request
from kubesvc.box.definition import AddedNode, Box, remember, with_node, without_node
from kubesvc.box.supervisor import Supervisor

log = logging.getLogger(__name__)


class Changes:
    """The supervisor waits meanwhile; its children go on."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts, self._supervisor = parts, supervisor

    def carry_out(self, request: Request) -> None:
        """Raises BoxError, OSError."""
        if request.add is not None:
            self.add(request.add)
        else:
            self.remove(request.remove)

    def add(self, node: AddedNode) -> None:
        """Its certificates, its namespace, its sockets, its processes; remembered before anything is made."""
        box, parts = with_node(self._parts.box, node), self._parts
        self._keep(box)
        parts.identities = ensure_certificates(box)
        network.ensure(box)
        egress.ensure(box)
        parts.sockets.dns[node.name] = sockets.open_node(box, node.name)
        for child in parts.of_node(node.name):
            self._supervisor.add(child)
        log.info("node %s was added", node.name)

    def remove(self, name: str) -> None:
        """Its processes and its pods end, then its namespace goes."""
        from kubesvc.box import nodeprocesses  # this module is imported before the rooms of nodes are

        box = without_node(self._parts.box, name)
        self._supervisor.remove([child.name for child in self._parts.of_node(name)])
        nodeprocesses.teardown_node(self._parts.box, name)
        for listener in self._parts.sockets.dns.pop(name):
            listener.close()
        network.remove_node(box, name)
        self._keep(box)
        self._supervisor.restart("publish")
        log.info("node %s was removed", name)

    def _keep(self, box: Box) -> None:
        remember(box)
        self._parts.box = box
