"""This node's endpoint of the kube-dns Service: an EndpointSlice of its own, there while its DNS answers.

`kube-dns` in `kube-system` has no selector; every node's DNS adds one slice `kube-dns-NODE` with its node's address
and the unprivileged port it listens on, hinted to the node, so that PreferSameNode keeps questions at home. It is
written once the answers are there and taken away before an orderly end, while questions are still answered. It belongs
to the Node: it goes with it, and is not ready while the Node isn't.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging

from kubesvc.api import labels
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, NODE
from kubesvc.client.informer import Informer
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import Session
from kubesvc.dns.records import KUBE_DNS

log = logging.getLogger(__name__)

MANAGER = labels.DNS_MANAGER
NAMESPACE, SERVICE = KUBE_DNS


def slice_name(node: str) -> str:
    return f"{SERVICE}-{node}"


def wanted(node: Node, node_ip: str, port: int) -> JSON:
    """The slice of `node`, whole."""
    ready = not any(c.type == "Ready" and c.status != "True" for c in node.status.conditions)
    family = "IPv4" if ipaddress.ip_address(node_ip).version == 4 else "IPv6"
    return {
        "metadata": {
            "name": slice_name(node.name),
            "namespace": NAMESPACE,
            "labels": {labels.SERVICE_NAME: SERVICE, labels.SLICE_MANAGED_BY: MANAGER},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.metadata.uid}],
        },
        "addressType": family,
        "endpoints": [
            {
                "addresses": [node_ip],
                "nodeName": node.name,
                "conditions": {"ready": ready, "serving": ready, "terminating": False},
                "hints": {"forNodes": [{"name": node.name}]},
            }
        ],
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": port},
            {"name": "dns-tcp", "protocol": "TCP", "port": port},
        ],
    }


def change(found: JSON, want: JSON) -> JSON | None:
    """The merge patch that makes `found` what is wanted, None when it is. Labels of others stay."""
    patch: JSON = {part: want[part] for part in ("endpoints", "ports") if found.get(part) != want[part]}
    present = found["metadata"].get("labels") or {}
    missing = {k: v for k, v in want["metadata"]["labels"].items() if present.get(k) != v}
    if missing:
        patch["metadata"] = {"labels": missing}
    owners = want["metadata"]["ownerReferences"]
    if found["metadata"].get("ownerReferences") != owners:
        patch.setdefault("metadata", {})["ownerReferences"] = owners
    return patch or None


class Announcement:
    """Keeps the slice as `wanted` says, whoever changes or deletes it, until `withdraw`; none without the Node."""

    def __init__(
        self, session: Session, slices: Informer[EndpointSlice], *, node: str, node_ip: str, port: int
    ) -> None:
        self._session = session
        self._node, self._node_ip, self._port = node, node_ip, port
        self._name = slice_name(node)
        self._nodes = Informer(session, NODE, Node, fields=f"metadata.name={node}")
        self._queue: WorkQueue[str] = WorkQueue("kube-dns", max_delay=5.0)
        slices.on_change(self._changed)
        self._nodes.on_change(lambda old, new: self._queue.add(self._name))

    async def run(self) -> None:
        """Announce until cancelled; to be started once the answers are there."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run())
            await self._nodes.synced.wait()
            self._queue.add(self._name)
            group.create_task(self._queue.run(self._reconcile))

    async def withdraw(self) -> None:
        """Take the slice away; `run` must have ended, or it puts it back. Raises ApiError, Unreachable."""
        try:
            await self._session.delete(ENDPOINT_SLICE, NAMESPACE, self._name)
        except NotFound:
            return
        log.info("%s withdrawn", self._name)

    def _changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if (new or old) is not None and (new or old).key == (NAMESPACE, self._name):  # type: ignore[union-attr]
            self._queue.add(self._name)

    async def _reconcile(self, name: str) -> None:
        node = self._nodes.get("", self._node)
        if node is None:
            await self.withdraw()
            return
        want = wanted(node, self._node_ip, self._port)
        try:
            found = await self._session.get(ENDPOINT_SLICE, NAMESPACE, name)
        except NotFound:
            try:
                await self._session.create(ENDPOINT_SLICE, want)
                log.info("%s announced", name)
            except AlreadyExists:
                self._queue.add(name)
            return
        if found.get("addressType") != want["addressType"]:  # immutable
            await self._session.delete(ENDPOINT_SLICE, NAMESPACE, name, uid=found["metadata"]["uid"])
            self._queue.add(name)
        elif patch := change(found, want):
            await self._session.patch(ENDPOINT_SLICE, NAMESPACE, name, patch)
