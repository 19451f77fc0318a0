"""The next step of a Job: pods to create, to delete and to let go of, its status, and when to look again. Pure.

Follows job_controller.go. A condition FailureTarget or SuccessCriteriaMet says that the end is decided; Failed or
Complete follows once no pod runs any more and all are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from kubesvc.api.batch import Job, JobStatus
from kubesvc.api.meta import JSON, Condition, format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.controllers.job import success
from kubesvc.controllers.job.backoff import NONE, Failures, finished_at, remember, wait
from kubesvc.controllers.job.failures import failures_before, handed_on, is_failed, judge
from kubesvc.controllers.job.indexes import index_of, indexes_of
from kubesvc.controllers.job.tracking import Seen, failed, is_held, observe, succeeded, track
from kubesvc.controllers.readiness import condition, is_active
from kubesvc.controllers.replicaset.plan import BURST, rank

REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")
_FAILED = {
    "BackoffLimitExceeded": "Job has reached the specified backoff limit",
    "DeadlineExceeded": "Job was active longer than specified deadline",
    "MaxFailedIndexesExceeded": "Job has exceeded the specified maximal number of failed indexes",
    "FailedIndexes": "Job has failed indexes",
}


class New(msgspec.Struct, frozen=True):
    """A pod to make: its completion index, None for a Job that isn't indexed."""

    index: int | None = None
    annotations: dict[str, str] = {}


class Plan(msgspec.Struct):
    """In the order it is carried out. `drop`: pods to let go of and then delete, which don't count; `delete`: pods
    whose end counts; `free`: pods to let go of. `failures` is for the next look. `happened`: (type, reason, message) of
    events."""

    status: JobStatus
    happened: list[tuple[str, str, str]] = []
    drop: list[Pod] = []
    delete: list[Pod] = []
    free: list[Pod] = []
    create: list[New] = []
    again: float | None = None
    failures: Failures = NONE


def ended(status: JobStatus) -> Condition | None:
    """The condition that says so."""
    return _true(status, "Complete") or _true(status, "Failed")


def expires_in(job: Job, end: Condition, now: datetime) -> float | None:
    """Seconds until a Job that has ended is removed; None when it stays."""
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is None or not end.last_transition_time or job.metadata.deletion_timestamp is not None:
        return None
    return (parse_time(end.last_transition_time) + timedelta(seconds=ttl) - now).total_seconds()


def plan(job: Job, pods: Sequence[Pod], now: datetime, known: Failures = NONE) -> Plan:
    """Of a Job that hasn't ended. `pods` are those it controls; `known` is what the last look remembers."""
    seen = observe(job, pods)
    failures = remember(
        known,
        [p for p in pods if p.status.phase == "Succeeded"],
        [*seen.failed, *(p for p in pods if _failed_and_counted(p))],
    )
    if job.metadata.deletion_timestamp is not None:
        status, free = track(job, seen)
        return Plan(status, free=free, failures=failures)
    if not job.spec.suspend and (job.status.start_time is None or _true(job.status, "Suspended")):
        seen = msgspec.structs.replace(seen, status=msgspec.structs.replace(seen.status, start_time=format_time(now)))
    end = _decided(job.status) or _verdict(job, seen, now)
    status, free = track(job, seen, end.type if end is not None else "")
    decided = Plan(status, free=free, failures=failures)
    if end is not None:
        _end(job, seen, end, decided, now)
        return decided
    _match(job, seen, decided, now)
    _suspend_or_resume(job, decided, now)
    left = _deadline_in(job, decided.status, now)
    if left is not None:
        decided.again = left if decided.again is None else min(left, decided.again)
    return decided


def _failed_and_counted(pod: Pod) -> bool:
    """One that is deleted without being held was too many: its end is no failure."""
    return pod.status.phase == "Failed" and not is_held(pod) and pod.metadata.deletion_timestamp is None


def _true(status: JobStatus, type_: str) -> Condition | None:
    found = condition(status.conditions, type_)
    return found if found is not None and found.status == "True" else None


