"""Whether a claim or a volume that is to go is still used, and which finalizers change. Pure.

Follows the pvc-protection and pv-protection controllers: a claim is used by every pod on a node that names it, a
finished one too; a volume while it is bound. The finalizers are put on when objects are created; those without, made
by an older version, get them here.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.api.meta import JSON, Object
from kubesvc.api.pods import Pod
from kubesvc.api.storage import (
    CLAIM_PROTECTION,
    VOLUME_PROTECTION,
    PersistentVolume,
    PersistentVolumeClaim,
    claim_name,
    is_for,
)
from kubesvc.controllers import finalizers


def is_used(claim: PersistentVolumeClaim, pods: Iterable[Pod]) -> bool:
    """`pods` are of the claim's namespace."""
    return any(_uses(pod, claim) for pod in pods)


def _uses(pod: Pod, claim: PersistentVolumeClaim) -> bool:
    """A pod without a node doesn't: it won't be placed before there is another claim."""
    if not pod.spec.node_name:
        return False
    its = [volume for volume in pod.spec.volumes if claim_name(pod, volume) == claim.name]
    return any(v.persistent_volume_claim is not None or (is_for(claim, pod) and not _is_done(pod)) for v in its)


def _is_done(pod: Pod) -> bool:
    """Its node has let go of it, or it was deleted by force. It may wait for its claim to go, which it owns."""
    return pod.metadata.deletion_timestamp is not None and pod.metadata.deletion_grace_period_seconds == 0


def may_go(item: Object) -> bool:
    """Whether the protection is all there is to decide about."""
    finalizer = _finalizer(item)
    return item.metadata.deletion_timestamp is not None and finalizer in item.metadata.finalizers


def release(item: Object) -> JSON:
    return finalizers.without(item, _finalizer(item))


def protect(item: Object) -> JSON | None:
    """The patch for one that is to stay, None when it needs none."""
    finalizer = _finalizer(item)
    if item.metadata.deletion_timestamp is not None or finalizer in item.metadata.finalizers:
        return None
    return finalizers.added(item, finalizer)


def _finalizer(item: Object) -> str:
    return VOLUME_PROTECTION if isinstance(item, PersistentVolume) else CLAIM_PROTECTION
