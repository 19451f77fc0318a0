"""Which volume suits a claim, and when it may be chosen. Pure. Follows volume.FindMatchingVolume.

A claim of a class with volumeBindingMode WaitForFirstConsumer is late: the scheduler chooses for it, when it knows
where the pod goes. Until then only a volume that names the claim is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim, StorageClass, size


def is_late(claim: PersistentVolumeClaim, classes: Mapping[str, StorageClass]) -> bool:
    found = classes.get(claim.storage_class)
    late = found is not None and found.volume_binding_mode == "WaitForFirstConsumer"
    return late and not claim.spec.volume_name


def is_free(volume: PersistentVolume) -> bool:
    """Nobody's yet, though it may name whose it is to be."""
    reference = volume.spec.claim_ref
    return (reference is None or not reference.uid) and volume.metadata.deletion_timestamp is None


def is_given(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether it is that very claim's already, though the claim may not know it yet."""
    reference = volume.spec.claim_ref
    return reference is not None and bool(reference.uid) and reference.uid == claim.metadata.uid


def choose(
    claim: PersistentVolumeClaim,
    free: Iterable[PersistentVolume],
    suits: Callable[[PersistentVolume], bool] = lambda volume: True,
) -> PersistentVolume | None:
    """The one that the claim names; one that names the claim; the smallest that fits; of those that suit."""
    candidates = [v for v in free if not _anothers(v, claim) and suits(v)]
    if claim.spec.volume_name:
        return next((v for v in candidates if v.name == claim.spec.volume_name), None)
    fitting = [v for v in candidates if _fits(v, claim)]
    return min(fitting, key=lambda v: (v.spec.claim_ref is None, _capacity(v), v.name), default=None)


def _anothers(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    reference = volume.spec.claim_ref
    return reference is not None and (reference.namespace, reference.name) != claim.key


def _fits(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    selector = claim.spec.selector
    return (
        volume.spec.storage_class_name == claim.storage_class
        and set(claim.spec.access_modes) <= set(volume.spec.access_modes)
        and (volume.spec.volume_mode or "Filesystem") == (claim.spec.volume_mode or "Filesystem")
        and _capacity(volume) >= requested(claim)
        and (selector is None or matches(from_label_selector(selector), volume.metadata.labels))
    )


def _capacity(volume: PersistentVolume) -> float:
    return _size(volume.spec.capacity.get("storage"))


def requested(claim: PersistentVolumeClaim) -> float:
    """Bytes."""
    return _size(claim.spec.resources.requests.get("storage"))


def _size(quantity: int | str | None) -> float:
    try:
        return size(quantity)
    except (ValueError, KeyError):
        return 0.0
