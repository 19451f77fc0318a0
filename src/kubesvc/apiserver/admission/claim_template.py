"""What a claim asks for, where it stands by itself and where a pod has it made for a volume of its own.

Source: ValidatePersistentVolumeClaimSpec, ValidatePersistentVolumeClaimTemplate, SetDefaults_PersistentVolumeClaimSpec.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission.causes import forbidden, invalid, not_supported, required

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_TEMPLATE_METADATA = ("annotations", "labels")


def default(tree: JSON) -> None:
    """Of a claim, or of a template of one."""
    spec = tree.setdefault("spec", {})
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"


def validate_spec(spec: JSON, path: str) -> Iterator[Cause]:
    yield from access_modes(spec, path)
    if not ((spec.get("resources") or {}).get("requests") or {}).get("storage"):
        yield required(f"{path}.resources[storage]")


def access_modes(spec: JSON, path: str) -> Iterator[Cause]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield required(f"{path}.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _MODES:
            yield not_supported(f"{path}.accessModes", mode, _MODES)
    if len(modes) > 1 and "ReadWriteOncePod" in modes:
        why = "may not use ReadWriteOncePod with other access modes"
        yield forbidden(f"{path}.accessModes", why)


def validate_ephemeral(source: JSON, path: str) -> Iterator[Cause]:
    """`source` is an EphemeralVolumeSource at `path`."""
    template = source.get("volumeClaimTemplate")
    if template is None:
        yield required(f"{path}.volumeClaimTemplate")
        return
    here, meta = f"{path}.volumeClaimTemplate", template.get("metadata") or {}
    yield from metadata.validate_annotations(meta.get("annotations"), f"{here}.metadata.annotations")
    yield from metadata.validate_labels(meta.get("labels"), f"{here}.metadata.labels")
    for field in meta:
        if field not in _TEMPLATE_METADATA and meta[field]:
            yield forbidden(f"{here}.metadata.{field}", "cannot be set for an ephemeral volume")
    yield from validate_spec(template.get("spec") or {}, f"{here}.spec")


def validate_names(pod: JSON) -> Iterator[Cause]:
    """That the claims of a pod's ephemeral volumes can have their names."""
    name = (pod.get("metadata") or {}).get("name")
    for index, volume in enumerate((pod.get("spec") or {}).get("volumes") or ()):
        if name and volume.get("name") and volume.get("ephemeral"):
            claim = f"{name}-{volume['name']}"
            for why in names.subdomain(claim):
                yield invalid(f"spec.volumes[{index}].name", volume["name"], f'PVC name "{claim}": {why}')
