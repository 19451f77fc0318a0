"""POST of pods/NAME/eviction: a pod asked to leave, as `kubectl drain` does, unless its disruption budget holds it.

    the pod's budget ──allows one──► it is counted in disruptedPods ──► DisruptionTarget, deletion
                     ──allows none─► 429, to be asked again

A pod that isn't ready may go as long as its budget has enough without it. Source: pkg/registry/core/pod/storage.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from kubesvc.api.endpoints import pod_is_ready
from kubesvc.api.errors import BadRequest, Conflict, Forbidden, InternalError, TooManyRequests
from kubesvc.api.meta import JSON, LabelSelector
from kubesvc.api.pods import Pod
from kubesvc.api.policy import DISRUPTION_ALLOWED, SYNC_FAILED, PodDisruptionBudget, disrupted
from kubesvc.api.registry import POD_DISRUPTION_BUDGET, Kind
from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.apiserver import body, encode, fields, stored
from kubesvc.apiserver.body import DeleteOptions, Preconditions
from kubesvc.apiserver.delete import remove
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import modify
from kubesvc.apiserver.webhooks import asking
from kubesvc.apiserver.writing import ATTEMPTS
from kubesvc.client.transport import Request, Response

EVICTION = Kind("policy", "v1", "Eviction", "evictions", "eviction", True)
MOST_DISRUPTED = 2000  # evictions granted that nobody has seen yet


async def create(state: State, request: Request, target: Target) -> Response:
    """201 and a Status. Raises NotFound, Conflict (preconditions), BadRequest, TooManyRequests (the budget)."""
    options = body.write_options(request)
    eviction = body.parse(request)
    body.check_shape(EVICTION, eviction)
    fields.refuse_mistyped(EVICTION, eviction)
    name = eviction["metadata"].get("name") or target.name
    if name != target.name:
        raise BadRequest("name in URL does not match name in Eviction object: BadRequest")
    await state.read(target)
    await asking.submitted(state, target, EVICTION, eviction, dry_run=options.dry_run)
    wanted = eviction.get("deleteOptions") or {}
    if options.dry_run:
        wanted = {**wanted, "dryRun": ["All"]}
    await _evict(state, Target(target.kind, target.namespace, target.name), body.convert_delete_options(wanted))
    return encode.success(status=201)


async def _evict(state: State, target: Target, options: DeleteOptions) -> None:
    for _ in range(ATTEMPTS):
        found = await state.read(target)
        tree = stored.tree_of(found)
        granted = await _granted(state, target, msgspec.convert(tree, Pod), dry_run=bool(options.dry_run))
        tied = options
        if not granted and not options.preconditions.resource_version:  # it goes as it was seen, or is looked at again
            seen = Preconditions(uid=options.preconditions.uid, resource_version=tree["metadata"]["resourceVersion"])
            tied = replace(options, preconditions=seen)
        try:
            await remove(state, target, tied, asked=True, going=lambda pod: _mark(state, pod))
            return
        except Conflict:
            if tied is options or (await state.read(target)).revision == found.revision:
                raise
    raise TooManyRequests(f'pod "{target.name}" changes too often to be evicted; try again', retry_after=1)


def _mark(state: State, pod: JSON) -> None:
    """The condition that says why the pod goes."""
    status = pod.setdefault("status", {})
    kept = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
    mine = disrupted("EvictionByEvictionAPI", "Eviction API: evicting", state.clock())
    status["conditions"] = [*kept, mine]


async def _granted(state: State, target: Target, pod: Pod, *, dry_run: bool) -> bool:
    """Whether a budget counts the eviction of this pod, now; False where none needs to: the pod is away already.
    Raises TooManyRequests."""
    if pod.status.phase in ("Succeeded", "Failed", "Pending") or pod.metadata.deletion_timestamp:
        return False
    page = await state.store.list(stored.collection(POD_DISRUPTION_BUDGET, target.namespace))
    every = [msgspec.convert(stored.tree_of(item), PodDisruptionBudget) for item in page.items]
    budgets = [b for b in every if b.spec.selector is not None and _means(b.spec.selector, pod)]
    if not budgets:
        return True
    if len(budgets) > 1:
        names = ", ".join(sorted(b.name for b in budgets))
        why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support"
        raise InternalError(f"{why}: {names}. Change their selectors, so that one alone means it")
    (budget,) = budgets
    if not pod_is_ready(pod):
        status = budget.status
        enough = status.current_healthy >= status.desired_healthy > 0
        if enough or budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow":
            return False

    def counted(old: JSON) -> JSON:
        _refuse(msgspec.convert(old, PodDisruptionBudget))
        new = stored.copy(old)
        status = new["status"]
        status["disruptionsAllowed"] -= 1
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod.name: state.now()}
        return new

    of_budget = Target(POD_DISRUPTION_BUDGET, target.namespace, budget.name)
    await modify(state, of_budget, counted, dry_run=dry_run, admitted=False)
    return True


def _means(selector: LabelSelector, pod: Pod) -> bool:
    return matches(from_label_selector(selector), pod.metadata.labels)


def _refuse(budget: PodDisruptionBudget) -> None:
    """Raise where the budget lets nobody go now."""
    status, name = budget.status, budget.name
    if status.observed_generation < budget.metadata.generation:
        raise _held(f"The disruption budget {name} is still being processed by the server.", retry_after=10)
    if status.disruptions_allowed < 0 or len(status.disrupted_pods) > MOST_DISRUPTED:
        many = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        why = "pdb disruptions allowed is negative" if status.disruptions_allowed < 0 else many
        raise Forbidden(f'poddisruptionbudget.policy "{name}" is forbidden: {why}')
    if status.disruptions_allowed > 0:
        return
    unknown = next((c for c in status.conditions if c.type == DISRUPTION_ALLOWED and c.reason == SYNC_FAILED), None)
    if unknown is not None and unknown.message:
        raise _held(
            f"The disruption budget {name} does not allow evicting pods currently because it failed sync: "
            f"{unknown.message}"
        )
    raise _held(
        f"The disruption budget {name} needs {status.desired_healthy} healthy pods and has {status.current_healthy} "
        "currently"
    )


def _held(why: str, retry_after: int | None = None) -> TooManyRequests:
    return TooManyRequests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        details={"causes": [{"reason": "DisruptionBudget", "message": why}]},
        retry_after=retry_after,
    )
