"""Gives each node its blocks of the pod networks. One key for all nodes: each choice depends on all the others."""

from __future__ import annotations

import logging

from kubesvc.api.nodes import Node
from kubesvc.api.registry import NODE
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.nodeipam.plan import plan

log = logging.getLogger(__name__)

COMPONENT = "cidrAllocator"


class NodeIpamController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._told: set[str] = set()
        self.queue: WorkQueue[str] = WorkQueue("nodeipam")
        self._caches.nodes.on_change(self._node_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or old.spec != new.spec:
            self.queue.add("nodes")

    async def reconcile(self, key: str) -> None:
        nodes: dict[str, Node] = {node.name: node for node in self._caches.nodes.items.values()}
        config = self._context.config
        given, left_out = plan(nodes.values(), config.pod_cidrs, config.node_mask, config.node_mask6)
        for name, blocks in given.items():
            texts = [str(block) for block in blocks]
            meta = {"resourceVersion": nodes[name].metadata.resource_version}
            patch = {"metadata": meta, "spec": {"podCIDR": texts[0], "podCIDRs": texts}}
            await self._context.writer.patch(NODE, nodes[name], patch)
        for name in left_out:
            if name not in self._told:
                log.error("node %s: no pod address block is free in %s", name, ", ".join(map(str, config.pod_cidrs)))
                text = f"Node {name} status is now: CIDRNotAvailable"
                self._context.recorder.record(COMPONENT, NODE, nodes[name], "Normal", "CIDRNotAvailable", text)
        self._told = set(left_out)
