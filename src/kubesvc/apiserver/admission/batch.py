"""The rules of CronJob: a Job's template, and when to make one of it.

Source: pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation, ValidateCronJobSpec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import jobs
from kubesvc.apiserver.admission.causes import invalid, not_supported, required
from kubesvc.apiserver.admission.containers import NEGATIVE
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

_POLICIES = ("Allow", "Forbid", "Replace")
_FIELD = re.compile(r"[-*,/?0-9A-Za-z]+")
_LONGEST_NAME = 52  # a Job's name is this one's and eleven characters more


def default(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    for name, value in (
        ("concurrencyPolicy", "Allow"),
        ("suspend", False),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 1),
    ):
        if spec.get(name) is None:
            spec[name] = value
    template = spec.get("jobTemplate")
    if isinstance(template, dict):
        jobs.default_template(template)


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    causes = list(_schedule(spec.get("schedule") or ""))
    policy = spec.get("concurrencyPolicy")
    if policy not in _POLICIES:
        causes.append(not_supported("spec.concurrencyPolicy", policy, _POLICIES))
    for name in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        if (value := spec.get(name)) is not None and value < 0:
            causes.append(invalid(f"spec.{name}", value, NEGATIVE))
    name = new["metadata"].get("name") or ""
    if old is None and len(name) > _LONGEST_NAME:
        why = f"must be no more than {_LONGEST_NAME} characters"
        causes.append(invalid("metadata.name", name, why))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    causes += [Cause(c.reason, c.message, f"spec.jobTemplate.{c.field}") for c in jobs.validate_spec(job)]
    return causes


def _schedule(text: str) -> Iterator[Cause]:
    if not text:
        yield required("spec.schedule")
    elif "TZ" in text:
        yield invalid("spec.schedule", text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
    elif text.startswith("@"):
        if text.partition(" ")[0] not in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight",
                                          "@hourly", "@every"):  # fmt: skip
            yield invalid("spec.schedule", text, f"unrecognized descriptor: {text}")
    elif len(fields := text.split()) != 5:
        yield invalid("spec.schedule", text, f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    elif not all(_FIELD.fullmatch(field) for field in fields):
        yield invalid("spec.schedule", text, "failed to parse it: use digits, names, and * , - /")


CRON_JOB = Rules(default=default, validate=validate, counted=True)
ADMITS = ((registry.CRON_JOB, CRON_JOB),)
