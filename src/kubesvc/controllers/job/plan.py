"""The next step of a Job: pods to create and to delete, its status, when to look again, and when it may go. Pure.

Follows job_controller.go. What has finished is counted from the pods that are there, so a finished pod that somebody
deletes is forgotten. A condition FailureTarget or SuccessCriteriaMet says that the end is decided; Failed or Complete
follows once no pod runs any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from kubesvc.api.batch import Job, JobStatus
from kubesvc.api.endpoints import pod_is_finished, pod_is_ready
from kubesvc.api.meta import JSON, Condition, format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.controllers.job.indexes import index_of, spelled
from kubesvc.controllers.readiness import condition, is_active
from kubesvc.controllers.replicaset.plan import rank

FIRST_DELAY, MAX_DELAY = 10.0, 600.0  # seconds after a failed pod before the next is made
REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")


class Plan(msgspec.Struct):
    """`create` has an entry for each pod to make: its completion index, None for a Job that isn't indexed. `remove`:
    the Job itself, whose time to live is over. `happened`: (reason, message) of events."""

    status: JobStatus
    create: list[int | None] = []
    delete: list[Pod] = []
    again: float | None = None
    remove: bool = False
    happened: list[tuple[str, str]] = []


class _Pods(msgspec.Struct, frozen=True):
    active: list[Pod]
    terminating: list[Pod]
    succeeded: list[Pod]
    failed: list[Pod]


def is_indexed(job: Job) -> bool:
    return job.spec.completion_mode == "Indexed"


def plan(job: Job, pods: Sequence[Pod], now: datetime) -> Plan:
    """`pods` are those the Job controls."""
    ended = condition(job.status.conditions, "Complete") or condition(job.status.conditions, "Failed")
    if ended is not None and ended.status == "True":
        return _expire(job, ended, now)
    sorted_ = _sort(pods)
    decided = Plan(_counts(job, sorted_))
    if job.metadata.deletion_timestamp is not None:
        return decided
    _start_or_suspend(job, decided, now)
    verdict = _decided(decided.status) or _verdict(job, sorted_, decided.status, now)
    if verdict is not None:
        _end(sorted_, verdict, decided, now)
    elif job.spec.suspend:
        decided.delete = list(sorted_.active)
    else:
        _match(job, sorted_, decided, now)
    left = _deadline_in(job, decided.status, now)
    if verdict is None and left is not None:
        decided.again = left if decided.again is None else min(left, decided.again)
    return decided


def _sort(pods: Sequence[Pod]) -> _Pods:
    return _Pods(
        [p for p in pods if is_active(p)],
        [p for p in pods if not pod_is_finished(p) and p.metadata.deletion_timestamp is not None],
        [p for p in pods if p.status.phase == "Succeeded"],
        [p for p in pods if p.status.phase == "Failed"],
    )


def _counts(job: Job, pods: _Pods) -> JobStatus:
    done = {i for p in pods.succeeded if (i := index_of(p)) is not None and i < (job.spec.completions or 0)}
    return msgspec.structs.replace(
        job.status,
        active=len(pods.active),
        ready=sum(pod_is_ready(p) for p in pods.active),
        terminating=len(pods.terminating),
        succeeded=len(done) if is_indexed(job) else len(pods.succeeded),
        failed=len(pods.failed),
        completed_indexes=spelled(done) if is_indexed(job) else "",
    )


def _put(status: JobStatus, made: Condition) -> JobStatus:
    return msgspec.structs.replace(status, conditions=[*(c for c in status.conditions if c.type != made.type), made])


def _made(type_: str, reason: str, message: str, now: datetime, status: str = "True") -> Condition:
    return Condition(type_, status, reason, message, last_transition_time=format_time(now))


def _start_or_suspend(job: Job, decided: Plan, now: datetime) -> None:
    """The clock runs from the first look that finds the Job not suspended."""
    before = condition(job.status.conditions, "Suspended")
    suspended = before is not None and before.status == "True"
    if job.spec.suspend:
        if not suspended:
            decided.status = _put(decided.status, _made("Suspended", "JobSuspended", "Job suspended", now))
            decided.happened.append(("Suspended", "Job suspended"))
        return
    if suspended:
        decided.status = _put(decided.status, _made("Suspended", "JobResumed", "Job resumed", now, "False"))
        decided.happened.append(("Resumed", "Job resumed"))
    if suspended or job.status.start_time is None:
        decided.status = msgspec.structs.replace(decided.status, start_time=format_time(now))


def _decided(status: JobStatus) -> Condition | None:
    """The end that an earlier look has decided."""
    for type_, last in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        if (found := condition(status.conditions, type_)) is not None and found.status == "True":
            return msgspec.structs.replace(found, type=last)
    return None


def _verdict(job: Job, pods: _Pods, status: JobStatus, now: datetime) -> Condition | None:
    """The condition the Job ends with, if this is its end."""
    limit = job.spec.backoff_limit
    restarts = sum(s.restart_count for p in pods.active for s in p.status.container_statuses)
    on_failure = (job.spec.template.get("spec") or {}).get("restartPolicy") == "OnFailure"
    if status.failed > limit or (on_failure and restarts and restarts >= limit):
        return _made("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit", now)
    left = _deadline_in(job, status, now)
    if left is not None and left <= 0:
        return _made("Failed", "DeadlineExceeded", "Job was active longer than specified deadline", now)
    if job.spec.completions is None:
        complete = status.succeeded > 0 and not pods.active and not pods.terminating
    else:
        complete = status.succeeded >= job.spec.completions
    return _made("Complete", *REACHED, now) if complete else None


def _deadline_in(job: Job, status: JobStatus, now: datetime) -> float | None:
    seconds, started = job.spec.active_deadline_seconds, status.start_time
    if seconds is None or started is None or job.spec.suspend:
        return None
    return (parse_time(started) + timedelta(seconds=seconds) - now).total_seconds()


def _end(pods: _Pods, verdict: Condition, decided: Plan, now: datetime) -> None:
    decided.delete = list(pods.active)
    early = "FailureTarget" if verdict.type == "Failed" else "SuccessCriteriaMet"
    if condition(decided.status.conditions, early) is None:
        decided.status = _put(decided.status, msgspec.structs.replace(verdict, type=early))
    if pods.active or pods.terminating:
        return
    last = msgspec.structs.replace(verdict, last_transition_time=format_time(now))
    decided.status = _put(decided.status, last)
    if verdict.type == "Complete":
        decided.status = msgspec.structs.replace(decided.status, completion_time=format_time(now))
        decided.happened.append(("Completed", "Job completed"))
    else:
        decided.happened.append((verdict.reason, verdict.message))


def _match(job: Job, pods: _Pods, decided: Plan, now: datetime) -> None:
    """As many active pods as are wanted now; after a failure, not at once."""
    succeeded, active = decided.status.succeeded, len(pods.active)
    if job.spec.completions is None:
        wanted = min(active, job.spec.parallelism) if succeeded else job.spec.parallelism
    else:
        wanted = min(job.spec.completions - succeeded, job.spec.parallelism)
    if active > wanted:
        decided.delete = rank(pods.active, pods.active)[: active - wanted]
        return
    missing = wanted - active - len(pods.terminating)
    if missing <= 0:
        return
    wait = _back_off(pods, now)
    if wait > 0:
        decided.again = wait
    elif is_indexed(job):
        taken = {index_of(p) for p in (*pods.active, *pods.terminating, *pods.succeeded)}
        free = (i for i in range(job.spec.completions or 0) if i not in taken)
        decided.create = [i for i, _ in zip(free, range(missing), strict=False)]
    else:
        decided.create = [None] * missing


def _back_off(pods: _Pods, now: datetime) -> float:
    """Seconds until the next pod may be made: ten after a failure, doubled with each one since the last success."""
    last_success = max(map(_finished_at, pods.succeeded), default="")
    since = [f for p in pods.failed if (f := _finished_at(p)) > last_success]
    if not since:
        return 0.0
    delay = min(FIRST_DELAY * 2.0 ** min(len(since) - 1, 16), MAX_DELAY)
    return (parse_time(max(since)) + timedelta(seconds=delay) - now).total_seconds()


def _finished_at(pod: Pod) -> str:
    """When its last container ended; when the pod was made if nobody says."""
    times = [s.state.terminated.finished_at for s in pod.status.container_statuses if s.state.terminated]
    return max((t for t in times if t), default=pod.metadata.creation_timestamp or "")


def _expire(job: Job, ended: Condition, now: datetime) -> Plan:
    """Nothing changes any more; ttlSecondsAfterFinished later it goes, with its pods."""
    found = Plan(job.status)
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is not None and ended.last_transition_time and job.metadata.deletion_timestamp is None:
        left = (parse_time(ended.last_transition_time) + timedelta(seconds=ttl) - now).total_seconds()
        found.remove, found.again = left <= 0, left if left > 0 else None
    return found


def status_patch(status: JobStatus) -> JSON:
    """Zero counts are left out on the wire where upstream leaves them out."""
    return {
        "status": {
            "active": status.active or None,
            "ready": status.ready,
            "succeeded": status.succeeded or None,
            "failed": status.failed or None,
            "terminating": status.terminating,
            "startTime": status.start_time,
            "completionTime": status.completion_time,
            "completedIndexes": status.completed_indexes or None,
            "uncountedTerminatedPods": {},
            "conditions": [msgspec.to_builtins(c) for c in status.conditions] or None,
        }
    }
