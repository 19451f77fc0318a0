"""The rules of CronJob: a Job's template, and when to make one of it.

Source: pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation, ValidateCronJobSpec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.api.schedule import parse, zone
from kubesvc.apiserver.admission import jobs, unserved
from kubesvc.apiserver.admission.causes import invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules
from kubesvc.apiserver.admission.workloads import not_negative

_POLICIES = ("Allow", "Forbid", "Replace")
_ZONE_PART = re.compile(r"[A-Za-z._0-9+][-A-Za-z._0-9+]{0,13}")  # of a name between slashes
_LONGEST_NAME = 52  # a Job's name is this one's and eleven characters more


def default(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    for name, value in (
        ("concurrencyPolicy", "Allow"),
        ("suspend", False),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 1),
    ):
        if spec.get(name) in (None, ""):
            spec[name] = value
    template = spec.get("jobTemplate")
    if isinstance(template, dict):
        jobs.default_template(template)  # the Job made of it gets a Job's own defaults


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    before = (old.get("spec") or {}) if old is not None else {}
    causes = [*_schedule(spec.get("schedule") or ""), *not_negative(spec, "startingDeadlineSeconds")]
    if old is None or spec.get("timeZone") != before.get("timeZone"):
        causes += _time_zone(spec.get("timeZone"))
    policy = spec.get("concurrencyPolicy")
    if policy not in _POLICIES:
        causes.append(not_supported("spec.concurrencyPolicy", policy, _POLICIES))
    causes += _job_template((spec.get("jobTemplate") or {}).get("spec") or {})
    causes += not_negative(spec, "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    name = new["metadata"].get("name") or ""
    if old is None and len(name) > _LONGEST_NAME:
        why = f"must be no more than {_LONGEST_NAME} characters"
        causes.append(invalid("metadata.name", name, why))
    return causes


def _schedule(text: str) -> Iterator[Cause]:
    if not text:
        yield required("spec.schedule")
        return
    prefixed = text.startswith(("TZ=", "CRON_TZ="))
    try:
        parse(text.partition(" ")[2].strip() if prefixed else text)
    except ValueError as error:
        yield invalid("spec.schedule", text, str(error))
    if "TZ" in text:
        yield invalid("spec.schedule", text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")


def _time_zone(name: str | None) -> Iterator[Cause]:
    if name is None:
        return
    if not name:
        yield invalid("spec.timeZone", name, "timeZone must be nil or non-empty string")
        return
    parts = name.split("/")
    if not all(_ZONE_PART.fullmatch(part) for part in parts) or {".", ".."} & set(parts):
        yield invalid("spec.timeZone", name, f"unknown time zone {name}")
        return
    if name.lower() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        yield invalid("spec.timeZone", name, why)
        return
    try:
        zone(name)
    except ValueError as error:
        yield invalid("spec.timeZone", name, str(error))


def _job_template(spec: JSON) -> Iterator[Cause]:
    """As of a Job whose selector is made for it. `spec` is at spec.jobTemplate.spec."""
    for cause in jobs.validate_spec(spec):
        yield Cause(cause.reason, cause.message, f"spec.jobTemplate.{cause.field}")
    if (selector := spec.get("selector")) is not None:
        yield invalid("spec.jobTemplate.spec.selector", selector, "`selector` will be auto-generated")
    if spec.get("manualSelector"):
        yield not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))


def warnings(tree: JSON) -> list[str]:
    spec, path = ((tree.get("spec") or {}).get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec"
    pod = (spec.get("template") or {}).get("spec") or {}
    return list(unserved.in_pod_spec(pod, f"{path}.template.spec"))


CRON_JOB = Rules(default=default, validate=validate, warnings=warnings, counted=True)
ADMITS = ((registry.CRON_JOB, CRON_JOB),)
