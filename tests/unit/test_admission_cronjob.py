"""A CronJob through admission: what is filled in, what is refused, and in whose words."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.registry import CRON_JOB
from kubesvc.apiserver import admission
from support.admission import admit, context, named, texts

JSON = dict[str, Any]
POD = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "host"}]}


def cron_job(job: JSON | None = None, name: str = "tidy", **spec: Any) -> JSON:
    template = {"spec": {"template": {"spec": POD}, **(job or {})}}
    return named(CRON_JOB, name, spec={"schedule": "@daily", "jobTemplate": template, **spec})


def test_defaults() -> None:
    """Of the Job's template only the pod's are filled in: the Job gets its own when it is made."""
    spec = admit(CRON_JOB, cron_job(concurrencyPolicy=""))["spec"]
    job = spec.pop("jobTemplate")["spec"]
    assert spec == {
        "schedule": "@daily",
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }
    assert list(job) == ["template"]
    assert job["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        pytest.param(cron_job(schedule=""), ["spec.schedule: Required value"], id="no schedule"),
        pytest.param(
            cron_job(schedule="61 * * * *"),
            ['spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61'],
            id="an hour of its own",
        ),
        pytest.param(
            cron_job(schedule="0 0 * * 7"),
            ['spec.schedule: Invalid value: "0 0 * * 7": end of range (7) above maximum (6): 7'],
            id="Sunday is 0",
        ),
        pytest.param(
            cron_job(schedule="@fortnightly"),
            ['spec.schedule: Invalid value: "@fortnightly": unrecognized descriptor: @fortnightly'],
            id="a word nobody knows",
        ),
        pytest.param(
            cron_job(schedule="CRON_TZ=UTC 0 0 * * *", timeZone="UTC"),
            [
                'spec.schedule: Invalid value: "CRON_TZ=UTC 0 0 * * *": cannot use TZ or CRON_TZ in schedule, use '
                "timeZone field instead"
            ],
            id="a zone in the schedule",
        ),
        pytest.param(
            cron_job(schedule="TZ=UTC 0 0"),
            [
                'spec.schedule: Invalid value: "TZ=UTC 0 0": expected exactly 5 fields, found 2: [0 0]',
                'spec.schedule: Invalid value: "TZ=UTC 0 0": cannot use TZ or CRON_TZ in schedule, use timeZone field '
                "instead",
            ],
            id="and too little of one",
        ),
        pytest.param(
            cron_job(timeZone=""),
            ['spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string'],
            id="a zone without a name",
        ),
        pytest.param(
            cron_job(timeZone="Europe/Pariss"),
            ['spec.timeZone: Invalid value: "Europe/Pariss": unknown time zone Europe/Pariss'],
            id="no such zone",
        ),
        pytest.param(
            cron_job(timeZone="../../etc/localtime"),
            ['spec.timeZone: Invalid value: "../../etc/localtime": unknown time zone ../../etc/localtime'],
            id="a file somewhere",
        ),
        pytest.param(
            cron_job(timeZone="Local"),
            [
                'spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in '
                "https://www.iana.org/time-zones"
            ],
            id="whose time?",
        ),
        pytest.param(
            cron_job(startingDeadlineSeconds=-1, successfulJobsHistoryLimit=-2, failedJobsHistoryLimit=-3),
            [
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.successfulJobsHistoryLimit: Invalid value: -2: must be greater than or equal to 0",
                "spec.failedJobsHistoryLimit: Invalid value: -3: must be greater than or equal to 0",
            ],
            id="less than nothing",
        ),
        pytest.param(
            cron_job(concurrencyPolicy="Queue"),
            ['spec.concurrencyPolicy: Unsupported value: "Queue": supported values: "Allow", "Forbid", "Replace"'],
            id="policy",
        ),
        pytest.param(
            cron_job(name="n" * 53),
            [f'metadata.name: Invalid value: "{"n" * 53}": must be no more than 52 characters'],
            id="a name that leaves no room",
        ),
        pytest.param(
            cron_job(job={"selector": {"matchLabels": {"a": "b"}}, "manualSelector": True}),
            [
                'spec.jobTemplate.spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` will be '
                "auto-generated",
                'spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"',
            ],
            id="a selector for all of them",
        ),
        pytest.param(
            cron_job(job={"template": {"spec": {"containers": POD["containers"]}}}),
            ['spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
            id="pods that never end",
        ),
    ],
)
def test_what_is_refused_is_refused_in_upstreams_words(tree: JSON, told: list[str]) -> None:
    assert texts(CRON_JOB, tree) == told


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Etc/GMT+7", "America/Argentina/Buenos_Aires"])
def test_zones_have_many_names(zone: str) -> None:
    assert texts(CRON_JOB, cron_job(timeZone=zone)) == []


def test_what_is_there_already_may_stay() -> None:
    """A zone that was known once, and a name that is too long by now."""
    old = cron_job(name="n" * 60, timeZone="Mars/Olympus")
    assert texts(CRON_JOB, cron_job(name="n" * 60, timeZone="Mars/Olympus", suspend=True), old) == []
    assert texts(CRON_JOB, {**old, "status": {"active": []}}, old, context(subresource="status")) == []
    assert len(texts(CRON_JOB, cron_job(name="n" * 60, timeZone="Mars/Syrtis"), old)) == 1


def test_only_what_is_not_done_is_warned_about() -> None:
    assert admission.warnings(CRON_JOB, cron_job()) == []
    tree = cron_job(job={"managedBy": "me.example/x", "template": {"spec": {**POD, "hostUsers": False}}})
    (line,) = admission.warnings(CRON_JOB, tree)
    assert line.startswith("spec.jobTemplate.spec.template.spec.hostUsers ")
