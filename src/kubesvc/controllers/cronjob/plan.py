"""What a CronJob does now: the Job it makes, those it ends or forgets, its status, and when to look again. Pure.

Follows cronjob_controllerv2.go. Of the times that have passed since the last one only the latest counts, if it is not
older than the starting deadline. A Job is named for its minute, so the Jobs that are there say what was done before a
restart that came between a Job and its record. Two things differ from upstream: a time past the deadline is told with
MissSchedule, which upstream's calculation never reaches, and @every goes together with a deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

import msgspec

from kubesvc.api.batch import SCHEDULED, CronJob, CronJobStatus, Job
from kubesvc.api.core import ObjectReference
from kubesvc.api.meta import JSON, Condition, format_time, parse_time
from kubesvc.api.registry import CRON_JOB, JOB
from kubesvc.api.schedule import Schedule, parse, zone
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.readiness import condition

MARGIN = timedelta(milliseconds=100)
"""How long after its time a Job is made: clocks that are a little apart still agree that it has come."""
_MANY = 100  # missed times: more, and the clock may be wrong


class Plan(msgspec.Struct):
    """`due`: the time to make a Job for, after the Jobs in `replace` are deleted. `forget`: finished Jobs beyond the
    limits. `again`: when to look next. `happened`: (reason, message, whether it is a warning) of events."""

    status: CronJobStatus
    due: datetime | None = None
    replace: list[Job] = []
    forget: list[Job] = []
    again: datetime | None = None
    happened: list[tuple[str, str, bool]] = []


def plan(cron_job: CronJob, jobs: Sequence[Job], now: datetime, held: datetime | None = None) -> Plan:
    """`jobs` are those the CronJob controls. `held`: since when its schedule is what it is, if it was another before;
    what it would have asked for until then isn't made up for."""
    decided = Plan(cron_job.status)
    _record(jobs, decided)
    if cron_job.metadata.deletion_timestamp is not None:
        return decided
    decided.forget = [
        *_beyond(jobs, "Complete", cron_job.spec.successful_jobs_history_limit),
        *_beyond(jobs, "Failed", cron_job.spec.failed_jobs_history_limit),
    ]
    if not cron_job.spec.suspend:
        _schedule(cron_job, jobs, decided, now, held)
    listed = {reference.uid for reference in decided.status.active}
    for job in jobs:
        if _ended(job) is None and job.metadata.uid not in listed and job.metadata.deletion_timestamp is None:
            text = f"Saw a job that the controller did not create or forgot: {job.name}"
            decided.happened.append(("UnexpectedJob", text, True))
    return decided


def job_name(cron_job: CronJob, due: datetime) -> str:
    return f"{cron_job.name}-{int(due.timestamp()) // 60}"


def job_tree(cron_job: CronJob, due: datetime) -> JSON:
    """The Job that `cron_job` makes for the time `due`."""
    template = cron_job.spec.job_template
    meta = template.get("metadata") or {}
    local = due.astimezone(zone(cron_job.spec.time_zone or "")).isoformat(timespec="seconds")
    return {
        "metadata": {
            "name": job_name(cron_job, due),
            "namespace": cron_job.namespace,
            "labels": {**(meta.get("labels") or {})},
            "annotations": {**(meta.get("annotations") or {}), SCHEDULED: local.replace("+00:00", "Z")},
            "ownerReferences": [reference_to(CRON_JOB, cron_job)],
        },
        "spec": template.get("spec") or {},
    }


def started(status: CronJobStatus, job: Job, due: datetime) -> CronJobStatus:
    """The status once `job` is there for the time `due`."""
    reference = ObjectReference(
        kind=JOB.kind,
        namespace=job.namespace,
        name=job.name,
        uid=job.metadata.uid,
        api_version=JOB.api_version,
        resource_version=job.metadata.resource_version,
    )
    active = [*status.active, *([reference] if _ended(job) is None else [])]
    return msgspec.structs.replace(status, active=active, last_schedule_time=format_time(due))


def without(status: CronJobStatus, jobs: Sequence[Job]) -> CronJobStatus:
    """The status when `jobs` are no longer active."""
    gone = {job.metadata.uid for job in jobs}
    return msgspec.structs.replace(status, active=[r for r in status.active if r.uid not in gone])


def status_patch(status: CronJobStatus) -> JSON:
    return {
        "status": {
            "active": [msgspec.to_builtins(reference) for reference in status.active] or None,
            "lastScheduleTime": status.last_schedule_time,
            "lastSuccessfulTime": status.last_successful_time,
        }
    }


