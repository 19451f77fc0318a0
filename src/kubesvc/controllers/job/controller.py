"""Carries out Jobs: makes their pods, counts how they ended, and removes finished Jobs when their time is over."""

from __future__ import annotations

from kubesvc.api.batch import Job
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import JOB
from kubesvc.api.selectors import from_label_selector
from kubesvc.controllers.context import Context
from kubesvc.controllers.job.indexes import INDEX
from kubesvc.controllers.job.plan import is_indexed, plan, status_patch
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.podcontrol import Key, PodControl
from kubesvc.controllers.templates import pod_tree
from kubesvc.controllers.writer import namespace_is_ending

COMPONENT = "job-controller"


class JobController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = context.caches.jobs
        self._pods = PodControl(context, JOB, COMPONENT, self._jobs, lambda job: from_label_selector(job.spec.selector))

    async def run(self) -> None:
        await self._pods.queue.run(self.reconcile, workers=self._context.config.workers)

    async def reconcile(self, key: Key) -> None:
        job: Job | None = self._jobs.items.get(key)
        if job is None:
            return
        pods: list[Pod] = await self._pods.claim(job)
        decided = plan(job, pods, self._context.now())
        if decided.remove:
            await self._context.writer.delete(JOB, job, propagation="Foreground")
            return
        try:
            if decided.status != job.status:
                await self._context.writer.patch(JOB, job, status_patch(decided.status), subresource="status")
            for reason, message in decided.happened:
                self._pods.say(job, reason, message, warning=reason.endswith("Exceeded"))
            await self._pods.delete(job, decided.delete)
            await self._pods.create(job, [self._pod(job, index) for index in decided.create])
        except ApiError as error:
            if not namespace_is_ending(error):
                raise
        if decided.again is not None:
            self._pods.queue.add_after(key, decided.again)

    def _pod(self, job: Job, index: int | None) -> JSON:
        reference = reference_to(JOB, job)
        if index is None or not is_indexed(job):
            return pod_tree(job.spec.template, job, reference)
        tree = pod_tree(job.spec.template, job, reference, labels={INDEX: str(index)})
        meta = tree["metadata"]
        meta["generateName"] = f"{job.name}-{index}-"
        meta["annotations"] = meta.get("annotations", {}) | {INDEX: str(index)}
        told = {
            "name": "JOB_COMPLETION_INDEX",
            "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}},
        }
        spec = {**tree["spec"]}
        spec.setdefault("hostname", f"{job.name}-{index}")
        for group in ("initContainers", "containers"):
            if spec.get(group):
                spec[group] = [c | {"env": [*(c.get("env") or ()), told]} for c in spec[group]]
        return tree | {"spec": spec}
