"""A Deployment's revisions: which ReplicaSet has its template, what a new one is called, how revisions are numbered.

Follows the Deployment controller: templates are compared whole but for the pod-template-hash label, so `kubectl rollout
undo`, which writes an old template back, finds the ReplicaSet that has it, and that one becomes the newest revision.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.apps import Deployment, ReplicaSet
from kubesvc.api.labels import DEPLOYMENT_REVISION, POD_TEMPLATE_HASH
from kubesvc.api.meta import JSON
from kubesvc.api.registry import DEPLOYMENT
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.templates import canonical, fingerprint

REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset(
    [
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        DEPLOYMENT_REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
    ]
)


def with_template(deployment: Deployment, sets: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """The ReplicaSet of the Deployment's template; of several the oldest."""
    wanted = canonical(deployment.spec.template)
    same = [rs for rs in sets if canonical(rs.spec.template) == wanted]
    return min(same, key=lambda rs: (rs.metadata.creation_timestamp or "", rs.name), default=None)


def revision_of(rs: ReplicaSet) -> int:
    text = rs.metadata.annotations.get(DEPLOYMENT_REVISION, "0")
    return int(text) if text.isdigit() else 0


def next_revision(sets: Sequence[ReplicaSet]) -> int:
    return max(map(revision_of, sets), default=0) + 1


def annotations_for(
    deployment: Deployment, rs: ReplicaSet | None, others: Sequence[ReplicaSet], most: int
) -> dict[str, str]:
    """What a ReplicaSet that is, or becomes, the newest revision carries: the Deployment's annotations, the sizes it
    was scaled for, its revision, and the revisions it had before. `most` is replicas with the surge."""
    wanted = {k: v for k, v in deployment.metadata.annotations.items() if k not in NOT_COPIED}
    wanted |= sizes(deployment, most)
    revision = next_revision(others)
    before = revision_of(rs) if rs else 0
    if rs is not None and before >= revision:
        wanted[DEPLOYMENT_REVISION] = str(before)
        history = rs.metadata.annotations.get(REVISION_HISTORY, "")
    else:
        wanted[DEPLOYMENT_REVISION] = str(revision)
        history = rs.metadata.annotations.get(REVISION_HISTORY, "") if rs else ""
        if before:
            history = f"{history},{before}" if history else str(before)
    return wanted | ({REVISION_HISTORY: history} if history else {})


def sizes(deployment: Deployment, most: int) -> dict[str, str]:
    return {DESIRED_REPLICAS: str(deployment.spec.replicas), MAX_REPLICAS: str(most)}


def new_replica_set(deployment: Deployment, replicas: int, annotations: dict[str, str]) -> JSON:
    """The ReplicaSet for a template that has none yet."""
    hash_ = fingerprint(deployment.spec.template, deployment.status.collision_count)
    meta = dict(deployment.spec.template.get("metadata") or {})
    labels = dict(meta.get("labels") or {}) | {POD_TEMPLATE_HASH: hash_}
    selector = msgspec.to_builtins(deployment.spec.selector)
    selector["matchLabels"] = selector.get("matchLabels", {}) | {POD_TEMPLATE_HASH: hash_}
    spec: JSON = {
        "replicas": replicas,
        "selector": selector,
        "template": {**deployment.spec.template, "metadata": {**meta, "labels": labels}},
    }
    if deployment.spec.min_ready_seconds:
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds
    return {
        "metadata": {
            "name": f"{deployment.name}-{hash_}",
            "namespace": deployment.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [reference_to(DEPLOYMENT, deployment)],
        },
        "spec": spec,
    }
