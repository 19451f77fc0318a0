"""The story of a Job: pods up to its parallelism, each counted once as it ends, until it is complete, failed, or
expired."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from kubesvc.api.batch import Job
from kubesvc.api.labels import JOB_COMPLETION_INDEX as INDEX
from kubesvc.api.labels import JOB_INDEX_FAILURES as COUNT
from kubesvc.api.labels import JOB_INDEX_IGNORED_FAILURES as IGNORED
from kubesvc.api.labels import JOB_TRACKING
from kubesvc.api.meta import format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.api.registry import JOB
from kubesvc.controllers.job.backoff import NONE
from kubesvc.controllers.job.indexes import read, spelled
from kubesvc.controllers.job.plan import Plan, ended, expires_in, plan, status_patch
from kubesvc.controllers.job.template import new_pod
from kubesvc.controllers.ownership import adoption, without_owners
from kubesvc.controllers.slim import slim_pod
from support.objects import make, pod

NOW = parse_time("2026-01-01T01:00:00Z")
STARTED = {"startTime": "2026-01-01T00:59:00Z"}


def job(status: dict[str, Any] | None = None, **spec: Any) -> Job:
    """A Job with one completion. As a keyword's value, None takes the field away."""
    whole = {k: v for k, v in {"completions": 1, "parallelism": 1, **spec}.items() if v is not None}
    return make(Job, "work", spec=whole, status={**STARTED, **(status or {})})


def indexed(completions: int, parallelism: int = 0, **spec: Any) -> Job:
    at_once = parallelism or completions
    return job(completions=completions, parallelism=at_once, completionMode="Indexed", **spec)


def work(
    name: str,
    phase: str = "Running",
    *,
    index: int | None = None,
    before: int = 0,
    ignored: int = 0,
    code: int | None = None,
    held: bool = True,
    going: bool = False,
    conditions: tuple[str, ...] = (),
    node: str = "n1",
    ago: float = 3600.0,
) -> Pod:
    """A pod of a Job. `code` is that of its container, which ended `ago` seconds before; `before`, how many of its
    index failed before it."""
    annotations = {} if index is None else {INDEX: str(index), COUNT: str(before)}
    if ignored:
        annotations[IGNORED] = str(ignored)
    meta: dict[str, Any] = {"annotations": annotations, "finalizers": [JOB_TRACKING] if held else []}
    if going:
        meta |= {"deletionTimestamp": format_time(NOW + timedelta(seconds=30)), "deletionGracePeriodSeconds": 30}
    at = format_time(NOW - timedelta(seconds=ago))
    state = {} if phase == "Running" else {"terminated": {"exitCode": code or 0, "finishedAt": at}}
    told = [{"type": type_, "status": "True"} for type_ in conditions]
    status = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}], "conditions": told}
    return make(Pod, name, meta, spec={"nodeName": node}, status=status)


def failed(name: str, **more: Any) -> Pod:
    return work(name, "Failed", **{"code": 1, **more})


def done(name: str, **more: Any) -> Pod:
    return work(name, "Succeeded", **more)


def names(pods: list[Pod]) -> list[str]:
    return [p.name for p in pods]


def said(decided: Plan) -> dict[str, str]:
    return {c.type: c.reason for c in decided.status.conditions if c.status == "True"}


def then(found: Job, decided: Plan, pods: list[Pod]) -> tuple[Job, list[Pod]]:
    """The Job and its pods once `decided` is carried out and what was deleted has ended."""
    free = {p.name for p in (*decided.free, *decided.drop)}
    gone = {p.name for p in (*decided.delete, *decided.drop)}
    left = [
        msgspec.structs.replace(p, metadata=msgspec.structs.replace(p.metadata, finalizers=[])) if p.name in free else p
        for p in pods
        if p.name not in gone
    ]
    status = {k: v for k, v in status_patch(decided.status)["status"].items() if v is not None}
    status["uncountedTerminatedPods"] = {k: v for k, v in status["uncountedTerminatedPods"].items() if v}
    return make(Job, found.name, spec=msgspec.to_builtins(found.spec), status=status), left