def _put(status: JobStatus, made: Condition) -> JobStatus:
    return msgspec.structs.replace(status, conditions=[*(c for c in status.conditions if c.type != made.type), made])


def _made(type_: str, reason: str, message: str, now: datetime, status: str = "True") -> Condition:
    return Condition(type_, status, reason, message, last_transition_time=format_time(now))


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _decided(status: JobStatus) -> Condition | None:
    """The end that an earlier look has decided."""
    for type_, last in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
        if (found := _true(status, type_)) is not None:
            return msgspec.structs.replace(found, type=last)
    return None


def _verdict(job: Job, seen: Seen, now: datetime) -> Condition | None:
    """The condition the Job ends with, if this is its end."""
    if why := next((v.message for p in seen.failed if (v := judge(job, p)).action == "FailJob"), ""):
        return _made("Failed", "PodFailurePolicy", why, now)
    if reason := _failure(job, seen, now):
        return _made("Failed", reason, _FAILED[reason], now)
    if job.spec.indexed and (rule := success.met(job, seen.done)):
        return _made("Complete", "SuccessPolicy", rule, now)
    good = succeeded(job, seen)
    drained = good > 0 and not seen.active
    complete = drained if job.spec.completions is None else good >= job.spec.completions
    return _made("Complete", *REACHED, now) if complete else None


def _failure(job: Job, seen: Seen, now: datetime) -> str:
    """The reason for which the Job has failed; nothing while it has not."""
    limit = job.spec.backoff_limit
    restarts = _restarts(seen) if _restarts_on_failure(job) else 0
    if failed(job, seen) > limit or (restarts and restarts >= limit):
        return "BackoffLimitExceeded"
    left = _deadline_in(job, seen.status, now)
    if left is not None and left <= 0:
        return "DeadlineExceeded"
    if seen.lost:
        if job.spec.max_failed_indexes is not None and len(seen.lost) > job.spec.max_failed_indexes:
            return "MaxFailedIndexesExceeded"
        if len(seen.lost) + len(seen.done) >= (job.spec.completions or 0):
            return "FailedIndexes"
    return ""


def _restarts_on_failure(job: Job) -> bool:
    return (job.spec.template.get("spec") or {}).get("restartPolicy") == "OnFailure"


def _restarts(seen: Seen) -> int:
    """Of all containers of the pods that haven't ended."""
    pods = (*seen.active, *seen.terminating)
    return sum(s.restart_count for p in pods for s in (*p.status.init_container_statuses, *p.status.container_statuses))


def _deadline_in(job: Job, status: JobStatus, now: datetime) -> float | None:
    seconds, started = job.spec.active_deadline_seconds, status.start_time
    if seconds is None or started is None or job.spec.suspend:
        return None
    return (parse_time(started) + timedelta(seconds=seconds) - now).total_seconds()


def _end(job: Job, seen: Seen, end: Condition, decided: Plan, now: datetime) -> None:
    """What still runs is ended: it counts as failed if the Job has, else it was too many."""
    if end.type == "Failed":
        decided.delete = list(seen.active)
    else:
        decided.drop, decided.free = list(seen.active), [p for p in decided.free if not is_active(p)]
    early = "FailureTarget" if end.type == "Failed" else "SuccessCriteriaMet"
    if condition(decided.status.conditions, early) is None:
        decided.status = _put(decided.status, msgspec.structs.replace(end, type=early))
    if seen.active or seen.terminating or seen.held:
        return
    decided.status = _put(decided.status, msgspec.structs.replace(end, last_transition_time=format_time(now)))
    if end.type == "Failed":
        decided.happened.append(("Warning", end.reason, end.message))
        return
    decided.status = msgspec.structs.replace(decided.status, completion_time=format_time(now))
    if job.spec.completions is not None and decided.status.succeeded > job.spec.completions:
        text = "Too many succeeded pods running after completion count reached"
        decided.happened.append(("Warning", "TooManySucceededPods", text))
    decided.happened.append(("Normal", "Completed", "Job completed"))


# ── before the end ───────────────────────────────────────────────────────────────────────────────────────────────────


