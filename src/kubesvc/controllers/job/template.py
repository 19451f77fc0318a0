"""The next pod of a Job. Pure.

A pod of an Indexed Job is told its index by its label and annotation, by JOB_COMPLETION_INDEX in its containers, and by
its host name.
"""

from __future__ import annotations

from kubesvc.api.batch import Job
from kubesvc.api.labels import JOB_COMPLETION_INDEX, JOB_TRACKING
from kubesvc.api.meta import JSON
from kubesvc.api.registry import JOB
from kubesvc.controllers.job.plan import New
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.templates import pod_tree

_ENV = {
    "name": "JOB_COMPLETION_INDEX",
    "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{JOB_COMPLETION_INDEX}']"}},
}
_LONGEST_PREFIX = 58  # of a name that the server completes


def new_pod(job: Job, new: New) -> JSON:
    labels = {} if new.index is None else {JOB_COMPLETION_INDEX: str(new.index)}
    tree = pod_tree(job.spec.template, job, reference_to(JOB, job), labels=labels)
    meta = tree["metadata"]
    meta["finalizers"] = [*(f for f in meta.get("finalizers", ()) if f != JOB_TRACKING), JOB_TRACKING]
    if new.index is None:
        return tree
    end = f"-{new.index}-"
    meta["generateName"] = job.name[: _LONGEST_PREFIX - len(end)] + end
    meta["annotations"] = meta.get("annotations", {}) | labels | new.annotations
    spec = {**tree["spec"], "hostname": f"{job.name}-{new.index}"}
    for group in ("initContainers", "containers"):
        if spec.get(group):
            spec[group] = [_told(container) for container in spec[group]]
    return tree | {"spec": spec}


def _told(container: JSON) -> JSON:
    """`container` with its index, unless it has a variable of that name."""
    env = container.get("env") or []
    return container if any(v.get("name") == _ENV["name"] for v in env) else container | {"env": [*env, _ENV]}