def settle(found: Job, pods: list[Pod], now: datetime = NOW) -> tuple[Plan, list[Pod]]:
    """The last plan, when a further look would change nothing of the pods there; and those."""
    known = NONE
    while True:
        decided = plan(found, pods, now, known)
        if ended(decided.status) or not (decided.free or decided.drop or decided.delete):
            return decided, pods
        known = decided.failures
        found, pods = then(found, decided, pods)


# ── how many ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("found", "pods", "create", "drop"),
    [
        pytest.param(job(), [], 1, [], id="the first"),
        pytest.param(job(completions=5, parallelism=2), [], 2, [], id="no more than its parallelism"),
        pytest.param(job(completions=5, parallelism=2), [done("a"), work("b")], 1, [], id="the next"),
        pytest.param(job(completions=3, parallelism=2), [done("a"), done("b"), work("c")], 0, [], id="the last"),
        pytest.param(job(completions=5, parallelism=1), [work("a"), work("b")], 0, ["a"], id="parallelism lowered"),
        pytest.param(job(completions=5, parallelism=0), [work("a")], 0, ["a"], id="to nothing"),
        pytest.param(job(completions=5, parallelism=3), [work("a")], 2, [], id="parallelism raised"),
        pytest.param(job(completions=None, parallelism=3), [work("a")], 2, [], id="a work queue"),
        pytest.param(job(completions=None, parallelism=3), [work("a"), done("b")], 0, [], id="that is drained"),
        pytest.param(job(completions=None, parallelism=1), [work("a"), work("c"), done("b")], 0, [],
                     id="whose others run to their end"),
        pytest.param(job(suspend=True), [work("a")], 0, ["a"], id="suspended"),
        pytest.param(indexed(3), [work("a", index=0), work("b", index=0), work("c", index=7), work("d")], 0,
                     ["a", "c", "d"], id="doubled, too high and without index"),
    ],
)  # fmt: skip
def test_how_many(found: Job, pods: list[Pod], create: int, drop: list[str]) -> None:
    decided = plan(found, pods, NOW)
    assert (len(decided.create), sorted(names(decided.drop))) == (create, drop)
    assert decided.delete == []


@pytest.mark.parametrize(
    ("policy", "pods", "create", "failures", "terminating"),
    [
        pytest.param("TerminatingOrFailed", [work("a", going=True)], 1, 1, 1, id="one going is replaced at once"),
        pytest.param("Failed", [work("a", going=True)], 0, 0, 1, id="or waited for"),
        pytest.param("Failed", [failed("a", going=True)], 1, 1, 0, id="until it has ended"),
        pytest.param("Failed", [done("a", going=True)], 0, 0, 0, id="or has succeeded after all"),
        pytest.param("Failed", [work("a", going=True, node="")], 1, 1, 1, id="one that no node has never ends"),
        pytest.param("TerminatingOrFailed", [work("a", going=True, held=False)], 1, 0, 1, id="one too many is no loss"),
        pytest.param("Failed", [work("a", going=True, held=False)], 0, 0, 1, id="but it is waited for"),
    ],
)
def test_when_a_pod_is_replaced(policy: str, pods: list[Pod], create: int, failures: int, terminating: int) -> None:
    later = NOW + timedelta(seconds=60)  # no failure is waited after
    decided, _ = settle(job(podReplacementPolicy=policy), pods, later)
    status = decided.status
    assert (len(decided.create), status.failed, status.terminating) == (create, failures, terminating)


