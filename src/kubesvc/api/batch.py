"""batch/v1 Job as its controller reads it."""

from __future__ import annotations

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
