"""Jobs with policies: what the exit codes and the ends of real pods come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.box import eventually

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(three_nodes, namespace) -> Kubectl:
    return lambda *words, **options: three_nodes.kubectl("-n", namespace, *words, **options)


def apply(kubectl: Kubectl, name: str, script: str, **spec: Any) -> None:
    """A Job whose pods run `script`."""
    container = {"name": "main", "image": "host", "command": ["sh", "-c", script]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    whole = {"template": {"spec": pod}, **spec}
    tree = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": whole}
    assert "Warning" not in kubectl("apply", "-f", "-", input=json.dumps(tree))


def status_once(kubectl: Kubectl, name: str, condition: str) -> dict[str, Any]:
    kubectl("wait", f"--for=condition={condition}", f"job/{name}", "--timeout=120s")
    status: dict[str, Any] = json.loads(kubectl("get", "job", name, "-o", "json"))["status"]
    return status


def on_exit(action: str, code: int) -> dict[str, Any]:
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [code]}}
    return {"rules": [rule]}


def indexed(completions: int) -> dict[str, Any]:
    return {"completionMode": "Indexed", "completions": completions, "parallelism": completions}


def test_exit_codes_say_what_becomes_of_a_job(kubectl: Kubectl) -> None:
    """One ends it, one ends an index alone; the end of a leader is the success of all."""
    apply(kubectl, "bad", "exit 42", podFailurePolicy=on_exit("FailJob", 42))
    part = "test $JOB_COMPLETION_INDEX != 1 || exit 42"
    apply(kubectl, "parts", part, backoffLimitPerIndex=5, podFailurePolicy=on_exit("FailIndex", 42), **indexed(3))
    leader = "test $(hostname) = led-0 || sleep 1000000"
    apply(kubectl, "led", leader, successPolicy={"rules": [{"succeededIndexes": "0"}]}, **indexed(3))
    bad = status_once(kubectl, "bad", "Failed")
    reasons = {c["type"]: c["reason"] for c in bad["conditions"]}
    assert reasons == {"FailureTarget": "PodFailurePolicy", "Failed": "PodFailurePolicy"}
    assert "failed with exit code 42 matching FailJob rule at index 0" in bad["conditions"][-1]["message"]
    parts = status_once(kubectl, "parts", "Failed")
    assert (parts["failedIndexes"], parts["completedIndexes"]) == ("1", "0,2")
    assert (parts["succeeded"], parts["failed"], parts["conditions"][-1]["reason"]) == (2, 1, "FailedIndexes")
    led = status_once(kubectl, "led", "Complete")
    assert (led["completedIndexes"], led["terminating"], led["conditions"][-1]["reason"]) == ("0", 0, "SuccessPolicy")
    assert kubectl("get", "pods", "-l", "job-name=led", "--field-selector=status.phase=Running", "-o", "name") == ""


def test_an_evicted_pod_is_no_failure_of_a_job_that_ignores_disruptions(kubectl: Kubectl, namespace: str) -> None:
    """Without the policy the first failure would be its last."""
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    apply(kubectl, "calm", "sleep 1000000", backoffLimit=0, podFailurePolicy={"rules": [rule]})
    kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/calm", "--timeout=120s")
    name = kubectl("get", "pods", "-l", "job-name=calm", "-o", "jsonpath={.items[0].metadata.name}")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
    eventually(lambda: name not in kubectl("get", "pods", "-o", "name"), what="the evicted pod counted and gone")
    status = json.loads(kubectl("get", "job", "calm", "-o", "json"))["status"]
    assert (status.get("failed"), status.get("conditions")) == (None, None)


def test_a_suspended_jobs_pods_end_without_having_failed(kubectl: Kubectl) -> None:
    """They end badly, by a signal; the Job, which bears no failure, goes on when it is resumed."""
    apply(kubectl, "pause", "exec sleep 1000000", backoffLimit=0)
    kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/pause", "--timeout=120s")
    kubectl("patch", "job/pause", "-p", '{"spec":{"suspend":true}}')
    status_once(kubectl, "pause", "Suspended")
    eventually(lambda: not kubectl("get", "pods", "-l", "job-name=pause", "-o", "name"), what="no pod")
    kubectl("patch", "job/pause", "-p", '{"spec":{"suspend":false}}')
    kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/pause", "--timeout=120s")
    status = json.loads(kubectl("get", "job", "pause", "-o", "json"))["status"]
    assert status.get("failed") is None
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Suspended": "False"}
