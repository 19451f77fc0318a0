"""The claims that a pod's ephemeral volumes need. Pure. Follows the ephemeral volume controller.

Each is named POD-VOLUME and controlled by the pod, so that the garbage collector takes it away with it. A claim that
has the name and isn't the pod's is somebody's data: the pod waits.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kubesvc.api.meta import JSON, Object
from kubesvc.api.pods import Pod
from kubesvc.api.registry import POD
from kubesvc.api.storage import claim_name, is_for, not_for
from kubesvc.controllers.ownership import reference_to


class Plan(msgspec.Struct):
    create: list[JSON] = []
    refused: list[str] = []
    """What an Event says of each claim that is another's."""


def plan(pod: Pod, known: Callable[[str], Object | None]) -> Plan:
    """`known` gives the claim of a name in the pod's namespace."""
    found = Plan()
    if pod.metadata.deletion_timestamp is not None:
        return found
    for volume in pod.spec.volumes:
        if volume.ephemeral is None:
            continue
        name = claim_name(pod, volume)
        claim = known(name)
        if claim is None:
            template = volume.ephemeral.volume_claim_template
            meta = template.get("metadata") or {}
            kept = {k: meta[k] for k in ("labels", "annotations") if meta.get(k)}
            kept |= {"name": name, "namespace": pod.namespace, "ownerReferences": [reference_to(POD, pod)]}
            found.create.append({"metadata": kept, "spec": template.get("spec") or {}})
        elif not is_for(claim, pod):
            found.refused.append(f"ephemeral volume {volume.name}: {not_for(claim, pod)}")
    return found
