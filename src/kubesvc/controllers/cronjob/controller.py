"""Carries out CronJobs: makes a Job when one is due, follows what becomes of it, and forgets old ones."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kubesvc.api.batch import CronJob, CronJobStatus, Job
from kubesvc.api.errors import AlreadyExists, ApiError
from kubesvc.api.registry import CRON_JOB, JOB
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.cronjob.alarm import Alarm
from kubesvc.controllers.cronjob.plan import Plan, job_tree, plan, started, status_patch, without
from kubesvc.controllers.ownership import controller_of
from kubesvc.controllers.writer import namespace_is_ending

COMPONENT = "cronjob-controller"
Key = tuple[str, str]


class CronJobController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._cron_jobs, self._jobs = context.caches.cron_jobs, context.caches.jobs
        self._queue: WorkQueue[Key] = WorkQueue("cronjob")
        self._alarm: Alarm[Key] = Alarm(context.now, self._queue.add)
        self._held: dict[Key, datetime] = {}  # since when the schedule is what it is, if it was changed
        self._cron_jobs.on_change(self._changed)
        self._jobs.on_change(self._job_changed)

    async def run(self) -> None:
        await self._queue.run(self.reconcile, workers=self._context.config.workers)

    def _changed(self, old: CronJob | None, new: CronJob | None) -> None:
        if old is not None and new is not None:
            before, after = old.spec, new.spec
            if (before.schedule, before.time_zone) != (after.schedule, after.time_zone):
                self._held[new.key] = self._context.now()
        for cron_job in (old, new):
            if cron_job is not None:
                self._queue.add(cron_job.key)

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        for job in (old, new):
            controller = controller_of(job) if job is not None else None
            if job is not None and controller is not None and controller.kind == CRON_JOB.kind:
                self._queue.add((job.namespace, controller.name))

    async def reconcile(self, key: Key) -> None:
        cron_job: CronJob | None = self._cron_jobs.items.get(key)
        if cron_job is None:
            self._alarm.set(key, None)
            self._held.pop(key, None)
            return
        jobs: list[Job] = self._jobs.by_index("controller", cron_job.metadata.uid)
        decided = plan(cron_job, jobs, self._context.now(), self._held.get(key))
        for reason, message, warning in decided.happened:
            self._say(cron_job, reason, message, warning=warning)
        written = await self._write(cron_job, cron_job.status, decided.status)
        if decided.due is not None:
            await self._write(cron_job, written, await self._start(cron_job, decided))
        for job in decided.forget:
            await self._delete(cron_job, job)
        self._alarm.set(key, decided.again)

    async def _start(self, cron_job: CronJob, decided: Plan) -> CronJobStatus:
        """The status after the Job that is due was made."""
        assert decided.due is not None
        for job in decided.replace:
            await self._delete(cron_job, job)
        status = without(decided.status, decided.replace)
        try:
            tree = await self._context.writer.create(JOB, job_tree(cron_job, decided.due))
        except AlreadyExists:  # somebody else's: there is none of ours that isn't in the cache
            return status
        except ApiError as error:
            if namespace_is_ending(error):
                return status
            self._say(cron_job, "FailedCreate", f"Error creating job: {error.message}", warning=True)
            raise
        job = msgspec.convert(tree, Job)
        self._say(cron_job, "SuccessfulCreate", f"Created job {job.name}")
        return started(status, job, decided.due)

    async def _write(self, cron_job: CronJob, before: CronJobStatus, after: CronJobStatus) -> CronJobStatus:
        if after != before:
            await self._context.writer.patch(CRON_JOB, cron_job, status_patch(after), subresource="status")
        return after

    async def _delete(self, cron_job: CronJob, job: Job) -> None:
        """With its pods."""
        await self._context.writer.delete(JOB, job, propagation="Background")
        self._say(cron_job, "SuccessfulDelete", f"Deleted job {job.name}")

    def _say(self, cron_job: CronJob, reason: str, message: str, *, warning: bool = False) -> None:
        type_ = "Warning" if warning else "Normal"
        self._context.recorder.record(COMPONENT, CRON_JOB, cron_job, type_, reason, message)
