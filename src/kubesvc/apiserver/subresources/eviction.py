"""POST of pods/NAME/eviction: a pod asked to leave, as `kubectl drain` does.

No disruption budget holds a pod back, because nothing here keeps their count; one that means the pod is warned of. The
pod's condition DisruptionTarget says why it goes, as a Job's failure policy may ask.
Follows pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import JSON, LabelSelector, format_time
from kubesvc.api.registry import POD_DISRUPTION_BUDGET, Kind
from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.apiserver import body, encode, fields, stored
from kubesvc.apiserver.delete import remove
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.webhooks import asking
from kubesvc.client.transport import Request, Response

EVICTION = Kind("policy", "v1", "Eviction", "evictions", "eviction", True)


async def create(state: State, request: Request, target: Target) -> Response:
    """201 and a Status. Raises NotFound, Conflict (preconditions), BadRequest."""
    options = body.write_options(request)
    eviction = body.parse(request)
    body.check_shape(EVICTION, eviction)
    fields.refuse_mistyped(EVICTION, eviction)
    name = eviction["metadata"].get("name") or target.name
    if name != target.name:
        raise BadRequest("name in URL does not match name in Eviction object: BadRequest")
    pod = stored.tree_of(await state.read(target))
    await asking.submitted(state, target, EVICTION, eviction, dry_run=options.dry_run)
    wanted = eviction.get("deleteOptions") or {}
    if options.dry_run:
        wanted = {**wanted, "dryRun": ["All"]}
    warn(await _budgets(state, target, pod))
    whole = Target(target.kind, target.namespace, target.name)
    now = format_time(state.clock())
    await remove(
        state, whole, body.convert_delete_options(wanted), asked=True, explain=lambda tree: _explain(tree, now)
    )
    return encode.success(status=201)


def _explain(tree: JSON, now: str) -> None:
    conditions = tree.setdefault("status", {}).setdefault("conditions", [])
    found = next((c for c in conditions if c.get("type") == "DisruptionTarget"), None)
    if found is None:
        found = {"type": "DisruptionTarget"}
        conditions.append(found)
    if found.get("status") != "True":
        found["lastTransitionTime"] = now
    found |= {"status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}


async def _budgets(state: State, target: Target, pod: JSON) -> list[str]:
    """A warning for each budget that means `pod`: here none is kept."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    page = await state.store.list(stored.collection(POD_DISRUPTION_BUDGET, target.namespace))
    labels = pod["metadata"].get("labels") or {}
    found = []
    for item in page.items:
        selector = (stored.tree_of(item).get("spec") or {}).get("selector")
        if selector is not None and matches(from_label_selector(msgspec.convert(selector, LabelSelector)), labels):
            name = stored.name_of(item.key)[1]
            found.append(f'PodDisruptionBudget "{name}" is stored, but nothing in this cluster acts on it')
    return found
