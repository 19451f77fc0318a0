"""Carries out StatefulSets: one step a pass, the next when a pod has followed.

A pod's claims are there before it is, and are made again for one that waits for them; whom they belong to is put right
before any pod goes.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.apps import ControllerRevision, StatefulSet
from kubesvc.api.errors import AlreadyExists, ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET, Kind
from kubesvc.api.selectors import from_label_selector
from kubesvc.api.storage import PersistentVolumeClaim
from kubesvc.controllers import revisions
from kubesvc.controllers.context import Context
from kubesvc.controllers.history import History
from kubesvc.controllers.podcontrol import Key, PodControl
from kubesvc.controllers.statefulset import identity, retention
from kubesvc.controllers.statefulset.plan import Plan, plan, status_patch
from kubesvc.controllers.writer import namespace_is_ending

COMPONENT = "statefulset-controller"


class StatefulSetController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.caches.stateful_sets
        self._pods = PodControl(
            context, STATEFUL_SET, COMPONENT, self._sets, lambda sts: from_label_selector(sts.spec.selector)
        )
        self._history = History(context, STATEFUL_SET)
        self._claims = context.caches.claims
        self._claims.on_change(self._claim_changed)

    async def run(self) -> None:
        await self._pods.queue.run(self.reconcile, workers=self._context.config.workers)

    def _claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """One that is gone, or belongs to somebody else than it did."""
        if old is None or (new is not None and old.metadata.owner_references == new.metadata.owner_references):
            return
        for sts in self._sets.by_index("namespace", old.namespace):
            if identity.is_of_a_claim(sts, old.name):
                self._pods.queue.add(sts.key)

    async def reconcile(self, key: Key) -> None:
        sts: StatefulSet | None = self._sets.items.get(key)
        if sts is None:
            return
        pods = await self._pods.claim(sts, lambda pod: identity.ordinal_of(sts, pod.name) is not None)
        if sts.metadata.deletion_timestamp is not None:
            return
        try:
            selector = from_label_selector(sts.spec.selector)
            update = await self._history.newest(sts, selector, sts.spec.template, sts.status.collision_count)
            if update is None:
                await self._count_collision(sts)
                return
            current = self._current(sts, update)
            decided = plan(sts, pods, current.name, update.name, self._context.now())
            if decided.status != sts.status:
                patch = status_patch(decided.status)
                await self._context.writer.patch(STATEFUL_SET, sts, patch, subresource="status")
            await self._keep_claims(sts, pods)
            await self._carry_out(sts, decided, current, update)
        except ApiError as error:
            if namespace_is_ending(error):
                return
            raise
        in_use = {current.name, update.name, decided.status.current_revision, *map(identity.revision_of, pods)}
        await self._history.prune(sts, in_use, sts.spec.revision_history_limit)
        if decided.again is not None:
            self._pods.queue.add_after(key, decided.again)

    def _current(self, sts: StatefulSet, update: ControllerRevision) -> ControllerRevision:
        """The revision that pods below the partition have; the update's while no other is known."""
        name = sts.status.current_revision
        return next((r for r in self._history.of(sts) if r.name == name), update)

    async def _count_collision(self, sts: StatefulSet) -> None:
        counted = msgspec.structs.replace(sts.status, collision_count=sts.status.collision_count + 1)
        await self._context.writer.patch(STATEFUL_SET, sts, status_patch(counted), subresource="status")

    async def _keep_claims(self, sts: StatefulSet, pods: list[Pod]) -> None:
        """Make those that a pod misses which hasn't begun, and have each belong to whom it should."""
        for pod in pods if sts.spec.volume_claim_templates else []:
            ordinal = identity.ordinal_of(sts, pod.name)
            if ordinal is None:
                continue
            condemned = not identity.is_wanted(sts, ordinal)
            if pod.status.phase == "Pending" and not condemned and pod.metadata.deletion_timestamp is None:
                await self._make_claims(sts, ordinal)
            for name in identity.claim_names(sts, ordinal):
                claim = self._claims.get(sts.namespace, name)
                if claim is not None:
                    await self._keep_owners(sts, pod, claim, condemned)

    async def _keep_owners(self, sts: StatefulSet, pod: Pod, claim: PersistentVolumeClaim, condemned: bool) -> None:
        if retention.has_other_controller(sts, pod, claim):
            what = f"PersistentVolumeClaim {claim.name} has a conflicting OwnerReference"
            text = f"{what} that acts as a managing controller, the retention policy is ignored for this claim"
            self._pods.say(sts, "ConflictingController", text, warning=True)
        wanted = retention.adjusted(sts, pod, claim, condemned)
        if wanted is not None:
            meta = {"resourceVersion": claim.metadata.resource_version, "ownerReferences": wanted or None}
            await self._context.writer.patch(PERSISTENT_VOLUME_CLAIM, claim, {"metadata": meta})

    async def _make_claims(self, sts: StatefulSet, ordinal: int) -> None:
        belongs = retention.owners(sts, None, False)
        for claim in identity.claim_trees(sts, ordinal):
            if self._claims.get(sts.namespace, claim["metadata"]["name"]) is None:
                if belongs:
                    claim["metadata"]["ownerReferences"] = belongs
                await self._create(sts, PERSISTENT_VOLUME_CLAIM, claim, ordinal, once=True)

    def _waits_for_claims(self, sts: StatefulSet, ordinal: int) -> bool:
        """Whether claims of a pod that is gone are still to go."""
        name = identity.pod_name(sts, ordinal)
        claims = (self._claims.get(sts.namespace, claim) for claim in identity.claim_names(sts, ordinal))
        return any(claim is not None and retention.is_going(sts, name, claim) for claim in claims)

    async def _carry_out(
        self, sts: StatefulSet, decided: Plan, current: ControllerRevision, update: ControllerRevision
    ) -> None:
        waiting = {ordinal for ordinal, _ in decided.create if self._waits_for_claims(sts, ordinal)}
        for ordinal, of_update in decided.create:
            if ordinal in waiting:
                continue
            revision = update if of_update else current
            await self._make_claims(sts, ordinal)
            tree = identity.new_pod(sts, ordinal, revisions.template_of(revision), revision.name)
            await self._create(sts, POD, tree, ordinal)
        for pod in decided.delete if not waiting else ():
            await self._delete(sts, pod)

    async def _create(self, sts: StatefulSet, kind: Kind, tree: JSON, ordinal: int, *, once: bool = False) -> None:
        """With `once`, one that is there already is fine."""
        what = "Pod" if kind is POD else "Claim"
        name, pod = tree["metadata"]["name"], identity.pod_name(sts, ordinal)
        text = f"create {what} {name} " + ("" if kind is POD else f"Pod {pod} ") + f"in StatefulSet {sts.name}"
        try:
            await self._context.writer.create(kind, tree)
        except AlreadyExists as error:
            if once:
                return
            self._pods.say(sts, "FailedCreate", f"{text} failed error: {error.message}", warning=True)
            raise
        except ApiError as error:
            if not namespace_is_ending(error):
                self._pods.say(sts, "FailedCreate", f"{text} failed error: {error.message}", warning=True)
            raise
        self._pods.say(sts, "SuccessfulCreate", f"{text} success" if kind is not POD else f"{text} successful")

    async def _delete(self, sts: StatefulSet, pod: Pod) -> None:
        await self._context.writer.delete(POD, pod)
        self._pods.say(sts, "SuccessfulDelete", f"delete Pod {pod.name} in StatefulSet {sts.name} successful")