# ── each is counted once ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pod_is_let_go_of_once_the_status_has_its_uid() -> None:
    """Before, it can't vanish; after, its uid makes room for a count."""
    found = job(completions=3, parallelism=1)
    first = plan(found, [done("a"), failed("b")], NOW)
    uncounted = status_patch(first.status)["status"]["uncountedTerminatedPods"]
    assert uncounted == {"succeeded": ["uid-a"], "failed": ["uid-b"]}
    assert (names(first.free), first.status.succeeded, first.status.failed) == (["a", "b"], 0, 0)
    found, _ = then(found, first, [])
    again = plan(found, [done("a"), failed("b")], NOW)
    assert again.status.uncounted_terminated_pods == first.status.uncounted_terminated_pods, "not twice"
    counted = plan(found, [], NOW)
    assert (counted.status.succeeded, counted.status.failed) == (1, 1), "also when the pods are gone"
    assert status_patch(counted.status)["status"]["uncountedTerminatedPods"] == {"succeeded": None, "failed": None}
    found, _ = then(found, counted, [])
    assert plan(found, [done("a", held=False)], NOW).status == counted.status, "and never again"


def test_a_pod_is_held_from_its_adoption_to_its_release() -> None:
    """Whoever else holds it goes on doing so."""
    orphan = make(Pod, "a", {"finalizers": ["other/one"]})
    meta = adoption(JOB, job(), orphan, JOB_TRACKING)["metadata"]
    assert (meta["finalizers"], meta["resourceVersion"]) == (["other/one", JOB_TRACKING], "1")
    held = make(Pod, "a", {"finalizers": meta["finalizers"], "ownerReferences": meta["ownerReferences"]})
    left = without_owners(held, frozenset(["uid-work"]), JOB_TRACKING)["metadata"]
    assert (left["finalizers"], left["ownerReferences"]) == (["other/one"], None)
    assert without_owners(work("b"), frozenset(), JOB_TRACKING)["metadata"]["finalizers"] is None
    assert "finalizers" not in without_owners(held, frozenset(["uid-work"]))["metadata"]


def test_so_many_are_counted_at_a_time() -> None:
    decided = plan(job(completions=1200, parallelism=1), [done(f"p{n}") for n in range(700)], NOW)
    assert len(decided.status.uncounted_terminated_pods.succeeded) == len(decided.free) == 500


def test_a_job_that_is_deleted_holds_no_pod() -> None:
    going = make(Job, "work", {"deletionTimestamp": "2026-01-01T00:59:59Z"}, spec={"completions": 2}, status=STARTED)
    decided = plan(going, [work("a"), done("b")], NOW)
    assert (names(decided.free), decided.delete, decided.create) == (["a", "b"], [], [])
    assert decided.status.uncounted_terminated_pods.succeeded == ["uid-b"]


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────────────────────────

