"""The rules of Namespace and Node.

Source: pkg/registry/core/{namespace,node}/strategy.go, pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from ipaddress import ip_network

from kubesvc.api import labels, names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import duplicate, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules, keep_status

_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def default_namespace(tree: JSON) -> None:
    """Every namespace carries its own name as a label, so that selectors can find it."""
    if name := tree["metadata"].get("name"):
        tree["metadata"]["labels"] = {**(tree["metadata"].get("labels") or {}), labels.METADATA_NAME: name}


def prepare_namespace(new: JSON, old: JSON | None, context: Context) -> None:
    """The finalizers in the spec change through /finalize alone."""
    if old is None:
        new["status"] = {"phase": "Active"}
        finalizers = (new.get("spec") or {}).get("finalizers") or []
        new["spec"] = {"finalizers": finalizers if "kubernetes" in finalizers else [*finalizers, "kubernetes"]}
    elif context.subresource == "finalize":
        new["status"] = old.get("status") or {}
    else:
        keep_status(new, old, context)
        new["spec"] = old.get("spec") or {}


def prepare_node(new: JSON, old: JSON | None, context: Context) -> None:
    """A node registers with its status. podCIDR and podCIDRs say the same."""
    if old is not None:
        keep_status(new, old, context)
    spec = new.setdefault("spec", {})
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]


def validate_node(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    cidrs = spec.get("podCIDRs") or []
    causes = [
        invalid(f"spec.podCIDRs[{index}]", text, why) for index, text in enumerate(cidrs) for why in names.network(text)
    ]
    if len(cidrs) > 2:
        causes.append(invalid("spec.podCIDRs", cidrs, "may specify no more than one CIDR for each IP family"))
    elif len(cidrs) == 2 and not causes:
        first, second = (ip_network(c, strict=False) for c in cidrs)
        if first.version == second.version:
            causes.append(invalid("spec.podCIDRs", cidrs, "may specify no more than one CIDR for each IP family"))
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        path = f"spec.taints[{index}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        causes += [invalid(f"{path}.key", key, why) for why in names.qualified_name(key)]
        causes += [invalid(f"{path}.value", taint["value"], w) for w in names.label_value(taint.get("value") or "")]
        if not effect:
            causes.append(required(f"{path}.effect"))
        elif effect not in _EFFECTS:
            causes.append(not_supported(f"{path}.effect", effect, _EFFECTS))
        if (key, effect) in seen:
            causes.append(duplicate(path, taint))
        seen.add((key, effect))
    before = ((old or {}).get("spec") or {}).get("podCIDRs") or []
    if before and cidrs != before:
        causes.append(forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid'))
    return causes


NAMESPACE = Rules(default=default_namespace, prepare=prepare_namespace, name=names.label)
NODE = Rules(prepare=prepare_node, validate=validate_node)
ADMITS = (
    (registry.NAMESPACE, NAMESPACE),
    (registry.NODE, NODE),
)
