"""Each ended pod of a Job is counted once, also when somebody deletes it: a finalizer holds it until it is. Pure.

    pod made with the finalizer ──it ends──► its uid in uncountedTerminatedPods ──► finalizer taken away
                                                                                        └──► uid gone, counted

Whoever is interrupted finds in the status, or at the pod, how far it was. A completed index needs no uid: it is counted
by its number. Follows KEP-2307 and trackJobStatusAndRemoveFinalizers of job_controller.go.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.batch import Job, JobStatus, UncountedTerminatedPods
from kubesvc.api.endpoints import pod_is_finished, pod_is_ready
from kubesvc.api.labels import JOB_TRACKING
from kubesvc.api.pods import Pod
from kubesvc.controllers.job.failures import fails_its_index, is_failed, judge, newest_by_index
from kubesvc.controllers.job.indexes import index_of, indexes_of, read, spelled
from kubesvc.controllers.readiness import is_active

AT_ONCE = 500
"""Pods counted at a time, so that their uids don't make a status large."""


class Seen(msgspec.Struct, frozen=True):
    """A Job's pods. `held` have the finalizer; `succeeded` and `failed`, of those, ended since the last look.
    `waiting`: index -> its failed pod, held until another is made in its place."""

    active: list[Pod]
    terminating: list[Pod]
    held: list[Pod]
    succeeded: list[Pod]
    failed: list[Pod]
    done: set[int]  # completed indexes
    lost: set[int] | None  # failed indexes; None: they aren't counted
    waiting: dict[int, Pod]
    status: JobStatus
    """The Job's, in which those are counted whose finalizer is gone."""


def is_held(pod: Pod) -> bool:
    return JOB_TRACKING in pod.metadata.finalizers


def observe(job: Job, pods: Sequence[Pod]) -> Seen:
    """`pods` are those the Job controls."""
    held = [p for p in pods if is_held(p)]
    status = _counted(job.status, {p.metadata.uid for p in held})
    listed = status.uncounted_terminated_pods
    valid = [p for p in held if _has_place(job, p)]
    ended_well = [p for p in valid if p.status.phase == "Succeeded"]
    failed = [p for p in valid if is_failed(job, p)]
    active = [p for p in pods if is_active(p)]
    completions = job.spec.completions or 0
    done = read(status.completed_indexes, completions) | indexes_of(ended_well) if job.spec.indexed else set()
    lost, waiting = None, {}
    if job.spec.indexed and job.spec.backoff_limit_per_index is not None:
        lost = read(status.failed_indexes or "", completions) | indexes_of(p for p in failed if fails_its_index(job, p))
        lost -= done
        settled = done | lost | indexes_of(active)
        waiting = newest_by_index(p for p in failed if index_of(p) not in settled)
    return Seen(
        active=active,
        terminating=[p for p in pods if p.metadata.deletion_timestamp is not None and not pod_is_finished(p)],
        held=held,
        succeeded=[p for p in ended_well if p.metadata.uid not in listed.succeeded],
        failed=[p for p in failed if p.metadata.uid not in listed.failed],
        done=done,
        lost=lost,
        waiting=waiting,
        status=status,
    )


def succeeded(job: Job, seen: Seen) -> int:
    if job.spec.indexed:
        return len(seen.done)
    return seen.status.succeeded + len(seen.succeeded) + len(seen.status.uncounted_terminated_pods.succeeded)


def failed(job: Job, seen: Seen) -> int:
    new = sum(judge(job, p).counts for p in seen.failed)
    return seen.status.failed + new + len(seen.status.uncounted_terminated_pods.failed)


def track(job: Job, seen: Seen, end: str = "") -> tuple[JobStatus, list[Pod]]:
    """The counts, and the pods that need be held no more once the status is written. `end`, Complete or Failed, is what
    the Job comes to: with Failed, what still runs has failed too."""
    listed = seen.status.uncounted_terminated_pods
    well, badly = list(listed.succeeded), list(listed.failed)
    free: list[Pod] = []
    known = {*well, *badly}
    for pod in sorted(seen.held, key=lambda p: p.metadata.uid not in known):
        if len(free) == AT_ONCE:
            break  # the next look takes the rest
        has_failed = is_failed(job, pod)
        if not _may_go(job, seen, pod, has_failed, end):
            continue
        free.append(pod)
        uid = pod.metadata.uid
        if pod.status.phase == "Succeeded" and uid not in listed.failed:
            if not job.spec.indexed and uid not in listed.succeeded:
                well.append(uid)
        elif _counts_as_failed(job, pod, has_failed or end == "Failed") and uid not in listed.failed:
            badly.append(uid)
    status = msgspec.structs.replace(
        seen.status,
        active=len(seen.active),
        ready=sum(pod_is_ready(p) for p in seen.active),
        terminating=len(seen.terminating),
        succeeded=len(seen.done) if job.spec.indexed else seen.status.succeeded,
        completed_indexes=spelled(seen.done),
        failed_indexes=None if seen.lost is None else spelled(seen.lost),
        uncounted_terminated_pods=UncountedTerminatedPods(succeeded=well, failed=badly),
    )
    return status, free


def _may_go(job: Job, seen: Seen, pod: Pod, has_failed: bool, end: str) -> bool:
    if end or job.metadata.deletion_timestamp is not None or pod.status.phase == "Succeeded":
        return True
    return has_failed and seen.waiting.get(-1 if (index := index_of(pod)) is None else index) is not pod


def _counts_as_failed(job: Job, pod: Pod, has_failed: bool) -> bool:
    return has_failed and _has_place(job, pod) and judge(job, pod).counts


def _counted(status: JobStatus, held: set[str]) -> JobStatus:
    """`status`, in which the pods that were listed and aren't held any more are counted."""
    listed = status.uncounted_terminated_pods
    left = UncountedTerminatedPods(
        succeeded=[u for u in listed.succeeded if u in held], failed=[u for u in listed.failed if u in held]
    )
    return msgspec.structs.replace(
        status,
        succeeded=status.succeeded + len(listed.succeeded) - len(left.succeeded),
        failed=status.failed + len(listed.failed) - len(left.failed),
        uncounted_terminated_pods=left,
    )


def _has_place(job: Job, pod: Pod) -> bool:
    """Whether the pod counts: one of an Indexed Job only with an index that the Job has."""
    index = index_of(pod)
    return not job.spec.indexed or (index is not None and index < (job.spec.completions or 0))
