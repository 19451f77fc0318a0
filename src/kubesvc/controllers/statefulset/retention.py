"""Whom the claims of a StatefulSet's pods belong to, so that they go when they are to. Pure.

Follows persistentVolumeClaimRetentionPolicy in stateful_set_utils.go. The garbage collector does the deleting:

    whenDeleted: Delete      a claim belongs to the set
    whenScaled: Delete       a claim of a pod beyond the last ordinal belongs to that pod, and not to the set
    Retain                   it belongs to nobody

A claim that belongs to an earlier set or pod of the name is left to the garbage collector; one that another controller
manages is left to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.apps import StatefulSet
from kubesvc.api.meta import JSON, Object, OwnerReference
from kubesvc.api.registry import POD, STATEFUL_SET, Kind
from kubesvc.controllers.ownership import reference_to


def owners(sts: StatefulSet, pod: Object | None, condemned: bool) -> list[JSON]:
    """The references that a claim of a pod is to have, and no others to the set and the pod."""
    policy = sts.spec.persistent_volume_claim_retention_policy
    found = []
    if policy.when_scaled == "Delete" and condemned and pod is not None:
        found.append(reference_to(POD, pod))
    elif policy.when_deleted == "Delete" and not (policy.when_scaled == "Delete" and condemned):
        found.append(reference_to(STATEFUL_SET, sts))
    return found


def adjusted(sts: StatefulSet, pod: Object, claim: Object, condemned: bool) -> list[JSON] | None:
    """What the claim's ownerReferences become; None when they are to stay as they are."""
    references = claim.metadata.owner_references
    if _is_stale(references, STATEFUL_SET, sts) or _is_stale(references, POD, pod):
        return None
    ours = [r for r in references if r.uid in (sts.metadata.uid, pod.metadata.uid)]
    others: list[JSON] = [msgspec.to_builtins(r) for r in references if r not in ours]
    if has_other_controller(sts, pod, claim):
        return others if ours else None
    wanted = owners(sts, pod, condemned)
    if {(r.uid, r.controller) for r in ours} == {(r["uid"], True) for r in wanted}:
        return None
    return [*others, *wanted]


def has_other_controller(sts: StatefulSet, pod: Object, claim: Object) -> bool:
    """Whether somebody else manages a claim that the policy would have go."""
    policy = sts.spec.persistent_volume_claim_retention_policy
    if "Delete" not in (policy.when_deleted, policy.when_scaled):
        return False
    ours = (sts.metadata.uid, pod.metadata.uid)
    return any(r.controller and r.uid not in ours for r in claim.metadata.owner_references)


def is_going(sts: StatefulSet, pod_name: str, claim: Object) -> bool:
    """Whether the claim belongs to an earlier pod of the name: the next waits until it is gone."""
    if sts.spec.persistent_volume_claim_retention_policy.when_scaled != "Delete":
        return False
    return any(_means(r, POD, pod_name) for r in claim.metadata.owner_references)


def _is_stale(references: Sequence[OwnerReference], kind: Kind, item: Object) -> bool:
    return any(_means(r, kind, item.name) and r.uid != item.metadata.uid for r in references)


def _means(reference: OwnerReference, kind: Kind, name: str) -> bool:
    return (reference.api_version, reference.kind, reference.name) == (kind.api_version, kind.kind, name)
