"""When a Job's successPolicy has what it asks for. Pure; follows success_policy.go."""

from __future__ import annotations

from collections.abc import Collection

from kubesvc.api.batch import Job, SuccessPolicyRule
from kubesvc.controllers.job.indexes import read


def met(job: Job, done: Collection[int]) -> str:
    """Which rule of an Indexed Job's policy the indexes that have succeeded meet; nothing while none is met."""
    policy = job.spec.success_policy
    if policy is None or not done:
        return ""
    met_ = (n for n, rule in enumerate(policy.rules) if _is_met(rule, done, job.spec.completions or 0))
    number = next(met_, None)
    return "" if number is None else f"Matched rules at index {number}"


def _is_met(rule: SuccessPolicyRule, done: Collection[int], completions: int) -> bool:
    if rule.succeeded_indexes is None:
        return rule.succeeded_count is not None and len(done) >= rule.succeeded_count
    asked = read(rule.succeeded_indexes, completions)
    if not asked:
        return False
    have = len(asked.intersection(done))
    return have == len(asked) or (rule.succeeded_count is not None and have >= rule.succeeded_count)
