"""The rules of PersistentVolume, PersistentVolumeClaim and StorageClass.

Source: pkg/apis/core/v1/defaults.go, ValidatePersistentVolume, ValidatePersistentVolumeClaim; pkg/apis/storage.
"""

from __future__ import annotations

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.api.storage import CLAIM_PROTECTION, VOLUME_PROTECTION
from kubesvc.apiserver.admission import claim_template
from kubesvc.apiserver.admission.causes import IMMUTABLE, forbidden, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules, keep_status

_RECLAIM = ("Delete", "Recycle", "Retain")
# of a PersistentVolume's spec: what isn't the kind of storage behind it
_NOT_SOURCES = frozenset((
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
))  # fmt: skip


def default_volume(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"


def default_claim(tree: JSON) -> None:
    claim_template.default(tree)


def prepare_volume(new: JSON, old: JSON | None, context: Context) -> None:
    _prepare(new, old, context, VOLUME_PROTECTION)


def prepare_claim(new: JSON, old: JSON | None, context: Context) -> None:
    _prepare(new, old, context, CLAIM_PROTECTION)


def _prepare(new: JSON, old: JSON | None, context: Context, finalizer: str) -> None:
    """What is new is pending, and protected, as the StorageObjectInUseProtection plugin has it: a controller lets it go
    when nothing uses it."""
    keep_status(new, old, context)
    if old is None:
        new["status"] = {"phase": "Pending"}
        finalizers = new["metadata"].setdefault("finalizers", [])
        if finalizer not in finalizers:
            finalizers.append(finalizer)


def validate_volume(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = list(claim_template.access_modes(spec, "spec"))
    if not spec.get("capacity"):
        causes.append(required("spec.capacity"))
    elif set(spec["capacity"]) != {"storage"}:
        causes.append(not_supported("spec.capacity", spec["capacity"], ("storage",)))
    sources = [name for name in spec if name not in _NOT_SOURCES]
    if not sources:
        causes.append(required("spec", "must specify a volume type"))
    causes += [forbidden(f"spec.{name}", "may not specify more than 1 volume type") for name in sources[1:]]
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in _RECLAIM:
        causes.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
    affinity = spec.get("nodeAffinity")
    if affinity is not None and affinity.get("required") is None:
        causes.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
    elif affinity is not None and not affinity["required"].get("nodeSelectorTerms"):
        why = "must have at least one node selector term"
        causes.append(required("spec.nodeAffinity.required.nodeSelectorTerms", why))
    return causes


def validate_claim(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    causes = list(claim_template.validate_spec(spec, "spec"))
    before = (old.get("spec") or {}) if old is not None else spec
    if before.get("storageClassName") is None:  # a default class has come since
        before = before | {"storageClassName": spec.get("storageClassName")}
    if old is not None and _fixed(spec) != _fixed(before):
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.append(forbidden("spec", why))
    return causes


def _fixed(spec: JSON) -> JSON:
    free = ("resources", "volumeAttributesClassName", "volumeName")
    return {name: value for name, value in spec.items() if name not in free and value is not None}


def default_class(tree: JSON) -> None:
    for name, value in (("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")):
        if not tree.get(name):
            tree[name] = value


def validate_class(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    if not new.get("provisioner"):
        causes.append(required("provisioner"))
    for name, allowed in (("reclaimPolicy", ("Delete", "Retain")),
                          ("volumeBindingMode", ("Immediate", "WaitForFirstConsumer"))):  # fmt: skip
        if new.get(name) not in allowed:
            causes.append(not_supported(name, new.get(name), allowed))
    if old is not None:
        if (new.get("parameters") or {}) != (old.get("parameters") or {}):
            causes.append(forbidden("parameters", "updates to parameters are forbidden."))
        if new.get("provisioner") != old.get("provisioner"):
            causes.append(forbidden("provisioner", "updates to provisioner are forbidden."))
        if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
            causes.append(forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
        if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
            causes.append(Cause("FieldValueInvalid", f"Invalid value: \"{new['volumeBindingMode']}\": {IMMUTABLE}",
                                "volumeBindingMode"))  # fmt: skip
    return causes


ADMITS = (
    (registry.PERSISTENT_VOLUME, Rules(default=default_volume, prepare=prepare_volume, validate=validate_volume)),
    (registry.PERSISTENT_VOLUME_CLAIM, Rules(default=default_claim, prepare=prepare_claim, validate=validate_claim)),
    (registry.STORAGE_CLASS, Rules(default=default_class, validate=validate_class)),
)
