"""Which nodes may take load-balancer traffic: asked by the controller (a cloud's targets) and by the election.

Upstream's rule (cloud-provider controllers/service, `stableNodeSetPredicates` and readiness): Ready, not labelled
`node.kubernetes.io/exclude-from-external-load-balancers`, not about to be removed. Cordoning alone doesn't exclude.
"""

from __future__ import annotations

from kubesvc.api.labels import EXCLUDE_FROM_LOAD_BALANCERS
from kubesvc.api.nodes import Node

TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"  # a taint's key


def is_eligible(node: Node) -> bool:
    return (
        node.metadata.deletion_timestamp is None
        and EXCLUDE_FROM_LOAD_BALANCERS not in node.metadata.labels
        and all(taint.key != TO_BE_DELETED for taint in node.spec.taints)
        and node.ready
    )
