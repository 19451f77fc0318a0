"""Affinity and anti-affinity between pods: near or away from pods that labels mean, a topology key says how near. Pure.

Follows the interpodaffinity plugin: a pod that nothing matches yet but that matches itself is let in, so that the first
of a group has a place; who runs with a required anti-affinity keeps newcomers away too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubesvc.api.pods import Pod, PodAffinity, PodAffinityTerm
from kubesvc.api.selectors import Requirement, from_label_selector, matches
from kubesvc.controllers.scheduler.snapshot import Candidate, Namespaces

AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"

Domain = tuple[str, str]  # topology key, value


def _affinity(pod: Pod) -> PodAffinity:
    return (pod.spec.affinity.pod_affinity if pod.spec.affinity else None) or PodAffinity()


def _anti_affinity(pod: Pod) -> PodAffinity:
    return (pod.spec.affinity.pod_anti_affinity if pod.spec.affinity else None) or PodAffinity()


def repels(pod: Pod) -> bool:
    """Whether a running pod keeps others away."""
    return bool(_anti_affinity(pod).required_during_scheduling_ignored_during_execution)


def looks(pod: Pod) -> bool:
    """Whether other pods matter to where this one goes."""
    found = (_affinity(pod), _anti_affinity(pod))
    return any(
        a.required_during_scheduling_ignored_during_execution or a.preferred_during_scheduling_ignored_during_execution
        for a in found
    )


def means(term: PodAffinityTerm, owner: Pod, other: Pod, namespaces: Namespaces) -> bool:
    """Whether `owner`'s term means `other`."""
    return _in_namespace(term, owner, other, namespaces) and _labelled(term, owner, other)


def _in_namespace(term: PodAffinityTerm, owner: Pod, other: Pod, namespaces: Namespaces) -> bool:
    if not term.namespaces and term.namespace_selector is None:
        return other.namespace == owner.namespace
    if other.namespace in term.namespaces:
        return True
    selector = term.namespace_selector
    return selector is not None and matches(from_label_selector(selector), namespaces.get(other.namespace, {}))


def _labelled(term: PodAffinityTerm, owner: Pod, other: Pod) -> bool:
    if term.label_selector is None:
        return False
    labels = owner.metadata.labels
    more = tuple(
        Requirement(key, operator, frozenset([labels[key]]))
        for keys, operator in ((term.match_label_keys, "in"), (term.mismatch_label_keys, "notin"))
        for key in keys
        if key in labels
    )
    return matches((*from_label_selector(term.label_selector), *more), other.metadata.labels)


class PodRules:
    """The rules for placing one pod, with what they come to on the nodes there are."""

    def __init__(self, pod: Pod, candidates: Sequence[Candidate], namespaces: Namespaces) -> None:
        self._required = _affinity(pod).required_during_scheduling_ignored_during_execution
        self._away = _anti_affinity(pod).required_during_scheduling_ignored_during_execution
        self._near: set[Domain] = set()  # where pods are that all required terms mean
        self._shunned: set[Domain] = set()  # where pods are that an anti-affinity term means
        self._forbidden: set[Domain] = set()  # where pods are that keep this one away
        self._wishes: dict[Domain, int] = {}
        wishes = _wishes(pod)
        for candidate in candidates:
            labels = candidate.node.metadata.labels
            for other in candidate.there:
                if self._required and all(means(term, pod, other, namespaces) for term in self._required):
                    self._near |= _domains(self._required, labels)
                shunned = [term for term in self._away if means(term, pod, other, namespaces)]
                self._shunned |= _domains(shunned, labels)
                theirs = _anti_affinity(other).required_during_scheduling_ignored_during_execution
                self._forbidden |= _domains((t for t in theirs if means(t, other, pod, namespaces)), labels)
                for term, weight in wishes:
                    if means(term, pod, other, namespaces):
                        for domain in _domains((term,), labels):
                            self._wishes[domain] = self._wishes.get(domain, 0) + weight
        self._first = bool(self._required) and not self._near
        self._first = self._first and all(means(term, pod, pod, namespaces) for term in self._required)

    def refusal(self, candidate: Candidate) -> str:
        labels = candidate.node.metadata.labels
        for term in self._required:
            value = labels.get(term.topology_key)
            if value is None or not (self._first or (term.topology_key, value) in self._near):
                return AFFINITY
        if self._shunned & _domains(self._away, labels):
            return ANTI_AFFINITY
        return EXISTING if any(labels.get(key) == value for key, value in self._forbidden) else ""

    def preference(self, candidate: Candidate) -> int:
        """The weights of the wishes that the node fulfils, once for each pod; wishes to be away count against it."""
        labels = candidate.node.metadata.labels
        return sum(weight for (key, value), weight in self._wishes.items() if labels.get(key) == value)


def _wishes(pod: Pod) -> list[tuple[PodAffinityTerm, int]]:
    near = _affinity(pod).preferred_during_scheduling_ignored_during_execution
    away = _anti_affinity(pod).preferred_during_scheduling_ignored_during_execution
    return [*((t.pod_affinity_term, t.weight) for t in near), *((t.pod_affinity_term, -t.weight) for t in away)]


def _domains(terms: Iterable[PodAffinityTerm], labels: dict[str, str]) -> set[Domain]:
    return {(t.topology_key, labels[t.topology_key]) for t in terms if t.topology_key in labels}
