"""Keeps in each PodDisruptionBudget how many of its pods may be evicted; the API server grants evictions by that."""

from __future__ import annotations

from typing import Any

import msgspec

from kubesvc.api.endpoints import pod_is_ready
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import Object, OwnerReference
from kubesvc.api.pods import Pod
from kubesvc.api.policy import PodDisruptionBudget, PodDisruptionBudgetStatus
from kubesvc.api.registry import DEPLOYMENT, POD, POD_DISRUPTION_BUDGET, REPLICA_SET, by_kind
from kubesvc.api.selectors import Selector, from_label_selector, matches
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.disruption.plan import failed, is_of_scale, plan, status_patch
from kubesvc.controllers.ownership import controller_of

Key = tuple[str, str]
COMPONENT = "controllermanager"
AGAIN = 2.0  # seconds after which a scale that nobody knew is asked for once more


class NoScale(Exception):
    """It can't be known how many pods there should be."""


class DisruptionController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._selectors: dict[str, dict[str, Selector]] = {}  # namespace -> budget -> its pods
        self.queue: WorkQueue[Key] = WorkQueue("disruption")
        self._caches.budgets.on_change(self._budget_changed)
        self._caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _budget_changed(self, old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        if old is not None:
            in_namespace = self._selectors.get(old.namespace, {})
            in_namespace.pop(old.name, None)
            if not in_namespace:
                self._selectors.pop(old.namespace, None)
        if new is not None:
            if new.spec.selector is not None:
                self._selectors.setdefault(new.namespace, {})[new.name] = from_label_selector(new.spec.selector)
            self.queue.add(new.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None or not (selectors := self._selectors.get(pod.namespace)) or _facts(old) == _facts(new):
            return
        for name, selector in selectors.items():
            if any(p is not None and matches(selector, p.metadata.labels) for p in (old, new)):
                self.queue.add((pod.namespace, name))

    async def reconcile(self, key: Key) -> None:
        budget: PodDisruptionBudget | None = self._caches.budgets.items.get(key)
        if budget is None:
            return
        pods = self._pods(budget)
        if not pods:
            self._say(budget, "Normal", "NoPods", "No matching pods found")
        try:
            scale = await self._scale(budget, pods) if is_of_scale(budget.spec) else 0
        except NoScale as error:
            status = failed(budget, str(error), self._context.now())
            if status != budget.status:
                self._say(budget, "Warning", "CalculateExpectedPodCountFailed", str(error))
            await self._write(budget, status)
            self.queue.add_after(key, AGAIN)
            return
        decided = plan(budget, pods, scale, self._context.now())
        for pod in decided.overdue:
            text = f"Pod was expected by PDB {budget.namespace}/{budget.name} to be deleted but it wasn't"
            self._context.recorder.record(COMPONENT, POD, pod, "Warning", "NotDeleted", text)
        await self._write(budget, decided.status)
        if decided.again is not None:
            self.queue.add_after(key, decided.again + 0.1)

    def _pods(self, budget: PodDisruptionBudget) -> list[Pod]:
        selector = self._selectors.get(budget.namespace, {}).get(budget.name)
        if selector is None or budget.spec.selector is None:
            return []
        equal = [(budget.namespace, *pair) for pair in budget.spec.selector.match_labels.items()]
        pods = self._caches.pods
        candidates = pods.by_index("label", equal[0]) if equal else pods.items.values()
        return [p for p in candidates if p.namespace == budget.namespace and matches(selector, p.metadata.labels)]

    async def _scale(self, budget: PodDisruptionBudget, pods: list[Pod]) -> int:
        """How many pods the controllers of `pods` want in all. Raises NoScale."""
        alone = sorted(p.name for p in pods if controller_of(p) is None)
        if alone:
            text = f"nothing controls {', '.join(alone[:5])}{', …' if len(alone) > 5 else ''}: only spec.minAvailable"
            self._say(budget, "Warning", "UnmanagedPods", f"{text} as a number counts pods without a controller")
        controllers = {(p.namespace, c.uid): c for p in pods if (c := controller_of(p)) is not None}
        wanted = [await self._scale_of(namespace, c) for (namespace, _), c in controllers.items()]
        return sum(dict(wanted).values())

    async def _scale_of(self, namespace: str, reference: OwnerReference) -> tuple[str, int]:
        """(uid, replicas) of what sets the number; of a ReplicaSet its Deployment. Raises NoScale."""
        kind = self._caches.kind_named(reference.api_version, reference.kind)
        informer = self._caches.for_kind(kind) if kind is not None else None
        owner: Object | None = informer.get(namespace, reference.name) if informer is not None else None
        if kind is None or owner is None or owner.metadata.uid != reference.uid:
            raise NoScale(f"found no controller {reference.kind} {reference.name}")
        above = controller_of(owner)
        if kind is REPLICA_SET and above is not None and above.kind == DEPLOYMENT.kind:
            return await self._scale_of(namespace, above)
        spec: Any = getattr(owner, "spec", None)
        if (replicas := getattr(spec, "replicas", None)) is None:
            if "scale" not in kind.subresources and by_kind(kind.api_version, kind.kind) is kind:
                raise NoScale(f"{kind.resource} does not implement the scale subresource")
            replicas = await self._asked(kind.path(namespace, reference.name, "scale"))
        return reference.uid, replicas

    async def _asked(self, path: str) -> int:
        """What a custom kind's scale says."""
        try:
            answer = await self._context.session.raw("GET", path)
        except ApiError as error:
            raise NoScale(error.message) from error
        return int((msgspec.json.decode(answer.body).get("spec") or {}).get("replicas") or 0)

    def _say(self, budget: PodDisruptionBudget, type_: str, reason: str, text: str) -> None:
        self._context.recorder.record(COMPONENT, POD_DISRUPTION_BUDGET, budget, type_, reason, text)

    async def _write(self, budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> None:
        """Raises Conflict where an eviction was granted meanwhile: that must not be forgotten."""
        if status == budget.status:
            return
        patch = {"metadata": {"resourceVersion": budget.metadata.resource_version}, **status_patch(budget, status)}
        await self._context.writer.patch(POD_DISRUPTION_BUDGET, budget, patch, subresource="status")


def _facts(pod: Pod | None) -> object:
    """What a budget asks about a pod."""
    if pod is None:
        return None
    return pod.metadata.labels, pod_is_ready(pod), pod.metadata.deletion_timestamp, pod.metadata.uid
