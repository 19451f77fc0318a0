"""Which pods of a Job have failed, and what its podFailurePolicy makes of that. Pure.

Follows pod_failure_policy.go and indexed_job_utils.go: the first rule that a failed pod fits says what becomes of it,

    Ignore      it doesn't count          FailIndex   no other pod is made for its index
    Count       it counts as any other    FailJob     the Job has failed

and one that fits none counts. How often an index has failed is told by its newest pod's annotations, which each pod
hands on to the one in its place; therefore the last failed pod of an index is held until it has been replaced.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kubesvc.api.batch import Job, OnExitCodes, OnPodCondition, PodFailurePolicyRule
from kubesvc.api.labels import JOB_INDEX_FAILURES, JOB_INDEX_IGNORED_FAILURES
from kubesvc.api.meta import Condition
from kubesvc.api.pods import ContainerStatus, Pod
from kubesvc.controllers.job.backoff import finished_at
from kubesvc.controllers.job.indexes import index_of

_MOST = 2**31 - 1


class Verdict(msgspec.Struct, frozen=True):
    """What a failed pod means to its Job; `message` says why it fails, if it does."""

    action: str = "Count"
    message: str = ""

    @property
    def counts(self) -> bool:
        return self.action != "Ignore"


def is_failed(job: Job, pod: Pod) -> bool:
    """A pod that is being deleted has failed at once, unless the Job replaces only what has ended. One that no node
    has will never end by itself."""
    if pod.status.phase == "Failed":
        return True
    if pod.metadata.deletion_timestamp is None or pod.status.phase == "Succeeded":
        return False
    return not job.spec.replaces_failed_only or not pod.spec.node_name


def judge(job: Job, pod: Pod) -> Verdict:
    """`pod` has failed."""
    policy = job.spec.pod_failure_policy
    for number, rule in enumerate(policy.rules if policy is not None else ()):
        why = _fits(rule, pod)
        if why:
            return Verdict(rule.action, f"{why} matching {rule.action} rule at index {number}")
    return Verdict()


def _fits(rule: PodFailurePolicyRule, pod: Pod) -> str:
    """How `pod` fits the rule; nothing if it doesn't."""
    name = f"{pod.namespace}/{pod.name}"
    if rule.on_exit_codes is not None:
        for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
            code = _failed_with(status)
            if code and _meant(rule.on_exit_codes, status.name, code):
                return f"Container {status.name} for pod {name} failed with exit code {code}"
        return ""
    found = next((c for c in pod.status.conditions if _asked(rule.on_pod_conditions, c)), None)
    return f"Pod {name} has condition {found.type}" if found is not None else ""


def _failed_with(status: ContainerStatus) -> int:
    return status.state.terminated.exit_code if status.state.terminated is not None else 0


def _meant(asked: OnExitCodes, container: str, code: int) -> bool:
    if asked.container_name not in (None, container):
        return False
    return (code in asked.values) is (asked.operator == "In")


def _asked(patterns: Iterable[OnPodCondition], found: Condition) -> bool:
    return any((p.type, p.status) == (found.type, found.status) for p in patterns)


# ── by index ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _count(pod: Pod, annotation: str) -> int:
    text = pod.metadata.annotations.get(annotation, "")
    return int(text) if text.isdigit() and int(text) <= _MOST else 0


def failures_before(pod: Pod) -> int:
    """How many pods of its index failed before `pod`, ignored ones too."""
    return _count(pod, JOB_INDEX_FAILURES) + _count(pod, JOB_INDEX_IGNORED_FAILURES)


def fails_its_index(job: Job, pod: Pod) -> bool:
    """`pod` has failed; whether no other is made for its index."""
    verdict = judge(job, pod)
    if verdict.action == "FailIndex":
        return True
    limit = job.spec.backoff_limit_per_index or 0
    return verdict.counts and _count(pod, JOB_INDEX_FAILURES) >= limit


def handed_on(job: Job, replaced: Pod | None) -> dict[str, str]:
    """The annotations of the pod in the place of `replaced`, or of the first of its index."""
    if replaced is None:
        return {JOB_INDEX_FAILURES: "0"}
    failures, ignored = _count(replaced, JOB_INDEX_FAILURES), _count(replaced, JOB_INDEX_IGNORED_FAILURES)
    if judge(job, replaced).counts:
        failures += 1
    else:
        ignored += 1
    told = {JOB_INDEX_FAILURES: str(failures)}
    return told | {JOB_INDEX_IGNORED_FAILURES: str(ignored)} if ignored else told


def newest_by_index(pods: Iterable[Pod]) -> dict[int, Pod]:
    """Index -> the failed pod of `pods` that knows of the most failures before it, the last of those."""
    found: dict[int, Pod] = {}
    for pod in sorted(pods, key=lambda p: (failures_before(p), finished_at(p))):
        index = index_of(pod)
        if index is not None:
            found[index] = pod
    return found
