"""The story of a CronJob: a Job when one is due, never two for one time, and its record of what became of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kubesvc.api.batch import SCHEDULED, CronJob, Job
from kubesvc.api.meta import format_time, parse_time
from kubesvc.controllers.cronjob.plan import MARGIN, Plan, job_tree, plan, started
from support.objects import CREATED, make, owned_by

NOW = parse_time("2026-01-01T01:00:00.1Z")
HOUR = timedelta(hours=1)
DUE = parse_time("2026-01-01T01:00:00Z")
DUE_NAME = f"tidy-{int(DUE.timestamp()) // 60}"
POD = {"spec": {"containers": [{"name": "c", "image": "host"}], "restartPolicy": "Never"}}


def cron_job(
    *active: str, last: str | None = None, meta: dict[str, Any] | None = None, template: Any = None, **spec: Any
) -> CronJob:
    """Hourly, made an hour ago. `active` are the names of its Jobs that are."""
    status = {"active": [{"kind": "Job", "namespace": "default", "name": n, "uid": f"uid-{n}"} for n in active]}
    whole = {"schedule": "0 * * * *", "jobTemplate": template or {"spec": {"template": POD}}, **spec}
    return make(CronJob, "tidy", meta, spec=whole, status=status | ({"lastScheduleTime": last} if last else {}))


def job(name: str, ended: str = "", at: str = CREATED, **meta: Any) -> Job:
    conditions = [{"type": ended, "status": "True"}] if ended else []
    status = {"startTime": at, "conditions": conditions} | ({"completionTime": at} if ended == "Complete" else {})
    return make(Job, name, {**owned_by("CronJob", "tidy"), **meta}, status=status)


def told(decided: Plan) -> list[str]:
    return [reason for reason, _, _ in decided.happened]


def active(decided: Plan) -> list[str]:
    return [reference.name for reference in decided.status.active]


@pytest.mark.parametrize(
    ("found", "due", "again"),
    [
        pytest.param(cron_job(), "01:00", "02:00", id="the first"),
        pytest.param(cron_job(meta={"creationTimestamp": "2026-01-01T01:00:00Z"}), None, "02:00", id="not yet"),
        pytest.param(cron_job(last="2026-01-01T01:00:00Z"), None, "02:00", id="done already"),
        pytest.param(cron_job(last="2025-12-31T20:00:00Z"), "01:00", "02:00", id="of many missed, the latest"),
        pytest.param(cron_job(suspend=True), None, None, id="suspended"),
        pytest.param(cron_job(meta={"deletionTimestamp": CREATED}), None, None, id="going"),
        pytest.param(cron_job(schedule="30 9 * * *", timeZone="Asia/Tokyo"), "00:30", "24:30", id="in its own zone"),
        pytest.param(cron_job(schedule="@every 25m"), "00:50", "01:15", id="counted from its creation"),
        pytest.param(cron_job(last="2026-01-01T00:10:00Z", schedule="@every 25m"), "01:00", "01:25", id="or the last"),
        pytest.param(cron_job(startingDeadlineSeconds=1), "01:00", "02:00", id="within the deadline"),
        pytest.param(cron_job(startingDeadlineSeconds=2**63 - 1), "01:00", "02:00", id="within any"),
        pytest.param(cron_job(schedule="@every 25m", startingDeadlineSeconds=700), "00:50", "01:15", id="@every, too"),
        pytest.param(cron_job(last="2026-01-02T00:00:00Z"), None, "25:00", id="a clock that was set back"),
    ],
)
def test_when_a_job_is_made(found: CronJob, due: str | None, again: str | None) -> None:
    """Times of the first day, some beyond its end."""

    def at(text: str) -> Any:
        hours, minutes = map(int, text.split(":"))
        return parse_time(CREATED) + timedelta(hours=hours, minutes=minutes)

    decided = plan(found, [], NOW)
    assert decided.due == (at(due) if due else None)
    assert decided.again == (at(again) + MARGIN if again else None)
    assert decided.happened == []


def test_the_job_made_is_the_templates_named_for_its_minute_and_told_its_time() -> None:
    template = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e.example/f"]},
        "spec": {"template": POD, "backoffLimit": 2},
    }
    tree = job_tree(cron_job(template=template, timeZone="Asia/Kathmandu"), DUE)
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "tidy", "uid": "uid-tidy"}
    assert tree == {
        "metadata": {
            "name": DUE_NAME,
            "namespace": "default",
            "labels": {"a": "b"},
            "annotations": {"c": "d", SCHEDULED: "2026-01-01T06:45:00+05:45"},
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {"template": POD, "backoffLimit": 2},
    }
    for place in (None, "Europe/London"):
        told_of = job_tree(cron_job(timeZone=place), DUE)["metadata"]["annotations"]
        assert told_of == {SCHEDULED: "2026-01-01T01:00:00Z"}


@pytest.mark.parametrize(
    ("policy", "makes", "ends", "reasons"),
    [("Allow", True, [], []), ("Forbid", False, [], ["JobAlreadyActive"]), ("Replace", True, ["tidy-1"], [])],
)
def test_concurrency(policy: str, makes: bool, ends: list[str], reasons: list[str]) -> None:
    """A Job is due while one is active, and while one runs that somebody else made."""
    jobs = [job("tidy-1"), job("by-hand")]
    decided = plan(cron_job("tidy-1", concurrencyPolicy=policy), jobs, NOW)
    assert (decided.due is not None, [j.name for j in decided.replace]) == (makes, ends)
    assert (active(decided), told(decided)) == (["tidy-1"], [*reasons, "UnexpectedJob"])
    alone = plan(cron_job(concurrencyPolicy=policy), jobs[1:], NOW)
    assert (alone.due, alone.replace, told(alone)) == (DUE, [], ["UnexpectedJob"])


def test_what_was_forbidden_is_made_up_for_when_the_job_has_ended() -> None:
    found = cron_job("tidy-1", concurrencyPolicy="Forbid")
    decided = plan(found, [job("tidy-1", "Failed")], NOW + HOUR / 2)
    assert (decided.due, told(decided)) == (DUE, ["SawCompletedJob"])


@pytest.mark.parametrize("ended", ["", "Complete"])
def test_a_job_without_a_record_is_recorded_and_not_made_again(ended: str) -> None:
    """As after a restart that came between the two; one that has ended is kept until it is."""
    found = cron_job(successfulJobsHistoryLimit=0)
    decided = plan(found, [job(DUE_NAME, ended)], NOW)
    assert (decided.due, decided.status.last_schedule_time) == (None, format_time(DUE))
    assert (active(decided), told(decided)) == ([] if ended else [DUE_NAME], [])
    made = job(DUE_NAME)
    assert started(found.status, made, DUE) == plan(found, [made], NOW).status


def test_a_minute_has_one_job() -> None:
    """Twice a minute is as good as once."""
    found = cron_job(DUE_NAME, last=format_time(DUE), schedule="@every 30s")
    decided = plan(found, [job(DUE_NAME)], NOW + timedelta(seconds=30))
    assert (decided.due, decided.status) == (None, found.status)


def test_what_became_of_its_jobs_is_recorded() -> None:
    first, second = "2026-01-01T00:10:00Z", "2026-01-01T00:20:00Z"
    jobs = [job("tidy-1", "Complete", second), job("tidy-2", "Complete", first), job("tidy-3", "Failed"), job("tidy-4")]
    decided = plan(cron_job("tidy-1", "tidy-3", "tidy-4", "tidy-5", last=format_time(DUE)), jobs, NOW)
    assert (active(decided), decided.status.last_successful_time) == (["tidy-4"], second)
    assert decided.happened == [
        ("SawCompletedJob", "Saw completed job: tidy-1, condition: Complete", False),
        ("SawCompletedJob", "Saw completed job: tidy-3, condition: Failed", False),
        ("MissingJob", "Active job went missing: tidy-5", False),
    ]


def test_history_is_kept_up_to_its_limits() -> None:
    """Those that started first go first, also while the CronJob is suspended; none while it goes itself."""
    jobs = [
        job("tidy-9", "Complete", "2026-01-01T00:09:00Z"),
        job("tidy-8", "Complete", "2026-01-01T00:08:00Z"),
        job("tidy-7", "Complete", "2026-01-01T00:07:00Z", deletionTimestamp=CREATED),
        job("tidy-6", "Failed"),
        job("tidy-5", "Failed"),
        job("tidy-4"),
    ]
    limits = {"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0, "suspend": True}
    assert [j.name for j in plan(cron_job(**limits), jobs, NOW).forget] == ["tidy-8", "tidy-5", "tidy-6"]
    assert plan(cron_job(suspend=True), jobs, NOW).forget == []
    assert plan(cron_job(**limits, meta={"deletionTimestamp": CREATED}), jobs, NOW).forget == []


@pytest.mark.parametrize(
    ("found", "makes", "happened"),
    [
        pytest.param(
            cron_job(startingDeadlineSeconds=60),
            False,
            ("MissSchedule", "Missed scheduled time to start a job: Thu, 01 Jan 2026 01:00:00 +0000", True),
            id="past the deadline",
        ),
        pytest.param(
            cron_job(last="2025-12-01T00:00:00Z"),
            True,
            (
                "TooManyMissedTimes",
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
                True,
            ),
            id="hundreds missed",
        ),
        pytest.param(
            cron_job(schedule="0 0 30 2 *"),
            False,
            ("InvalidSchedule", "invalid schedule: 0 0 30 2 * : it is never due", True),
            id="never",
        ),
        pytest.param(
            cron_job(schedule="x"),
            False,
            (
                "UnparseableSchedule",
                'unparseable schedule: "x" : expected exactly 5 fields, found 1: [x]',
                True,
            ),
            id="nonsense",
        ),
        pytest.param(
            cron_job(timeZone="Mars/Olympus"),
            False,
            ("UnknownTimeZone", 'invalid timeZone: "Mars/Olympus": unknown time zone Mars/Olympus', True),
            id="nowhere",
        ),
    ],
)
def test_what_is_wrong_is_told(found: CronJob, makes: bool, happened: tuple[str, str, bool]) -> None:
    decided = plan(found, [], NOW + HOUR / 2)
    assert (decided.due is not None, decided.happened) == (makes, [happened])


def test_a_deadline_bounds_how_many_count_as_missed() -> None:
    found = cron_job(last="2025-12-01T00:00:00Z", startingDeadlineSeconds=7200)
    decided = plan(found, [], NOW)
    assert (decided.due, decided.happened) == (DUE, [])


def test_what_a_changed_schedule_asks_for_is_only_made_from_then_on() -> None:
    held, again = plan(cron_job(), [], NOW, NOW), plan(cron_job(), [], NOW + HOUR, NOW)
    assert (held.due, held.again, again.due) == (None, DUE + HOUR + MARGIN, DUE + HOUR)
