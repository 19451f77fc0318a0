"""Jobs: defaults, what their policies may say, what an update may change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubesvc.api.registry import CRON_JOB, JOB
from support.admission import admit, named, texts

JSON = dict[str, Any]
MOST = 2**31 - 1
case = pytest.param


def job(pod: JSON | None = None, **spec: Any) -> JSON:
    """A Job whose pods have the containers web and, first, init."""
    containers = {
        "containers": [{"name": "web", "image": "host"}],
        "initContainers": [{"name": "init", "image": "host"}],
    }
    template = {"spec": {"restartPolicy": "Never", **containers, **(pod or {})}}
    tree = named(JOB, "work", spec={"template": template, **spec})
    tree["metadata"]["uid"] = "uid-work"
    return tree


def indexed(**spec: Any) -> JSON:
    return job(**{"completionMode": "Indexed", "completions": 4, "parallelism": 4, **spec})


# ── defaults ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tree", "field", "value"),
    [
        case(job(), "completions", 1, id="once"),
        case(job(), "parallelism", 1, id="one at a time"),
        case(job(completions=3), "parallelism", 1, id="also of three"),
        case(job(), "backoffLimit", 6, id="a few failures"),
        case(job(), "manualSelector", False, id="its own pods"),
        case(indexed(backoffLimitPerIndex=1), "backoffLimit", MOST, id="any, where each index has its own"),
        case(job(), "podReplacementPolicy", "TerminatingOrFailed", id="replaced at once"),
        case(job(podFailurePolicy={"rules": []}), "podReplacementPolicy", "Failed", id="or when judged"),
    ],
)
def test_defaults(tree: JSON, field: str, value: Any) -> None:
    assert admit(JOB, tree)["spec"][field] == value


def test_a_condition_is_asked_to_be_true() -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    found = admit(JOB, job(podFailurePolicy={"rules": [rule]}))["spec"]["podFailurePolicy"]["rules"][0]
    assert found["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_a_job_has_the_labels_of_its_pods() -> None:
    labels = {"controller-uid": "uid-work", "job-name": "work"}
    labels |= {f"batch.kubernetes.io/{k}": v for k, v in labels.items()}
    found = admit(JOB, job())
    assert found["metadata"]["labels"] == found["spec"]["template"]["metadata"]["labels"] == labels
    assert found["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-work"}}
    own = job()
    own["metadata"]["labels"] = {"team": "shop"}
    assert admit(JOB, own)["metadata"]["labels"] == {"team": "shop"}


def test_another_jobs_labels_are_not_taken_over() -> None:
    """As of a Job that was read and is made again."""
    tree = job(selector={"matchLabels": {"batch.kubernetes.io/controller-uid": "old"}})
    tree["spec"]["template"]["metadata"] = {"labels": {"batch.kubernetes.io/controller-uid": "old"}}
    first, *_, last = texts(JOB, tree)
    assert first.startswith("spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Invalid value: {")
    assert first.endswith(": must be 'uid-work'")
    assert last.endswith("`selector` not auto-generated")


# ── what it may say ──────────────────────────────────────────────────────────────────────────────────────────────────


def failing(*rules: JSON, **spec: Any) -> JSON:
    return indexed(podFailurePolicy={"rules": list(rules)}, **spec)


def on_exit(action: str = "Ignore", operator: str = "In", values: list[int] | None = None, **more: Any) -> JSON:
    return {
        "action": action,
        "onExitCodes": {"operator": operator, "values": [1] if values is None else values, **more},
    }


def on_condition(**condition: str) -> JSON:
    return {"action": "Ignore", "onPodConditions": [condition]}


def enough(*rules: JSON, **spec: Any) -> JSON:
    return indexed(successPolicy={"rules": list(rules)}, **spec)


RULE = "spec.podFailurePolicy.rules[0]"
MET = "spec.successPolicy.rules[0]"
NEGATIVE = "must be greater than or equal to 0"


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        case(job(), None, id="a plain one"),
        case(job({"restartPolicy": "Always"}), 'spec.template.spec.restartPolicy: Required value: valid values: '
             '"OnFailure", "Never"', id="restarts for ever"),
        case(job(ttlSecondsAfterFinished=-1), f"spec.ttlSecondsAfterFinished: Invalid value: -1: {NEGATIVE}",
             id="removed before it has ended"),
        case(job(completionMode="Odd"), 'spec.completionMode: Unsupported value: "Odd": supported values: '
             '"NonIndexed", "Indexed"', id="an odd mode"),
        case(job(completionMode="Indexed", parallelism=2), "spec.completions: Required value: when completion "
             "mode is Indexed", id="no number of indexes"),
        case(indexed(parallelism=100_001), "spec.parallelism: Invalid value: 100001: must be less than or equal "
             "to 100000 when completion mode is Indexed", id="too many at once"),
        # by index
        case(indexed(backoffLimitPerIndex=0, maxFailedIndexes=4), None, id="by index"),
        case(job(backoffLimitPerIndex=1), "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed "
             "completion mode", id="without indexes"),
        case(indexed(backoffLimitPerIndex=-1), f"spec.backoffLimitPerIndex: Invalid value: -1: {NEGATIVE}",
             id="fewer than none"),
        case(indexed(maxFailedIndexes=1), "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is "
             "specified", id="no limit of an index"),
        case(indexed(backoffLimitPerIndex=1, maxFailedIndexes=5), "spec.maxFailedIndexes: Invalid value: 5: must "
             "be less than or equal to completions", id="more than there are"),
        case(indexed(completions=100_001, backoffLimitPerIndex=1), "spec.maxFailedIndexes: Required value: must "
             "be specified when completions is above 100000", id="very many"),
        # failures
        case(failing(on_exit()), None, id="a failure policy"),
        case(failing(on_exit(containerName="init")), None, id="about an init container"),
        case(failing(on_exit("FailIndex"), backoffLimitPerIndex=1), None, id="that fails an index"),
        case(failing(on_exit(), pod={"restartPolicy": "OnFailure"}), "spec.template.spec.restartPolicy: Invalid "
             'value: "OnFailure": only "Never" is supported when podFailurePolicy is specified', id="restarts"),
        case(failing(on_exit(), podReplacementPolicy="TerminatingOrFailed"), "spec.podReplacementPolicy: "
             'Unsupported value: "TerminatingOrFailed": supported values: "Failed"', id="replaced unjudged"),
        case(job(podReplacementPolicy="Odd"), 'spec.podReplacementPolicy: Unsupported value: "Odd": supported '
             'values: "Failed", "TerminatingOrFailed"', id="replaced oddly"),
        case(failing(*[on_exit()] * 21), "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items",
             id="too many rules"),
        case(failing(on_exit("FailIndex")), f'{RULE}.action: Invalid value: "FailIndex": requires the '
             "backoffLimitPerIndex to be set", id="no index fails"),
        case(failing(on_exit("Odd")), f'{RULE}.action: Unsupported value: "Odd": supported values: "Count", '
             '"FailIndex", "FailJob", "Ignore"', id="an odd action"),
        case(failing({"action": "Ignore"}), f"{RULE}: Invalid value: specifying one of OnExitCodes and "
             "OnPodConditions is required", id="a rule about nothing"),
        case(failing(on_exit() | on_condition(type="A")), f"{RULE}: Invalid value: specifying both OnExitCodes "
             "and OnPodConditions is not supported", id="a rule about both"),
        case(failing(on_exit(operator="Odd")), f'{RULE}.onExitCodes.operator: Unsupported value: "Odd": '
             'supported values: "In", "NotIn"', id="an odd operator"),
        case(failing(on_exit(containerName="x")), f'{RULE}.onExitCodes.containerName: Invalid value: "x": must '
             "be one of the container or initContainer names in the pod template", id="no such container"),
        case(failing(on_exit(values=[])), f"{RULE}.onExitCodes.values: Invalid value: []: at least one value is "
             "required", id="no code"),
        case(failing(on_exit(values=list(range(1, 257)))), f"{RULE}.onExitCodes.values: Too many: 256: must have "
             "at most 255 items", id="too many codes"),
        case(failing(on_exit(values=[0])), f"{RULE}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for "
             "the In operator", id="success is no failure"),
        case(failing(on_exit(values=[1, 1])), f"{RULE}.onExitCodes.values[1]: Duplicate value: 1", id="twice"),
        case(failing(on_exit(values=[2, 1])), f"{RULE}.onExitCodes.values: Invalid value: [2,1]: must be ordered",
             id="in disorder"),
        case(failing(on_condition(type="A", status="Odd")), f'{RULE}.onPodConditions[0].status: Unsupported '
             'value: "Odd": supported values: "False", "True", "Unknown"', id="an odd status"),
        case(failing(on_condition(type="a b")), f'{RULE}.onPodConditions[0].type: Invalid value: "a b": name '
             "part must consist of", id="an odd condition"),
        # success
        case(enough({"succeededIndexes": "0,2-3", "succeededCount": 2}), None, id="a success policy"),
        case(job(successPolicy={"rules": []}), 'spec.successPolicy: Invalid value: {"rules":[]}: requires indexed '
             "completion mode", id="success without indexes"),
        case(enough(), "spec.successPolicy.rules: Required value: at least one rules must be specified when the "
             "successPolicy is specified", id="no rule"),
        case(enough({}), f"{MET}: Required value: at least one of succeededCount or succeededIndexes must be "
             "specified", id="an empty rule"),
        case(enough({"succeededCount": -1}), f"{MET}.succeededCount: Invalid value: -1: {NEGATIVE}",
             id="fewer successes than none"),
        case(enough({"succeededCount": 5}), f"{MET}.succeededCount: Invalid value: 5: must be less than or equal "
             "to 4 (the number of specified completions)", id="more successes than there are"),
        case(enough({"succeededIndexes": "0,1", "succeededCount": 3}), f"{MET}.succeededCount: Invalid value: 3: "
             "must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
             id="more than are named"),
        *(case(enough({"succeededIndexes": text}), f'{MET}.succeededIndexes: Invalid value: "{text}": error '
               f"parsing succeededIndexes: {why}", id=text)
          for text, why in (
              ("x", 'cannot convert string to integer for index: "x"'),
              ("4", 'too large index: "4"'),
              ("0-1-2", 'the fragment "0-1-2" violates the requirement that an index interval can have at most two '
                "parts separated by '-'"),
              ("2-1", "non-increasing order, previous: 2, current: 1"),
              ("0-2,2", "non-increasing order, previous: 2, current: 2"),
              ("0,0", "non-increasing order, previous: 0, current: 0"),
          )),
        # whose it is
        case(job(managedBy="acme.io/queue"), None, id="another manager"),
        case(job(managedBy=""), "spec.managedBy: Required value", id="a manager without name"),
        case(job(managedBy="acme"), 'spec.managedBy: Invalid value: "acme": must be a domain-prefixed path (such '
             'as "acme.io/foo")', id="a manager without domain"),
        case(job(managedBy="A/x"), 'spec.managedBy: Invalid value: "A": a lowercase RFC 1123 subdomain',
             id="a wrong domain"),
        case(job(managedBy="acme.io/a b"), 'spec.managedBy: Invalid value: "a b": Invalid path (regex used for '
             "validation is", id="a wrong path"),
        case(job(managedBy="acme.io/" + "x" * 56), "spec.managedBy: Too long: may not be more than 63 bytes",
             id="a long name"),
    ],
)  # fmt: skip
def test_what_a_job_may_say(tree: JSON, found: str | None) -> None:
    told = texts(JOB, tree)
    assert len(told) == (0 if found is None else 1), told
    assert found is None or told[0].startswith(found)


def test_an_indexed_jobs_pods_have_host_names() -> None:
    tree = indexed()
    tree["metadata"]["name"] = "w" * 62
    assert texts(JOB, tree)[-1] == (
        f'metadata.name: Invalid value: "{"w" * 62}": will not able to create pod with invalid DNS label: {"w" * 62}-3'
    )


def test_a_cron_jobs_template_is_held_to_the_same() -> None:
    spec = {"schedule": "@daily", "jobTemplate": {"spec": failing(on_exit("Odd"))["spec"]}}
    (told,) = texts(CRON_JOB, named(CRON_JOB, "daily", spec=spec))
    assert told.startswith("spec.jobTemplate.spec.podFailurePolicy.rules[0].action: Unsupported value")


# ── what may be changed ──────────────────────────────────────────────────────────────────────────────────────────────

IMMUTABLE = "field is immutable"


@pytest.mark.parametrize(
    ("before", "changes", "found"),
    [
        case(job(), {"parallelism": 3, "backoffLimit": 1, "suspend": True, "activeDeadlineSeconds": 5}, [],
             id="how it runs"),
        case(job(), {"completions": 2}, [f"spec.completions: Invalid value: 2: {IMMUTABLE}"], id="how much"),
        case(indexed(), {"completions": 6, "parallelism": 6}, [], id="how many indexes"),
        case(indexed(), {"completions": 6}, ["spec.completions: Invalid value: 6: can only be modified in tandem "
             "with spec.parallelism"], id="but not alone"),
        case(indexed(), {"completionMode": "NonIndexed"},
             [f'spec.completionMode: Invalid value: "NonIndexed": {IMMUTABLE}'], id="its mode"),
        case(indexed(), {"backoffLimitPerIndex": 1},
             [f"spec.backoffLimitPerIndex: Invalid value: 1: {IMMUTABLE}"], id="its indexes' limit"),
        case(job(), {"managedBy": "acme.io/queue"},
             [f'spec.managedBy: Invalid value: "acme.io/queue": {IMMUTABLE}'], id="its manager"),
        case(indexed(), {"successPolicy": {"rules": [{"succeededCount": 1}]}},
             ['spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: ' + IMMUTABLE],
             id="its success policy"),
        case(job(podReplacementPolicy="Failed"), {"podFailurePolicy": {"rules": []}},
             ['spec.podFailurePolicy: Invalid value: {"rules":[]}: ' + IMMUTABLE], id="its failure policy"),
    ],
)  # fmt: skip
def test_what_an_update_may_change(before: JSON, changes: JSON, found: list[str]) -> None:
    old = admit(JOB, before)
    new = copy.deepcopy(old)
    new["spec"] |= changes
    assert texts(JOB, new, old) == found


@pytest.mark.parametrize(
    ("suspend", "started", "changes", "allowed"),
    [
        case(True, False, {"nodeSelector": {"disk": "ssd"}}, True, id="before it first starts"),
        case(True, False, {"affinity": {"nodeAffinity": {}}}, True, id="also by affinity"),
        case(True, False, {"affinity": {"podAffinity": {}}}, False, id="to nodes"),
        case(True, False, {"hostNetwork": True}, False, id="nothing else"),
        case(True, True, {"nodeSelector": {"disk": "ssd"}}, False, id="not later"),
        case(False, False, {"nodeSelector": {"disk": "ssd"}}, False, id="nor when it may start any time"),
    ],
)
def test_where_pods_go_may_change_until_a_suspended_job_starts(
    suspend: bool, started: bool, changes: JSON, allowed: bool
) -> None:
    old = admit(JOB, job(suspend=suspend))
    old["status"] = {"startTime": "2026-01-01T00:00:00Z"} if started else {}
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"] |= changes
    told = texts(JOB, new, old)
    assert (told == []) is allowed
    assert allowed or (told[0].startswith("spec.template: Invalid value: ") and told[0].endswith(IMMUTABLE))
