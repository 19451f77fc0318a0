"""batch/v1 Job and CronJob as their controllers read them."""

from __future__ import annotations

from kubesvc.api.core import ObjectReference
from kubesvc.api.meta import JSON, Condition, LabelSelector, Object, Struct


class JobSpec(Struct, frozen=True):
    """`completions` None: a work queue, done when any pod has succeeded and none is left."""

    parallelism: int = 1
    completions: int | None = None
    backoff_limit: int = 6
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    suspend: bool = False
    completion_mode: str = "NonIndexed"
    selector: LabelSelector = LabelSelector()
    template: JSON = {}


class JobStatus(Struct, frozen=True):
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int = 0
    start_time: str | None = None
    completion_time: str | None = None
    completed_indexes: str = ""
    conditions: list[Condition] = []


class Job(Object, frozen=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""An annotation of a Job: the time its CronJob made it for, as clocks show it in the CronJob's time zone."""


class CronJobSpec(Struct, frozen=True):
    schedule: str = ""
    time_zone: str | None = None
    starting_deadline_seconds: int | None = None
    concurrency_policy: str = "Allow"  # Allow | Forbid | Replace
    suspend: bool = False
    job_template: JSON = {}
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None


class CronJobStatus(Struct, frozen=True):
    active: list[ObjectReference] = []
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(Object, frozen=True):
    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()
