"""Topology spread constraints: how evenly pods that labels mean lie over the values of a node label. Pure.

Follows the podtopologyspread plugin. A domain's count is of the nodes that the pod could be on as far as its own node
affinity goes (nodeAffinityPolicy), and its tolerations (nodeTaintsPolicy), where the constraint honours them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.api.pods import Pod, TopologySpreadConstraint
from kubesvc.api.selectors import Requirement, from_label_selector, matches
from kubesvc.controllers.scheduler import nodeaffinity, taints
from kubesvc.controllers.scheduler.snapshot import Candidate

SKEW = "node(s) didn't match pod topology spread constraints"
MISSING = f"{SKEW} (missing required label)"


class _Counted:
    """One constraint, and its domains' counts: value -> pods."""

    def __init__(self, constraint: TopologySpreadConstraint, pod: Pod, candidates: Sequence[Candidate]) -> None:
        self.constraint = constraint
        self.domains: dict[str, int] = {}
        for candidate in candidates:
            value = candidate.node.metadata.labels.get(constraint.topology_key)
            if value is None or not _counts(constraint, pod, candidate):
                continue
            here = sum(1 for other in candidate.there if _means(constraint, pod, other))
            self.domains[value] = self.domains.get(value, 0) + here
        self.itself = int(_means(constraint, pod, pod))
        enough = len(self.domains) >= (constraint.min_domains or 1)
        self.least = min(self.domains.values(), default=0) if enough else 0

    def skew(self, value: str) -> int:
        """What the skew would be with the pod there."""
        return self.domains.get(value, 0) + self.itself - self.least


def _means(constraint: TopologySpreadConstraint, pod: Pod, other: Pod) -> bool:
    if constraint.label_selector is None or other.namespace != pod.namespace or other.metadata.deletion_timestamp:
        return False
    labels = pod.metadata.labels
    more = (Requirement(k, "in", frozenset([labels[k]])) for k in constraint.match_label_keys if k in labels)
    return matches((*from_label_selector(constraint.label_selector), *more), other.metadata.labels)


def _counts(constraint: TopologySpreadConstraint, pod: Pod, candidate: Candidate) -> bool:
    if constraint.node_affinity_policy == "Honor" and not nodeaffinity.matches(pod, candidate.node):
        return False
    return constraint.node_taints_policy != "Honor" or not taints.refusal(pod, candidate.node)


class Spread:
    """The constraints of one pod on the nodes there are."""

    def __init__(self, pod: Pod, candidates: Sequence[Candidate]) -> None:
        wanted = pod.spec.topology_spread_constraints
        hard = [c for c in wanted if c.when_unsatisfiable == "DoNotSchedule"]
        keys = {c.topology_key for c in hard}
        whole = [c for c in candidates if keys <= c.node.metadata.labels.keys()]
        self._hard = [_Counted(c, pod, whole) for c in hard]
        self._soft = [_Counted(c, pod, candidates) for c in wanted if c.when_unsatisfiable == "ScheduleAnyway"]

    def refusal(self, candidate: Candidate) -> str:
        labels = candidate.node.metadata.labels
        for counted in self._hard:
            value = labels.get(counted.constraint.topology_key)
            if value is None:
                return MISSING
            if counted.skew(value) > counted.constraint.max_skew:
                return SKEW
        return ""

    def cost(self, candidate: Candidate) -> int:
        """How crowded the node's domains are, by the constraints that only wish; without the label, most of all."""
        labels = candidate.node.metadata.labels
        total = 0
        for counted in self._soft:
            value = labels.get(counted.constraint.topology_key)
            total += max(counted.domains.values(), default=0) + 1 if value is None else counted.domains.get(value, 0)
        return total