MET = {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
LATE = {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"}
OFTEN = {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}


@pytest.mark.parametrize(
    ("found", "pods", "conditions", "counts"),
    [
        pytest.param(job(), [done("a")], MET, (1, 0), id="complete"),
        pytest.param(job(completions=0), [], MET, (0, 0), id="nothing to do"),
        pytest.param(job(completions=None), [done("a"), failed("b")], MET, (1, 1), id="a work queue"),
        pytest.param(job(backoffLimit=1), [failed("a"), failed("b")], OFTEN, (0, 2), id="failed too often"),
        pytest.param(job(parallelism=2, completions=2, backoffLimit=0), [failed("a"), work("b")], OFTEN, (0, 2),
                     id="what still runs has failed too"),
        pytest.param(job(activeDeadlineSeconds=60), [], LATE, (0, 0), id="too late"),
        pytest.param(job(parallelism=2), [done("a"), work("b")], MET, (1, 0), id="what still runs was too many"),
    ],
)  # fmt: skip
def test_how_it_ends(found: Job, pods: list[Pod], conditions: dict[str, str], counts: tuple[int, int]) -> None:
    decided, left = settle(found, pods)
    assert said(decided) == conditions
    assert not decided.create
    assert not any(p.status.phase == "Running" or p.metadata.finalizers for p in left)
    assert (decided.status.succeeded, decided.status.failed) == counts


def test_the_end_is_decided_first_and_said_when_no_pod_is_left() -> None:
    found = job(parallelism=2, completions=2, backoffLimit=0)
    first = plan(found, [failed("a"), work("b")], NOW)
    assert (said(first), names(first.delete)) == ({"FailureTarget": "BackoffLimitExceeded"}, ["b"])
    found, _ = then(found, first, [])
    waiting = plan(found, [failed("a", held=False), work("b", going=True, held=False)], NOW)
    assert (said(waiting), waiting.status.terminating, waiting.happened) == (said(first), 1, [])
    over = plan(found, [failed("a", held=False), failed("b", held=False)], NOW)
    assert said(over) == OFTEN
    assert over.happened == [("Warning", "BackoffLimitExceeded", "Job has reached the specified backoff limit")]


@pytest.mark.parametrize(
    ("limit", "restarts", "fails"), [(0, 0, False), (0, 1, True), (3, 2, False), (3, 3, True)]
)  # fmt: skip
def test_restarts_count_where_containers_restart(limit: int, restarts: int, fails: bool) -> None:
    """Those of init containers too."""
    counts = [{"name": "first", "restartCount": restarts}]
    running = make(
        Pod, "a", {"finalizers": [JOB_TRACKING]}, status={"phase": "Pending", "initContainerStatuses": counts}
    )
    template = {"spec": {"restartPolicy": "OnFailure"}}
    assert bool(said(plan(job(backoffLimit=limit, template=template), [running], NOW))) is fails


# ── after a failure ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_a_failure_the_next_waits() -> None:
    """Ten seconds after the first, twenty after the second; a success forgets them."""
    one, two = failed("a", ago=4), failed("b", ago=4)
    assert (plan(job(), [one], NOW).again, plan(job(), [one, two], NOW).again) == (6.0, 16.0)
    assert len(plan(job(), [one, two], NOW + timedelta(seconds=16)).create) == 1
    both = job(completions=2)
    assert plan(both, [one, done("c", ago=3)], NOW).again is None
    assert plan(both, [one, done("c", ago=5)], NOW).again == 6.0


def test_a_failed_pod_that_is_gone_is_waited_after() -> None:
    first = plan(job(), [failed("a", ago=4)], NOW)
    found, _ = then(job(), first, [])
    later = plan(found, [], NOW + timedelta(seconds=1), first.failures)
    assert (later.again, later.create) == (5.0, [])
    assert plan(found, [done("b", held=False, ago=0)], NOW, later.failures).again is None


def test_one_that_was_too_many_is_not_waited_after() -> None:
    assert plan(job(), [failed("a", held=False, going=True, ago=1)], NOW).again is None


# ── suspended ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_suspended_job_has_no_clock_until_it_is_resumed() -> None:
    suspended = plan(make(Job, "work", spec={"suspend": True, "completions": 1}), [], NOW)
    assert (said(suspended), suspended.status.start_time) == ({"Suspended": "JobSuspended"}, None)
    condition = {"type": "Suspended", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    resumed = plan(job({"conditions": [condition]}, activeDeadlineSeconds=30), [], NOW)
    assert (said(resumed), resumed.status.start_time, resumed.again) == ({}, format_time(NOW), 30.0)
    assert resumed.happened == [("Normal", "Resumed", "Job resumed")]


def test_a_suspended_jobs_pods_have_not_failed() -> None:
    found = job(suspend=True, backoffLimit=0)
    first = plan(found, [work("a")], NOW)
    assert (names(first.drop), first.free) == (["a"], [])
    found, _ = then(found, first, [])
    after = plan(found, [failed("a", held=False, going=True)], NOW)
    assert (said(after), after.status.failed) == ({"Suspended": "JobSuspended"}, 0)


# ── indexes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_indexes_are_each_done_once() -> None:
    found = indexed(5, 2)
    pods = [done("a", index=0), done("b", index=0), done("c", index=2), done("z", index=9), work("d", index=1)]
    decided = plan(found, pods, NOW)
    assert ([n.index for n in decided.create], decided.status.succeeded) == ([3], 2)
    assert (decided.status.completed_indexes, names(decided.free)) == ("0,2", ["a", "b", "c", "z"])
    assert decided.status.uncounted_terminated_pods.succeeded == []
    found, _ = then(found, decided, [])
    assert plan(found, [work("d", index=1)], NOW).status.completed_indexes == "0,2", "also when their pods are gone"


@pytest.mark.parametrize(
    ("indexes", "text"), [(set(), ""), ({3}, "3"), ({0, 1}, "0,1"), ({0, 1, 2, 5, 7, 8}, "0-2,5,7,8")]
)
def test_how_indexes_are_spelled(indexes: set[int], text: str) -> None:
    assert (spelled(indexes), read(text, 9)) == (text, indexes)


def test_what_a_job_has_no_more_is_not_read() -> None:
    assert read("0-5,7,x,9-", 4) == {0, 1, 2, 3}


def test_a_pod_is_told_its_index() -> None:
    containers = [{"name": "a"}, {"name": "b", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]}]
    template = {"metadata": {"finalizers": ["own/one"]}, "spec": {"hostname": "other", "containers": containers}}
    found = make(Job, "w" * 60, spec={"completions": 2, "completionMode": "Indexed", "template": template})
    tree = new_pod(found, plan(found, [], NOW).create[0])
    assert tree["metadata"]["generateName"] == "w" * 55 + "-0-"
    assert tree["metadata"]["labels"][INDEX] == tree["metadata"]["annotations"][INDEX] == "0"
    assert tree["metadata"]["finalizers"] == ["own/one", JOB_TRACKING]
    assert tree["spec"]["hostname"] == "w" * 60 + "-0"
    told, own = (c["env"] for c in tree["spec"]["containers"])
    assert told[0]["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{INDEX}']"
    assert own == [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]


# ── failures by index ────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_index_has_failures_of_its_own() -> None:
    """The failed pod is held until another is made in its place, which knows how many failed before."""
    found = indexed(2, backoffLimitPerIndex=2, backoffLimit=2**31 - 1)
    pods = [failed("a", index=0, before=1, ago=15), work("b", index=1)]
    waiting = plan(found, pods, NOW)
    assert (waiting.create, waiting.again, waiting.free, waiting.status.failed_indexes) == ([], 5.0, [], "")
    made = plan(found, pods, NOW + timedelta(seconds=5)).create
    assert [(n.index, n.annotations) for n in made] == [(0, {COUNT: "2"})]
    replaced = plan(found, [*pods, work("c", index=0, before=2)], NOW)
    assert (names(replaced.free), replaced.status.uncounted_terminated_pods.failed) == (["a"], ["uid-a"])


def test_the_first_of_an_index_knows_of_no_failure() -> None:
    assert plan(indexed(1, backoffLimitPerIndex=0), [], NOW).create[0].annotations == {COUNT: "0"}


PER_INDEX = {"backoffLimitPerIndex": 1, "backoffLimit": 2**31 - 1}


@pytest.mark.parametrize(
    ("found", "pods", "conditions", "failed_indexes"),
    [
        pytest.param(indexed(3, **PER_INDEX), [failed("a", index=0, before=1), work("b", index=1)], {}, "0",
                     id="the others go on"),
        pytest.param(indexed(2, **PER_INDEX), [failed("a", index=0, before=1), done("b", index=1)],
                     {"FailureTarget": "FailedIndexes", "Failed": "FailedIndexes"}, "0", id="until all have ended"),
        pytest.param(indexed(4, **PER_INDEX, maxFailedIndexes=1),
                     [failed("a", index=0, before=1), failed("b", index=1, before=1), work("c", index=2)],
                     {"FailureTarget": "MaxFailedIndexesExceeded", "Failed": "MaxFailedIndexesExceeded"}, "0,1",
                     id="or too many have failed"),
    ],
)  # fmt: skip
def test_an_index_that_has_failed_is_not_tried_again(
    found: Job, pods: list[Pod], conditions: dict[str, str], failed_indexes: str
) -> None:
    decided, _ = settle(found, pods)
    assert (said(decided), decided.status.failed_indexes) == (conditions, failed_indexes)
    assert 0 not in [n.index for n in decided.create]


# ── the failure policy ───────────────────────────────────────────────────────────────────────────────────────────────


def on_exit(action: str, operator: str, *values: int, container: str | None = None) -> dict[str, Any]:
    named = {"containerName": container} if container else {}
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(values)} | named}


def on_condition(action: str, type_: str) -> dict[str, Any]:
    return {"action": action, "onPodConditions": [{"type": type_, "status": "True"}]}


def policy(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"podFailurePolicy": {"rules": list(rules)}, "podReplacementPolicy": "Failed"}


DISRUPTED = failed("a", code=137, conditions=("DisruptionTarget",))


@pytest.mark.parametrize(
    ("rules", "found", "failures", "conditions"),
    [
        pytest.param([], failed("a", code=3), 1, {}, id="no rule: it counts"),
        pytest.param([on_exit("Ignore", "In", 3, 4)], failed("a", code=3), 0, {}, id="ignored"),
        pytest.param([on_exit("Ignore", "In", 4)], failed("a", code=3), 1, {}, id="another code"),
        pytest.param([on_exit("Ignore", "NotIn", 4)], failed("a", code=3), 0, {}, id="any other"),
        pytest.param([on_exit("Ignore", "NotIn", 4)], failed("a", code=0), 1, {}, id="success is no failure"),
        pytest.param([on_exit("Ignore", "In", 3, container="side")], failed("a", code=3), 1, {}, id="of another"),
        pytest.param([on_exit("Ignore", "In", 3, container="main")], failed("a", code=3), 0, {}, id="of this"),
        pytest.param([on_exit("Count", "In", 3), on_exit("Ignore", "In", 3)], failed("a", code=3), 1, {},
                     id="the first rule that fits"),
        pytest.param([on_condition("Ignore", "DisruptionTarget")], DISRUPTED, 0, {}, id="disrupted"),
        pytest.param([on_condition("Ignore", "ConfigIssue")], DISRUPTED, 1, {}, id="another condition"),
        pytest.param([on_exit("FailJob", "In", 3)], failed("a", code=3), 1,
                     {"FailureTarget": "PodFailurePolicy", "Failed": "PodFailurePolicy"}, id="the end"),
    ],
)  # fmt: skip
def test_what_a_failure_means(
    rules: list[dict[str, Any]], found: Pod, failures: int, conditions: dict[str, str]
) -> None:
    decided, left = settle(job(**policy(*rules)), [found])
    assert (decided.status.failed, said(decided), left[0].metadata.finalizers) == (failures, conditions, [])


@pytest.mark.parametrize(
    ("rule", "found", "message"),
    [
        (
            on_exit("FailJob", "In", 42),
            failed("a", code=42),
            "Container main for pod default/a failed with exit code 42 matching FailJob rule at index 0",
        ),
        (
            on_condition("FailJob", "DisruptionTarget"),
            DISRUPTED,
            "Pod default/a has condition DisruptionTarget matching FailJob rule at index 0",
        ),
    ],
)
def test_the_job_says_why_it_failed(rule: dict[str, Any], found: Pod, message: str) -> None:
    decided = plan(job(**policy(rule)), [found], NOW)
    assert [(c.type, c.message) for c in decided.status.conditions] == [("FailureTarget", message)]


def test_with_a_policy_a_pod_fails_only_once_it_has_ended() -> None:
    found = job(**policy(on_exit("FailJob", "In", 42)))
    going = plan(found, [work("a", going=True)], NOW)
    assert (going.free, going.create, going.status.terminating, said(going)) == ([], [], 1, {})
    assert said(plan(found, [failed("a", code=42, going=True)], NOW)) == {"FailureTarget": "PodFailurePolicy"}


def test_a_rule_fails_an_index_at_once_and_an_ignored_failure_is_handed_on_apart() -> None:
    rules = policy(on_exit("FailIndex", "In", 42), on_exit("Ignore", "In", 43))
    found = indexed(2, backoffLimitPerIndex=5, backoffLimit=2**31 - 1, **rules)
    pods = [failed("a", index=0, code=42), failed("b", index=1, code=43, before=2, ignored=1)]
    decided = plan(found, pods, NOW)
    assert decided.status.failed_indexes == "0"
    assert [(n.index, n.annotations) for n in decided.create] == [(1, {COUNT: "2", IGNORED: "2"})]


# ── the success policy ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rules", "done_", "met"),
    [
        pytest.param([{"succeededIndexes": "0,2"}], (0, 2), 0, id="these"),
        pytest.param([{"succeededIndexes": "0,2"}], (0, 1), None, id="not those"),
        pytest.param([{"succeededIndexes": "0-2", "succeededCount": 1}], (1,), 0, id="one of these"),
        pytest.param([{"succeededCount": 2}], (1,), None, id="too few"),
        pytest.param([{"succeededCount": 2}], (1, 3), 0, id="any two"),
        pytest.param([{"succeededIndexes": "0"}, {"succeededCount": 1}], (3,), 1, id="the second rule"),
        pytest.param([{"succeededCount": 0}], (), None, id="never before one has succeeded"),
    ],
)
def test_when_enough_has_succeeded(rules: list[dict[str, Any]], done_: tuple[int, ...], met: int | None) -> None:
    """What still runs is ended, and counts as nothing."""
    found = indexed(4, successPolicy={"rules": rules})
    pods = [done(f"p{i}", index=i) if i in done_ else work(f"p{i}", index=i) for i in range(4)]
    decided, left = settle(found, pods)
    reasons = {} if met is None else {"SuccessCriteriaMet": "SuccessPolicy", "Complete": "SuccessPolicy"}
    assert (said(decided), decided.status.failed) == (reasons, 0)
    assert decided.status.completed_indexes == spelled(done_)
    if met is not None:
        assert len(left) == len(done_)
        assert decided.status.conditions[0].message == f"Matched rules at index {met}"


# ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_job_goes_when_its_time_is_over() -> None:
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:59:50Z"}
    finished = job({"conditions": [condition]}, ttlSecondsAfterFinished=15)
    end = ended(finished.status)
    assert end is not None
    assert expires_in(finished, end, NOW) == 5.0
    assert expires_in(job(), end, NOW) is None


@pytest.mark.parametrize(
    ("manager", "ours"), [(None, True), ("kubernetes.io/job-controller", True), ("acme.io/queue", False)]
)
def test_a_job_may_have_another_manager(manager: str | None, ours: bool) -> None:
    assert job(managedBy=manager).is_ours is ours


def test_a_slim_pod_is_judged_as_the_whole() -> None:
    rules = policy(on_exit("FailJob", "In", 42), on_condition("Ignore", "Odd"))
    found = indexed(2, backoffLimitPerIndex=1, backoffLimit=9, **rules)
    pods = [
        failed("a", index=0, code=42, before=1),
        failed("b", index=1, conditions=("Odd",), ignored=3),
        pod("c", meta={"finalizers": [JOB_TRACKING]}),
    ]
    for some in (pods[:1], pods[1:]):
        assert status_patch(plan(found, [slim_pod(p) for p in some], NOW).status) == status_patch(
            plan(found, some, NOW).status
        )
