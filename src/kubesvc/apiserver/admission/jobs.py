"""The rules of Job, and of a CronJob's template of one.

Source: pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation, pkg/registry/batch/job/strategy.go.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubesvc.api import names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, LabelSelector
from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.apiserver.admission import job_policies, metadata, workloads
from kubesvc.apiserver.admission.causes import IMMUTABLE, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.job_policies import INDEXED_ONLY
from kubesvc.apiserver.admission.rules import Rules, keep_status

_UNLIMITED = 2**31 - 1
_MANY = 100_000  # completions, parallelism or failed indexes of an Indexed Job
_FEWER = 10_000  # where there are more completions than that, and failures are counted by index
_UNSCHEDULED = ("nodeSelector", "tolerations", "schedulingGates")
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip


def default(tree: JSON) -> None:
    spec = default_template(tree)
    policy = spec.get("podFailurePolicy")
    for name, value in (
        ("completionMode", "NonIndexed"),
        ("suspend", False),
        ("manualSelector", False),
        ("backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else _UNLIMITED),
        ("podReplacementPolicy", "TerminatingOrFailed" if policy is None else "Failed"),
    ):
        if spec.get(name) is None:
            spec[name] = value
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    elif spec.get("parallelism") is None:
        spec["parallelism"] = 1


def default_template(tree: JSON) -> JSON:
    """What also a CronJob's template of a Job is filled in with; its spec."""
    spec = workloads.default_template(tree)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern["status"] = pattern.get("status") or "True"
    return spec


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    """A Job finds its pods by its own uid, unless manualSelector says that the user chose a selector. Labels that the
    user gave are kept: `validate` says what is wrong with them."""
    keep_status(new, old, context)
    spec = new.get("spec") or {}
    template = spec.get("template")
    if old is not None or not isinstance(template, dict):
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not spec.get("manualSelector"):
        labels = template.setdefault("metadata", {})["labels"] = dict(labels)
        for key, value in _generated(new["metadata"]).items():
            labels.setdefault(key, value)
        uid = new["metadata"].get("uid", "")
        spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(_UID_LABEL, uid)
    if labels and not new["metadata"].get("labels"):
        new["metadata"]["labels"] = dict(labels)


_UID_LABEL = "batch.kubernetes.io/controller-uid"


def _generated(meta: JSON) -> dict[str, str]:
    """The labels of a Job's pods."""
    plain = {"controller-uid": meta.get("uid", ""), "job-name": meta.get("name", "")}
    return plain | {f"batch.kubernetes.io/{key}": value for key, value in plain.items()}


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec, meta = new.get("spec") or {}, new["metadata"]
    causes = [] if old is not None or spec.get("manualSelector") else list(_generated_labels(spec, meta))
    causes += [*validate_spec(spec), *_selector(spec)]
    if old is not None:
        return causes + list(_update(spec, old))
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        longest = f"{meta.get('name') or ''}-{spec['completions'] - 1}"
        if names.label(longest):
            why = f"will not able to create pod with invalid DNS label: {longest}"
            causes.append(invalid("metadata.name", meta.get("name"), why))
    return causes


def validate_spec(spec: JSON) -> Iterator[Cause]:
    """What also a template of a Job is held to."""
    yield from workloads.not_negative(spec, *_COUNTS)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        yield required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if spec.get("managedBy") is not None:
        yield from job_policies.managed_by(spec["managedBy"], "spec.managedBy")
    mode = spec.get("completionMode")
    if mode == "Indexed":
        yield from _indexed(spec)
    else:
        if mode not in (None, "NonIndexed"):
            yield not_supported("spec.completionMode", mode, ("NonIndexed", "Indexed"))
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(name) is not None:
                yield invalid(f"spec.{name}", spec[name], INDEXED_ONLY)
    if spec.get("podFailurePolicy") is not None:
        yield from job_policies.pod_failure_policy(spec, "spec.podFailurePolicy")
    if spec.get("successPolicy") is not None:
        yield from job_policies.success_policy(spec, "spec.successPolicy")
    yield from job_policies.pod_replacement_policy(spec, "spec.podReplacementPolicy")
    yield from workloads.validate_template("Job", spec)
    if "template" in spec:
        yield from _restart_policy(spec)


