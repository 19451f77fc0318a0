"""Whether a node is one the pod asks for: nodeSelector, and node affinity required or preferred. Pure.

Follows component-helpers/scheduling/corev1/nodeaffinity: terms are alternatives, the expressions of one all hold, a
term without any matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from kubesvc.api.meta import LabelSelectorRequirement
from kubesvc.api.nodes import Node
from kubesvc.api.pods import NodeSelector, NodeSelectorTerm, Pod

REASON = "node(s) didn't match Pod's node affinity/selector"


def matches(pod: Pod, node: Node) -> bool:
    """Whether the pod may run there, as far as it says so itself."""
    if not pod.spec.node_selector.items() <= node.metadata.labels.items():
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return required is None or selects(required, node)


def selects(selector: NodeSelector, node: Node) -> bool:
    return any(_term(term, node) for term in selector.node_selector_terms)


def preference(pod: Pod, node: Node) -> int:
    """The weights of the preferred terms that the node fulfils."""
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    preferred = affinity.preferred_during_scheduling_ignored_during_execution if affinity else []
    return sum(term.weight for term in preferred if _term(term.preference, node))


def _term(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    labels, fields = node.metadata.labels, {"metadata.name": node.name}
    return all(_holds(e, labels.get(e.key)) for e in term.match_expressions) and all(
        _holds(e, fields.get(e.key)) for e in term.match_fields
    )


_COMPARED: dict[str, Callable[[int, int], bool]] = {"Gt": int.__gt__, "Lt": int.__lt__}


def _holds(wanted: LabelSelectorRequirement, value: str | None) -> bool:
    match wanted.operator:
        case "In":
            return value is not None and value in wanted.values
        case "NotIn":
            return value is None or value not in wanted.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                return value is not None and _COMPARED[wanted.operator](int(value), int(wanted.values[0]))
            except (ValueError, IndexError):
                return False
    return False