def _ended(job: Job) -> Condition | None:
    """The condition that a Job has ended with."""
    found = (condition(job.status.conditions, type_) for type_ in ("Complete", "Failed"))
    return next((c for c in found if c is not None and c.status == "True"), None)


def _record(jobs: Sequence[Job], decided: Plan) -> None:
    """Which Jobs are active no longer, and when one last succeeded."""
    status, known = decided.status, {job.metadata.uid: job for job in jobs}
    active = []
    for reference in status.active:
        job = known.get(reference.uid)
        if job is None:
            decided.happened.append(("MissingJob", f"Active job went missing: {reference.name}", False))
        elif (ended := _ended(job)) is not None:
            text = f"Saw completed job: {job.name}, condition: {ended.type}"
            decided.happened.append(("SawCompletedJob", text, False))
        else:
            active.append(reference)
    succeeded = [j.status.completion_time for j in jobs if (c := _ended(j)) is not None and c.type == "Complete"]
    times = [time for time in (status.last_successful_time, *succeeded) if time]
    last = max(times, key=parse_time, default=None)
    decided.status = msgspec.structs.replace(status, active=active, last_successful_time=last)


def _beyond(jobs: Sequence[Job], type_: str, limit: int | None) -> list[Job]:
    """The Jobs that ended so and are too many, those that started first; None: no limit."""
    ended = [job for job in jobs if (c := _ended(job)) is not None and c.type == type_]
    ended.sort(key=lambda job: (job.status.start_time is None, job.status.start_time or "", job.name))
    surplus = ended[: max(0, len(ended) - limit)] if limit is not None else []
    return [job for job in surplus if job.metadata.deletion_timestamp is None]


def _since(cron_job: CronJob, status: CronJobStatus) -> datetime:
    """The last time that was acted on; when the CronJob was made, if none was."""
    return parse_time(status.last_schedule_time or cron_job.metadata.creation_timestamp or "1970-01-01T00:00:00Z")


def _schedule(cron_job: CronJob, jobs: Sequence[Job], decided: Plan, now: datetime, held: datetime | None) -> None:
    spec = cron_job.spec
    try:
        place = zone(spec.time_zone or "")
    except ValueError as error:
        decided.happened.append(("UnknownTimeZone", f'invalid timeZone: "{spec.time_zone}": {error}', True))
        return
    try:
        schedule = parse(spec.schedule)
    except ValueError as error:
        decided.happened.append(("UnparseableSchedule", f'unparseable schedule: "{spec.schedule}" : {error}', True))
        return
    since = _since(cron_job, cron_job.status)
    due = schedule.latest(since, now, place)
    following = schedule.after(due or since, place)
    if following is None and due is None:
        text = f"invalid schedule: {spec.schedule} : it is never due"
        decided.happened.append(("InvalidSchedule", text, True))
        return
    decided.again = following + MARGIN if following is not None else None
    if due is not None and (held is None or due > held):
        _act(cron_job, jobs, decided, due, now)
        if decided.due and _missed_many(cron_job, schedule, place, now):
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            decided.happened.append(("TooManyMissedTimes", text, True))


def _act(cron_job: CronJob, jobs: Sequence[Job], decided: Plan, due: datetime, now: datetime) -> None:
    """What the time `due`, which has come, leads to."""
    spec, name, status = cron_job.spec, job_name(cron_job, due), decided.status
    deadline = spec.starting_deadline_seconds
    if deadline is not None and (now - due).total_seconds() > deadline:
        text = f"Missed scheduled time to start a job: {due:%a, %d %b %Y %H:%M:%S} +0000"
        decided.happened.append(("MissSchedule", text, True))
        return
    if any(reference.name == name for reference in status.active):
        return
    made = next((job for job in jobs if job.name == name), None)
    if made is not None:
        decided.status = started(status, made, due)
        return
    if spec.concurrency_policy == "Forbid" and status.active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        decided.happened.append(("JobAlreadyActive", text, False))
        return
    if spec.concurrency_policy == "Replace":
        active = {reference.uid for reference in status.active}
        decided.replace = [job for job in jobs if job.metadata.uid in active]
    decided.due = due


def _missed_many(cron_job: CronJob, schedule: Schedule, place: tzinfo, now: datetime) -> bool:
    """Counted by the distance of the first two times that may still be acted on."""
    earliest, deadline = _since(cron_job, cron_job.status), cron_job.spec.starting_deadline_seconds
    if deadline is not None and (now - earliest).total_seconds() > deadline:
        earliest = now - timedelta(seconds=deadline)
    first = schedule.after(earliest, place)
    second = schedule.after(first, place) if first is not None else None
    if first is None or second is None:
        return False
    return (now - first) // (second - first) + 1 > _MANY