def _suspend_or_resume(job: Job, decided: Plan, now: datetime) -> None:
    """Say so; the clock runs anew from the look that finds the Job no more suspended."""
    suspended = _true(job.status, "Suspended") is not None
    if job.spec.suspend and not suspended:
        decided.status = _put(decided.status, _made("Suspended", "JobSuspended", "Job suspended", now))
        decided.happened.append(("Normal", "Suspended", "Job suspended"))
    elif suspended and not job.spec.suspend:
        decided.status = _put(decided.status, _made("Suspended", "JobResumed", "Job resumed", now, "False"))
        decided.happened.append(("Normal", "Resumed", "Job resumed"))


def _match(job: Job, seen: Seen, decided: Plan, now: datetime) -> None:
    """As many active pods as are wanted now; after a failure, not at once."""
    active = len(seen.active)
    wanted = 0 if job.spec.suspend else _wanted(job, seen)
    decided.drop = _too_many(job, seen.active, max(active - wanted, 0))[:BURST]
    if decided.drop:
        return
    missing = wanted - active
    if job.spec.replaces_failed_only:
        missing -= sum(not is_failed(job, p) for p in seen.terminating)
    if missing <= 0:
        return
    per_index = seen.lost is not None
    left = 0.0 if per_index else decided.failures.wait(now)
    if left > 0:
        decided.again = left
    elif not job.spec.indexed:
        decided.create = [New()] * min(missing, BURST)
    else:
        _create_indexed(job, seen, decided, _pending(job, seen, min(missing, BURST)), now)


def _wanted(job: Job, seen: Seen) -> int:
    if job.spec.completions is None:  # once one has succeeded the others run to their end
        return len(seen.active) if succeeded(job, seen) else job.spec.parallelism
    return max(0, min(job.spec.completions - succeeded(job, seen), job.spec.parallelism))


def _too_many(job: Job, active: list[Pod], surplus: int) -> list[Pod]:
    """At least `surplus` of the active pods: first those of an Indexed Job that have no index, or one too high, or that
    of another."""
    ranked = rank(active, active)
    out: list[Pod] = []
    if job.spec.indexed:
        taken: set[int] = set()
        for pod in reversed(ranked):
            index = index_of(pod)
            if index is None or index >= (job.spec.completions or 0) or index in taken:
                out.append(pod)
            else:
                taken.add(index)
    gone = {p.metadata.uid for p in out}
    left = [p for p in ranked if p.metadata.uid not in gone]
    return out + left[: max(surplus - len(out), 0)]


def _pending(job: Job, seen: Seen, count: int) -> list[int]:
    """The first indexes of which no pod runs or need run."""
    taken = seen.done | (seen.lost or set()) | indexes_of(seen.active)
    if job.spec.replaces_failed_only:
        taken |= indexes_of(p for p in seen.terminating if not is_failed(job, p))
    free = (i for i in range(job.spec.completions or 0) if i not in taken)
    return [i for i, _ in zip(free, range(count), strict=False)]


def _create_indexed(job: Job, seen: Seen, decided: Plan, indexes: list[int], now: datetime) -> None:
    """Those whose own wait is over, if each index has one."""
    if seen.lost is None:
        decided.create = [New(i) for i in indexes]
        return
    for index in indexes:
        before = seen.waiting.get(index)
        left = wait(failures_before(before) + 1, finished_at(before), now) if before is not None else 0.0
        if left > 0:
            decided.again = left if decided.again is None else min(left, decided.again)
        else:
            decided.create.append(New(index, handed_on(job, before)))


def status_patch(status: JobStatus) -> JSON:
    """Zero counts are left out on the wire where upstream leaves them out."""
    uncounted = status.uncounted_terminated_pods
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
            "failedIndexes": status.failed_indexes,
            "uncountedTerminatedPods": {
                "succeeded": uncounted.succeeded or None,
                "failed": uncounted.failed or None,
            },
            "conditions": [msgspec.to_builtins(c) for c in status.conditions] or None,
        }
    }
