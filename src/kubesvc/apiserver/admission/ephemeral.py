"""Ephemeral containers: what `kubectl debug` adds to a pod that runs, by pods/NAME/ephemeralcontainers.

They are only ever added. Source: pkg/apis/core/validation/validation.go, ValidatePodEphemeralContainersUpdate.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import containers
from kubesvc.apiserver.admission.causes import forbidden, not_found

SUBRESOURCE = "ephemeralcontainers"
_PATH = "spec.ephemeralContainers"
_NOT_THEIRS = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "restartPolicy")


def prepare(new: JSON, old: JSON) -> None:
    """Of the spec, only these containers are the request's."""
    wanted = (new.get("spec") or {}).get("ephemeralContainers")
    new["spec"] = {k: v for k, v in old["spec"].items() if k != "ephemeralContainers"}
    if wanted:
        new["spec"]["ephemeralContainers"] = wanted


def validate(new: JSON, old: JSON) -> Iterator[Cause]:
    wanted, before = (tree["spec"].get("ephemeralContainers") or [] for tree in (new, old))
    yield from containers.validate(new["spec"], "spec", "ephemeralContainers")
    kept = {c.get("name"): c for c in wanted}
    for container in before:
        name = container["name"]
        if name not in kept:
            yield forbidden(_PATH, f'existing ephemeral containers "{name}" may not be removed')
        elif kept[name] != container:
            yield forbidden(_PATH, f'existing ephemeral containers "{name}" may not be changed')
    targets = {c["name"] for c in (*new["spec"].get("initContainers", ()), *new["spec"]["containers"])}
    for index, container in enumerate(wanted):
        for field in _NOT_THEIRS:
            if container.get(field):
                yield forbidden(f"{_PATH}[{index}].{field}", "cannot be set for an Ephemeral Container")
        if (container.get("resources") or {}).get("limits") or (container.get("resources") or {}).get("requests"):
            yield forbidden(f"{_PATH}[{index}].resources", "cannot be set for an Ephemeral Container")
        target = container.get("targetContainerName")
        if target and target not in targets:
            yield not_found(f"{_PATH}[{index}].targetContainerName", target)
