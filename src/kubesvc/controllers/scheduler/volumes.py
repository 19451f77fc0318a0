"""What a pod's claims say about where it may go, and what is to be done for them there. Pure.

Follows the volumebinding plugin, and of volumerestrictions ReadWriteOncePod. A bound claim leads to the nodes that its
volume's node affinity means. A late one (see persistentvolume/matching.py) gets a volume that is free and reachable
from the node, or one made for it when its class makes any. Everything else holds the pod back on all nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.storage import (
    NO_PROVISIONER,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    TopologySelectorTerm,
    claim_name,
    is_for,
    not_for,
)
from kubesvc.controllers.persistentvolume.matching import choose, is_free, is_given, is_late, requested
from kubesvc.controllers.scheduler import nodeaffinity

NOT_YET_MADE = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
IN_USE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


class Storage(msgspec.Struct, frozen=True):
    """`claims` are the pod's by their names, `volumes` and `classes` all there are; `used` the names of the claims that
    pods with a node use."""

    claims: Mapping[str, PersistentVolumeClaim] = {}
    volumes: Mapping[str, PersistentVolume] = {}
    classes: Mapping[str, StorageClass] = {}
    used: frozenset[str] = frozenset()


NOTHING = Storage()


class Bindings(msgspec.Struct, frozen=True):
    """What is to be done before the pod is bound: volumes given to claims, claims that volumes are made for."""

    volumes: tuple[tuple[PersistentVolumeClaim, PersistentVolume], ...] = ()
    provision: tuple[PersistentVolumeClaim, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.volumes or self.provision)


NO_BINDINGS = Bindings()


def holds_back(pod: Pod, claims: Mapping[str, PersistentVolumeClaim]) -> str:
    """Why the pod can't be placed whatever nodes there are, as far as its claims are there at all."""
    for volume in pod.spec.volumes:
        name = claim_name(pod, volume)
        claim = claims.get(name)
        if not name:
            continue
        if claim is None and volume.ephemeral is not None:
            return f'{NOT_YET_MADE} "{name}"'
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if claim.metadata.deletion_timestamp is not None:
            return f'persistentvolumeclaim "{name}" is being deleted'
        if volume.ephemeral is not None and not is_for(claim, pod):
            return not_for(claim, pod)
    return ""


class PodVolumes:
    """The claims of one pod; `refusal` is why no node will do, "" when some may; `passing` whether that is what every
    new claim goes through."""

    def __init__(self, pod: Pod, storage: Storage = NOTHING) -> None:
        self._storage = storage
        self.refusal = holds_back(pod, storage.claims) if pod.spec.volumes else ""
        claims = list(storage.claims.values())
        self._bound = [c for c in claims if c.is_bound]
        self._late = [c for c in claims if not c.is_bound and is_late(c, storage.classes)]
        if not self.refusal and len(self._bound) + len(self._late) < len(claims):
            self.refusal = UNBOUND
        self.passing = self.refusal == UNBOUND or self.refusal.startswith(NOT_YET_MADE)
        self._late.sort(key=lambda c: (requested(c), c.name))
        self._in_use = any(c.name in storage.used and "ReadWriteOncePod" in c.spec.access_modes for c in claims)

    @property
    def waits(self) -> bool:
        """Whether a claim's volume is still to be found or made, once a node is known."""
        return bool(self._late)

    def conflicts(self, node: Node) -> list[str]:
        """Why the pod can't run there; empty when it can."""
        if not self._storage.claims:
            return []
        if self._in_use:
            return [IN_USE]
        found = []
        volumes = [self._storage.volumes.get(c.spec.volume_name) for c in self._bound]
        if any(v is not None and not _reaches(v, node) for v in volumes):
            found.append(NODE_CONFLICT)
        if self._late and self.bindings(node) is None:
            found.append(BIND_CONFLICT)
        if None in volumes:
            found.append(NO_VOLUME)
        return found

    def bindings(self, node: Node) -> Bindings | None:
        """What the late claims get on the node; None when one of them gets nothing."""
        if not self._late:
            return NO_BINDINGS
        taken: set[str] = set()
        given: list[tuple[PersistentVolumeClaim, PersistentVolume]] = []
        provision: list[PersistentVolumeClaim] = []
        for claim in self._late:
            selected = claim.metadata.annotations.get(SELECTED_NODE)
            if selected is not None and selected != node.name:
                return None
            own = [v for v in self._storage.volumes.values() if is_given(v, claim)]
            if own and not _reaches(own[0], node):
                return None
            free = [v for v in self._storage.volumes.values() if v.name not in taken and _may_be(v, claim)]
            chosen = choose(claim, own or free, lambda v: _reaches(v, node))
            if chosen is not None:
                taken.add(chosen.name)
                given.append((claim, chosen))
            elif _makes(self._storage.classes[claim.storage_class], node):
                provision.append(claim)
            else:
                return None
        return Bindings(tuple(given), tuple(provision))


def _may_be(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether the volume could be the claim's; for one with a node selected, another is being made."""
    return is_free(volume) and volume.status.phase == "Available" and SELECTED_NODE not in claim.metadata.annotations


def _reaches(volume: PersistentVolume, node: Node) -> bool:
    affinity = volume.spec.node_affinity
    return affinity is None or affinity.required is None or nodeaffinity.selects(affinity.required, node)


def _makes(found: StorageClass, node: Node) -> bool:
    if found.provisioner in ("", NO_PROVISIONER):
        return False
    terms = found.allowed_topologies
    return not terms or any(_term(term, node.metadata.labels) for term in terms)


def _term(term: TopologySelectorTerm, labels: Mapping[str, str]) -> bool:
    wanted = term.match_label_expressions
    return bool(wanted) and all(labels.get(e.key) in e.values for e in wanted)
