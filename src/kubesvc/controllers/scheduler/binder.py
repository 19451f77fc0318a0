"""Carries out what a placement asks of a pod's claims before the pod is bound, and remembers where it then goes.

    decided ──► volumes given to claims, nodes selected ──► all claims bound ──► the pod is bound
                                                       ├──► one is gone, or not to be had there ──► decided anew
                                                       └──► nothing for ten minutes ──► decided anew

Meanwhile other pods are placed, and count this one as where it will be.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from kubesvc.api.endpoints import pod_is_finished
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from kubesvc.api.storage import SELECTED_NODE, PersistentVolumeClaim, claim_names
from kubesvc.controllers.context import Context
from kubesvc.controllers.scheduler.plan import Decision
from kubesvc.controllers.scheduler.volumes import NOTHING, Bindings, Storage

Key = tuple[str, str]
PATIENCE = timedelta(seconds=600)
TIMED_OUT = 'running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded'


class Reserved(msgspec.Struct, frozen=True):
    """A pod whose claims are being bound, as it will be when it has its node; `asked` are the claims that had a node
    selected for them."""

    pod: Pod
    until: datetime
    asked: frozenset[str] = frozenset()

    @property
    def node(self) -> str:
        return self.pod.spec.node_name


class VolumeBinder:
    """`reserved` maps the key of each pod that waits for its volumes -> its place."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.reserved: dict[Key, Reserved] = {}

    def storage(self, pod: Pod) -> Storage:
        """What there is for the pod's claims, if it has any."""
        names = claim_names(pod)
        if not names:
            return NOTHING
        caches = self._caches
        found = {name: claim for name in names if (claim := caches.claims.get(pod.namespace, name)) is not None}
        used = frozenset(name for name in names if self._is_used(pod, name))
        classes = {c.name: c for c in caches.storage_classes.items.values()}
        return Storage(found, {v.name: v for v in caches.volumes.items.values()}, classes, used)

    def _is_used(self, pod: Pod, name: str) -> bool:
        """Whether a pod on a node, or about to be on one, has the claim."""
        others: list[Pod] = self._caches.pods.by_index("claim", (pod.namespace, name))
        return any(
            p.metadata.uid != pod.metadata.uid
            and (p.spec.node_name or p.key in self.reserved)
            and not pod_is_finished(p)
            for p in others
        )

    def places(self, node: str) -> list[Pod]:
        """The pods that will be on the node when their claims are bound."""
        return [r.pod for r in self.reserved.values() if r.node == node]

    def node_of(self, pod: Pod) -> str:
        """Where the pod is or will be; "" when neither is known."""
        reserved = None if pod.spec.node_name else self.reserved.get(pod.key)
        return reserved.node if reserved is not None else pod.spec.node_name

    def forget(self, key: Key) -> bool:
        """Whether it had a place."""
        return self.reserved.pop(key, None) is not None

    async def begin(self, pod: Pod, decision: Decision) -> None:
        """Keep the pod's place, and see to its claims there. Raises Conflict."""
        there = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=decision.node))
        asked = frozenset(claim.name for claim in decision.bindings.provision)
        self.reserved[pod.key] = Reserved(there, self._context.now() + PATIENCE, asked)
        try:
            await self.give(decision.bindings, decision.node)
        except BaseException:
            self.forget(pod.key)
            raise

    async def give(self, bindings: Bindings, node: str) -> None:
        """Give volumes to claims, and select the node for those that volumes are made for. Raises Conflict."""
        writer = self._context.writer
        for claim, volume in bindings.volumes:
            reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.metadata.uid}
            reference |= {"namespace": claim.namespace, "name": claim.name}
            meta: JSON = {"resourceVersion": volume.metadata.resource_version}
            meta["annotations"] = {"pv.kubernetes.io/bound-by-controller": "yes"}
            await writer.patch(PERSISTENT_VOLUME, volume, {"metadata": meta, "spec": {"claimRef": reference}})
        for claim in bindings.provision:
            if claim.metadata.annotations.get(SELECTED_NODE) != node:
                patch = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                await writer.patch(PERSISTENT_VOLUME_CLAIM, claim, patch)

    def progress(self, reserved: Reserved) -> bool | None:
        """Whether all the pod's claims are bound; None when that can't come to be there any more."""
        names = claim_names(reserved.pod)
        found = [self._caches.claims.get(reserved.pod.namespace, name) for name in names]
        claims: list[PersistentVolumeClaim] = [c for c in found if c is not None]
        if len(claims) < len(names) or self._caches.nodes.get("", reserved.node) is None:
            return None
        for claim in claims:
            if claim.metadata.deletion_timestamp is not None:
                return None
            selected = claim.metadata.annotations.get(SELECTED_NODE)
            if claim.name in reserved.asked and not claim.is_bound and selected != reserved.node:
                return None
        return all(claim.is_bound for claim in claims)

    def left(self, reserved: Reserved) -> float:
        """Seconds that it may still wait."""
        return (reserved.until - self._context.now()).total_seconds()