def _indexed(spec: JSON) -> Iterator[Cause]:
    completions, parallelism, failed = (spec.get(n) for n in ("completions", "parallelism", "maxFailedIndexes"))
    if completions is None:
        yield required("spec.completions", "when completion mode is Indexed")
    if (parallelism or 0) > _MANY:
        why = f"must be less than or equal to {_MANY} when completion mode is Indexed"
        yield invalid("spec.parallelism", parallelism, why)
    if failed is not None and completions is not None and failed > completions:
        yield invalid("spec.maxFailedIndexes", failed, "must be less than or equal to completions")
    if (failed or 0) > _MANY:
        yield invalid("spec.maxFailedIndexes", failed, f"must be less than or equal to {_MANY}")
    if (completions or 0) > _MANY and spec.get("backoffLimitPerIndex") is not None:
        if failed is None:
            yield required("spec.maxFailedIndexes", f"must be specified when completions is above {_MANY}")
        for name, value in (("parallelism", parallelism), ("maxFailedIndexes", failed)):
            if (value or 0) > _FEWER:
                why = (
                    f"must be less than or equal to {_FEWER} when completions are above {_MANY} and used with backoff "
                    "limit per index"
                )
                yield invalid(f"spec.{name}", value, why)


def _restart_policy(spec: JSON) -> Iterator[Cause]:
    path = "spec.template.spec.restartPolicy"
    found = (spec["template"].get("spec") or {}).get("restartPolicy")
    if found in (None, "Always"):
        yield required(path, 'valid values: "OnFailure", "Never"')
    elif found not in ("OnFailure", "Never"):
        yield not_supported(path, found, ("OnFailure", "Never"))
    elif found != "Never" and spec.get("podFailurePolicy") is not None:
        yield invalid(path, found, 'only "Never" is supported when podFailurePolicy is specified')


# ── whose pods ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _generated_labels(spec: JSON, meta: JSON) -> Iterator[Cause]:
    path = "spec.template.metadata.labels"
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    wanted = _generated(meta)
    for key, value in wanted.items():
        if "template" in spec and labels.get(key) != value:
            yield invalid(f"{path}[{key}]", labels, f"must be '{value}'")
    if "template" in spec and not _selects(spec, wanted):
        yield invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def _selector(spec: JSON) -> Iterator[Cause]:
    if spec.get("selector") is None:
        if "template" in spec:
            yield required("spec.selector")
        return
    yield from metadata.validate_selector(spec["selector"], "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not _selects(spec, labels):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _selects(spec: JSON, labels: dict[str, str]) -> bool:
    """Whether the selector fits `labels`; one that is wrong in itself is for `metadata.validate_selector` to tell."""
    if metadata.validate_selector(spec["selector"], "spec.selector"):
        return True
    return matches(from_label_selector(msgspec.convert(spec["selector"], LabelSelector)), labels)


# ── what may be changed ──────────────────────────────────────────────────────────────────────────────────────────────


def _update(spec: JSON, old: JSON) -> Iterator[Cause]:
    before = old.get("spec") or {}
    yield from _completions(spec, before)
    kept = before.get("template") or {}
    if before.get("suspend") and not (old.get("status") or {}).get("startTime"):
        kept = _scheduled_as(kept, spec.get("template") or {})
    for name, was in (
        ("selector", before.get("selector")),
        ("template", kept),
        *((name, before.get(name)) for name in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex")),
        *((name, before.get(name)) for name in ("managedBy", "successPolicy")),
    ):
        if spec.get(name) != was:
            yield invalid(f"spec.{name}", spec.get(name), IMMUTABLE)


def _completions(spec: JSON, before: JSON) -> Iterator[Cause]:
    """An Indexed Job may become larger or smaller, with as many pods at once."""
    wanted = spec.get("completions")
    if wanted == before.get("completions"):
        return
    if spec.get("completionMode") != "Indexed":
        yield invalid("spec.completions", wanted, IMMUTABLE)
    elif wanted is not None and wanted != spec.get("parallelism"):
        yield invalid("spec.completions", wanted, "can only be modified in tandem with spec.parallelism")


def _scheduled_as(template: JSON, wanted: JSON) -> JSON:
    """`template` with what says where pods go, labels and annotations from `wanted`: they may change until a suspended
    Job first starts."""
    meta, spec = dict(template.get("metadata") or {}), dict(template.get("spec") or {})
    new_meta, new_spec = wanted.get("metadata") or {}, wanted.get("spec") or {}
    for part, new, fields in ((meta, new_meta, ("labels", "annotations")), (spec, new_spec, _UNSCHEDULED)):
        for field in fields:
            part.pop(field, None)
            if field in new:
                part[field] = new[field]
    affinity = {k: v for k, v in (spec.pop("affinity", None) or {}).items() if k != "nodeAffinity"}
    if "affinity" in new_spec:
        node = {k: v for k, v in (new_spec["affinity"] or {}).items() if k == "nodeAffinity"}
        spec["affinity"] = affinity | node
    elif affinity:
        spec["affinity"] = affinity
    return template | ({"metadata": meta} if "metadata" in template else {}) | {"spec": spec}


JOB = Rules(default=default, prepare=prepare, validate=validate, warnings=workloads.warnings, counted=True)
ADMITS = ((registry.JOB, JOB),)
