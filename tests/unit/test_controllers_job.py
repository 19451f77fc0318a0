"""The story of a Job: pods up to its parallelism, counted as they end, until it is complete, failed, or expired."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kubesvc.api.batch import Job
from kubesvc.api.meta import format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.controllers.job.indexes import INDEX, spelled
from kubesvc.controllers.job.plan import Plan, plan
from support.objects import make, pod

NOW = parse_time("2026-01-01T01:00:00Z")
STARTED = {"startTime": "2026-01-01T00:59:00Z"}


def job(status: dict[str, Any] | None = None, **spec: Any) -> Job:
    return make(Job, "work", spec={"completions": 1, "parallelism": 1, **spec}, status={**STARTED, **(status or {})})


def done(name: str, phase: str = "Succeeded", index: int | None = None) -> Pod:
    return pod(name, phase=phase, ready=False, labels={} if index is None else {INDEX: str(index)})


def ended(decided: Plan) -> dict[str, str]:
    return {c.type: c.reason for c in decided.status.conditions}


@pytest.mark.parametrize(
    ("found", "pods", "create", "delete"),
    [
        pytest.param(job(), [], 1, 0, id="the first"),
        pytest.param(job(completions=5, parallelism=2), [], 2, 0, id="no more than its parallelism"),
        pytest.param(job(completions=5, parallelism=2), [done("a"), pod("b")], 1, 0, id="the next"),
        pytest.param(job(completions=3, parallelism=2), [done("a"), done("b"), pod("c")], 0, 0, id="the last"),
        pytest.param(job(completions=5, parallelism=1), [pod("a"), pod("b")], 0, 1, id="parallelism lowered"),
        pytest.param(job(completions=None, parallelism=3), [pod("a")], 2, 0, id="a work queue"),
        pytest.param(job(completions=None, parallelism=3), [pod("a"), done("b")], 0, 0, id="that is drained"),
        pytest.param(job(suspend=True), [pod("a")], 0, 1, id="suspended"),
        pytest.param(job(), [pod("a", going=True)], 0, 0, id="one going is waited for"),
    ],
)
def test_how_many(found: Job, pods: list[Pod], create: int, delete: int) -> None:
    decided = plan(found, pods, NOW)
    assert (len(decided.create), len(decided.delete)) == (create, delete)


@pytest.mark.parametrize(
    ("found", "pods", "conditions"),
    [
        pytest.param(
            job(),
            [done("a")],
            {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"},
            id="complete",
        ),
        pytest.param(
            job(completions=None), [done("a"), done("b", "Failed")],
            {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}, id="a work queue",
        ),
        pytest.param(
            job(backoffLimit=1),
            [done("a", "Failed"), done("b", "Failed")],
            {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"},
            id="failed too often",
        ),
        pytest.param(
            job(parallelism=2, completions=2, backoffLimit=0),
            [done("a", "Failed"), pod("b")],
            {"FailureTarget": "BackoffLimitExceeded"},
            id="decided, while one still runs",
        ),
        pytest.param(
            job(activeDeadlineSeconds=60),
            [],
            {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"},
            id="too late",
        ),
    ],
)  # fmt: skip
def test_how_it_ends(found: Job, pods: list[Pod], conditions: dict[str, str]) -> None:
    decided = plan(found, pods, NOW)
    assert ended(decided) == conditions
    assert not decided.create
    assert decided.delete == [p for p in pods if p.status.phase == "Running"]


def test_after_a_failure_the_next_waits() -> None:
    """Ten seconds after the first, twenty after the second; a success forgets them."""
    at = format_time(NOW - timedelta(seconds=4))
    status = {"phase": "Failed", "containerStatuses": [{"name": "", "state": {"terminated": {"finishedAt": at}}}]}
    failures = [make(Pod, name, status=status) for name in ("a", "b")]
    assert (plan(job(), failures[:1], NOW).again, plan(job(), failures, NOW).again) == (6.0, 16.0)
    assert len(plan(job(), failures, NOW + timedelta(seconds=16)).create) == 1


def test_indexes_are_each_done_once() -> None:
    found = job(completions=5, parallelism=2, completionMode="Indexed")
    pods = [done("a", index=0), done("b", index=0), done("c", index=2), pod("d", labels={INDEX: "1"})]
    decided = plan(found, pods, NOW)
    assert (decided.create, decided.status.succeeded, decided.status.completed_indexes) == ([3], 2, "0,2")
    assert spelled({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8"


def test_a_suspended_job_has_no_clock_until_it_is_resumed() -> None:
    suspended = plan(make(Job, "work", spec={"suspend": True, "completions": 1}), [], NOW)
    assert (ended(suspended), suspended.status.start_time) == ({"Suspended": "JobSuspended"}, None)
    condition = {"type": "Suspended", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    resumed = plan(job({"conditions": [condition]}), [], NOW)
    assert (ended(resumed), resumed.status.start_time) == ({"Suspended": "JobResumed"}, format_time(NOW))


def test_a_finished_job_goes_when_its_time_is_over() -> None:
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:59:50Z"}
    finished = job({"conditions": [condition]}, ttlSecondsAfterFinished=15)
    assert (plan(finished, [], NOW).remove, plan(finished, [], NOW).again) == (False, 5.0)
    assert plan(finished, [], NOW + timedelta(seconds=5)).remove
