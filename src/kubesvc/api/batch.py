"""batch/v1 Job and CronJob as their controllers read them."""

from __future__ import annotations

from kubesvc.api.core import ObjectReference
from kubesvc.api.meta import JSON, Condition, LabelSelector, Object, Struct

JOB_CONTROLLER = "kubernetes.io/job-controller"
"""spec.managedBy of a Job that is the built-in controller's, as one that names nobody is."""


class OnExitCodes(Struct, frozen=True):
    """`container_name` None: any container."""

    operator: str  # In | NotIn
    values: list[int] = []
    container_name: str | None = None


class OnPodCondition(Struct, frozen=True):
    type: str
    status: str = "True"


class PodFailurePolicyRule(Struct, frozen=True):
    """It has one of the two requirements."""

    action: str  # FailJob | FailIndex | Ignore | Count
    on_exit_codes: OnExitCodes | None = None
    on_pod_conditions: list[OnPodCondition] = []


class PodFailurePolicy(Struct, frozen=True):
    rules: list[PodFailurePolicyRule] = []


class SuccessPolicyRule(Struct, frozen=True):
    """`succeeded_indexes` is spelled as in a status: 0-2,5."""

    succeeded_indexes: str | None = None
    succeeded_count: int | None = None


class SuccessPolicy(Struct, frozen=True):
    rules: list[SuccessPolicyRule] = []


class JobSpec(Struct, frozen=True):
    """`completions` None: a work queue, done when any pod has succeeded and none is left."""

    parallelism: int = 1
    completions: int | None = None
    backoff_limit: int = 6
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    suspend: bool = False
    completion_mode: str = "NonIndexed"
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: str = "TerminatingOrFailed"
    success_policy: SuccessPolicy | None = None
    managed_by: str | None = None
    selector: LabelSelector = LabelSelector()
    template: JSON = {}

    @property
    def indexed(self) -> bool:
        return self.completion_mode == "Indexed"

    @property
    def replaces_failed_only(self) -> bool:
        """Whether a pod counts as failed, and is replaced, only once it has ended: always with a failure policy."""
        return self.pod_replacement_policy == "Failed" or self.pod_failure_policy is not None


class UncountedTerminatedPods(Struct, frozen=True):
    """uids of pods that have ended but are not in the counts yet."""

    succeeded: list[str] = []
    failed: list[str] = []


class JobStatus(Struct, frozen=True):
    """`failed_indexes` None: the Job doesn't count failures by index."""

    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int = 0
    start_time: str | None = None
    completion_time: str | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: UncountedTerminatedPods = UncountedTerminatedPods()
    conditions: list[Condition] = []


class Job(Object, frozen=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def is_ours(self) -> bool:
        """Whether the built-in controller carries it out."""
        return self.spec.managed_by in (None, JOB_CONTROLLER)


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
