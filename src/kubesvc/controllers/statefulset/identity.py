"""Who the pods of a StatefulSet are: NAME-ORDINAL, that host name, and claims of their own. Pure."""

from __future__ import annotations

from kubesvc.api.apps import StatefulSet
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import STATEFUL_SET
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.templates import pod_tree

REVISION = "controller-revision-hash"  # a pod's label: the name of its ControllerRevision
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def ordinal_of(sts: StatefulSet, name: str) -> int | None:
    """The number of a pod's name, None when the name isn't one of this StatefulSet's."""
    parent, _, number = name.rpartition("-")
    if parent != sts.name or not number.isdigit() or (number != "0" and number.startswith("0")):
        return None
    return int(number)


def revision_of(pod: Pod) -> str:
    return pod.metadata.labels.get(REVISION, "")


def pod_name(sts: StatefulSet, ordinal: int) -> str:
    return f"{sts.name}-{ordinal}"


def is_wanted(sts: StatefulSet, ordinal: int) -> bool:
    """Whether the set still has a pod of that number."""
    return sts.spec.ordinals.start <= ordinal < sts.spec.ordinals.start + sts.spec.replicas


def claim_names(sts: StatefulSet, ordinal: int) -> list[str]:
    return [f"{_template_name(t)}-{pod_name(sts, ordinal)}" for t in sts.spec.volume_claim_templates]


def is_of_a_claim(sts: StatefulSet, name: str) -> bool:
    """Whether a claim of one of its pods has the name."""
    starts = (f"{_template_name(t)}-" for t in sts.spec.volume_claim_templates)
    return any(name.startswith(s) and ordinal_of(sts, name.removeprefix(s)) is not None for s in starts)


def _template_name(template: JSON) -> str:
    name: str = (template.get("metadata") or {}).get("name", "")
    return name


def claim_trees(sts: StatefulSet, ordinal: int) -> list[JSON]:
    """The PersistentVolumeClaims of one pod. Whom they belong to retention.py says."""
    found = []
    for template in sts.spec.volume_claim_templates:
        meta = template.get("metadata") or {}
        labels = (meta.get("labels") or {}) | sts.spec.selector.match_labels
        name = f"{_template_name(template)}-{pod_name(sts, ordinal)}"
        meta = meta | {"name": name, "namespace": sts.namespace, "labels": labels}
        found.append({"metadata": meta, "spec": template.get("spec") or {}})
    return found


def new_pod(sts: StatefulSet, ordinal: int, template: JSON, revision: str) -> JSON:
    """The pod of an ordinal, of the template of a revision."""
    name = pod_name(sts, ordinal)
    labels = {REVISION: revision, POD_NAME: name, POD_INDEX: str(ordinal)}
    tree = pod_tree(template, sts, reference_to(STATEFUL_SET, sts), name=name, labels=labels)
    names = [_template_name(t) for t in sts.spec.volume_claim_templates]
    claimed = [{"name": n, "persistentVolumeClaim": {"claimName": f"{n}-{name}"}} for n in names]
    volumes = [v for v in tree["spec"].get("volumes") or () if v.get("name") not in names] + claimed
    tree["spec"] = {**tree["spec"], "hostname": name, "subdomain": sts.spec.service_name}
    if volumes:
        tree["spec"]["volumes"] = volumes
    return tree
