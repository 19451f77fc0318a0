"""Carries out Jobs: makes their pods, counts how they ended, and removes finished Jobs when their time is over.

A Job that names another manager is left alone. Pods that a Job no longer there still holds are let go of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from kubesvc.api.batch import Job
from kubesvc.api.errors import ApiError, Conflict
from kubesvc.api.labels import JOB_TRACKING
from kubesvc.api.meta import Condition
from kubesvc.api.pods import Pod
from kubesvc.api.registry import JOB, POD
from kubesvc.api.selectors import from_label_selector
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import STRATEGIC_PATCH
from kubesvc.controllers.context import Context
from kubesvc.controllers.job.backoff import NONE, Failures
from kubesvc.controllers.job.plan import Plan, ended, expires_in, plan, status_patch
from kubesvc.controllers.job.template import new_pod
from kubesvc.controllers.job.tracking import is_held
from kubesvc.controllers.ownership import controller_of
from kubesvc.controllers.podcontrol import Key, PodControl
from kubesvc.controllers.writer import namespace_is_ending, together

COMPONENT = "job-controller"


class JobController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = context.caches.jobs
        self._failures: dict[str, Failures] = {}  # a Job's uid -> what its next look remembers
        self._pods = PodControl(
            context,
            JOB,
            COMPONENT,
            self._jobs,
            lambda job: from_label_selector(job.spec.selector),
            finalizer=JOB_TRACKING,
        )
        self._orphans: WorkQueue[Key] = WorkQueue("job-orphans")
        self._jobs.on_change(self._job_changed)
        context.caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        workers = self._context.config.workers
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.queue.run(self.reconcile, workers=workers))
            group.create_task(self._orphans.run(self._let_go, workers=workers))

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._failures.pop(old.metadata.uid, None)
            for pod in self._pods.owned(old):
                self._orphans.add(pod.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and is_held(new):
            self._orphans.add(new.key)

    async def reconcile(self, key: Key) -> None:
        job: Job | None = self._jobs.items.get(key)
        if job is None:
            return
        end = ended(job.status)
        if end is not None:
            await self._expire(job, end)
        elif job.is_ours:
            await self._carry_on(job)

    async def _expire(self, job: Job, end: Condition) -> None:
        """Nothing changes any more; ttlSecondsAfterFinished later it goes, with its pods. Another's Job too."""
        self._failures.pop(job.metadata.uid, None)
        left = expires_in(job, end, self._context.now())
        if left is not None and left <= 0:
            await self._context.writer.delete(JOB, job, propagation="Foreground")
        elif left is not None:
            self._pods.queue.add_after(job.key, left)

    async def _carry_on(self, job: Job) -> None:
        pods: list[Pod] = await self._pods.claim(job)
        uid = job.metadata.uid
        decided = plan(job, pods, self._context.now(), self._failures.get(uid, NONE))
        self._failures[uid] = decided.failures
        try:
            await self._apply(job, decided)
        except ApiError as error:
            if not namespace_is_ending(error):
                raise
        if decided.again is not None:
            self._pods.queue.add_after(job.key, decided.again)

    async def _apply(self, job: Job, decided: Plan) -> None:
        """The status first: what it doesn't say of a pod is lost once the pod is let go of."""
        if decided.status != job.status:
            await self._context.writer.patch(JOB, job, status_patch(decided.status), subresource="status")
        for type_, reason, message in decided.happened:
            self._pods.say(job, reason, message, warning=type_ == "Warning")
        await self._release(decided.drop)
        await self._pods.delete(job, (*decided.drop, *decided.delete))
        await self._release(decided.free)
        await self._pods.create(job, [new_pod(job, new) for new in decided.create])

    async def _release(self, pods: Iterable[Pod]) -> None:
        """Take the finalizer away; a pod that is gone needs none."""

        async def one(pod: Pod) -> None:
            meta = {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [JOB_TRACKING]}
            try:
                await self._context.writer.patch(POD, pod, {"metadata": meta}, patch_type=STRATEGIC_PATCH)
            except Conflict:
                pass

        await together(one(pod) for pod in pods if is_held(pod))

    async def _let_go(self, key: Key) -> None:
        """A held pod that no Job counts: its Job is gone, or over, or nobody controls it any more."""
        pod: Pod | None = self._context.caches.pods.items.get(key)
        if pod is None or not is_held(pod):
            return
        owner = controller_of(pod)
        if owner is not None:
            if owner.kind != JOB.kind or owner.api_version != JOB.api_version:
                return
            job: Job | None = self._jobs.items.get((pod.namespace, owner.name))
            if job is not None and job.metadata.uid == owner.uid and (not job.is_ours or ended(job.status) is None):
                return
        await self._release([pod])
