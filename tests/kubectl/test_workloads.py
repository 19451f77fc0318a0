"""Real kubectl with the kinds that make pods, but for Deployments; a stand-in agent runs the pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.agents import ENDS
from support.apiserver import ServerThread
from support.box import eventually
from support.controlled import controlled_server
from support.kubectl import Kubectl
from support.objects import LONG_DUE, far_away

REVISION = "controller-revision-hash"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with controlled_server(tmp_path_factory.mktemp("workloads")) as thread:
        yield thread


def workload(kind: str, name: str = "db", *, annotations: dict[str, str] | None = None, **spec: Any) -> str:
    labels = {"app": name}
    pod = {"containers": [{"name": "c", "image": "host", "command": ["sleep", "infinity"]}], **spec.pop("pod", {})}
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": pod}
    group = {"Job": "batch/v1", "ReplicationController": "v1"}.get(kind, "apps/v1")
    selector = {} if kind == "Job" else {"selector": labels if group == "v1" else {"matchLabels": labels}}
    whole = {"template": template} | selector | spec
    return json.dumps({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": whole})


def apply(kubectl: Kubectl, kind: str, **spec: Any) -> str:
    return kubectl("apply", "-f", "-", stdin=workload(kind, **spec))


def pods(kubectl: Kubectl) -> dict[str, dict[str, str]]:
    """name -> labels of the pods that stay"""
    found = kubectl.json("get", "pods")["items"]
    return {p["metadata"]["name"]: p["metadata"]["labels"] for p in found if "deletionTimestamp" not in p["metadata"]}


def replace(kubectl: Kubectl, name: str) -> None:
    """Delete a pod and wait for the one that comes in its place. (A kubectl that waits itself may miss the deletion if
    the name is taken again within milliseconds.)"""
    before = kubectl("get", "pod", name, "-o", "jsonpath={.metadata.uid}")
    kubectl("delete", "pod", name, "--wait=false")

    def another() -> bool:
        uid = kubectl(
            "get", "pods", f"--field-selector=metadata.name={name}", "-o", "jsonpath={.items[*].metadata.uid}"
        )
        return uid not in ("", before)

    eventually(another, what=f"another pod {name}")
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def happened(kubectl: Kubectl, reason: str, name: str = "db") -> list[str]:
    """Messages of events about an object, in their order; waits for the first. (`kubectl wait` fails at once while
    there is none.)"""
    selector = f"--field-selector=reason={reason},involvedObject.name={name}"

    def messages() -> list[str]:
        return [e["message"] for e in kubectl.json("get", "events", selector)["items"]]

    eventually(messages, what=f"an event {reason} about {name}")
    return messages()


def revisions(kubectl: Kubectl, resource: str) -> list[str]:
    lines = kubectl("rollout", "history", resource).splitlines()[2:]
    return [line.split()[0] for line in lines if line.strip()]


def test_a_stateful_sets_pods_have_names_that_stay(kubectl: Kubectl) -> None:
    assert "Warning" not in apply(kubectl, "StatefulSet", replicas=3, serviceName="db")
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    found = pods(kubectl)
    assert sorted(found) == ["db-0", "db-1", "db-2"]
    assert found["db-1"]["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert found["db-1"]["apps.kubernetes.io/pod-index"] == "1"
    spec = kubectl.json("get", "pod", "db-1")["spec"]
    assert (spec["hostname"], spec["subdomain"]) == ("db-1", "db")
    created = kubectl.json("get", "pods", "--sort-by=.metadata.creationTimestamp")["items"]
    assert [p["metadata"]["name"] for p in created] == ["db-0", "db-1", "db-2"]
    replace(kubectl, "db-1")
    kubectl("scale", "statefulset/db", "--replicas=1")
    kubectl("wait", "--for=delete", "pod/db-1", "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.status.replicas}=1", "statefulset/db", "--timeout=60s")
    assert sorted(pods(kubectl)) == ["db-0"]
    deleted = happened(kubectl, "SuccessfulDelete")
    assert "delete Pod db-2 in StatefulSet db successful" in deleted
    assert kubectl("get", "statefulset", "db", "--no-headers").split()[1] == "1/1"


def test_a_stateful_sets_rollout_history_and_undo(kubectl: Kubectl) -> None:
    apply(kubectl, "StatefulSet", replicas=2, serviceName="db")
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    first = pods(kubectl)["db-0"][REVISION]
    kubectl("set", "env", "statefulset/db", "VERSION=2")
    assert "2 new pods have been updated" in kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert {labels[REVISION] for labels in pods(kubectl).values()}.isdisjoint({first})
    assert revisions(kubectl, "statefulset/db") == ["1", "2"]
    assert "VERSION" in kubectl("rollout", "history", "statefulset/db", "--revision=2")
    assert "VERSION" not in kubectl("rollout", "history", "statefulset/db", "--revision=1")
    kubectl("rollout", "undo", "statefulset/db")
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert {labels[REVISION] for labels in pods(kubectl).values()} == {first}
    assert revisions(kubectl, "statefulset/db") == ["2", "3"]
    kubectl("rollout", "restart", "statefulset/db")
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert {labels[REVISION] for labels in pods(kubectl).values()}.isdisjoint({first})


def test_a_partition_holds_the_lower_ordinals_back(kubectl: Kubectl) -> None:
    partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    apply(kubectl, "StatefulSet", replicas=3, serviceName="db", updateStrategy=partition)
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    first = pods(kubectl)["db-0"][REVISION]
    kubectl("set", "env", "statefulset/db", "VERSION=2")
    assert "partitioned roll out complete: 1 new pods" in kubectl(
        "rollout", "status", "statefulset/db", "--timeout=60s"
    )
    now = {name: labels[REVISION] == first for name, labels in pods(kubectl).items()}
    assert now == {"db-0": True, "db-1": True, "db-2": False}
    replace(kubectl, "db-0")
    assert pods(kubectl)["db-0"][REVISION] == first
    kubectl("patch", "statefulset/db", "-p", '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}')
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert {labels[REVISION] == first for labels in pods(kubectl).values()} == {False}


def test_on_delete_replaces_only_what_is_deleted(kubectl: Kubectl) -> None:
    apply(kubectl, "StatefulSet", replicas=2, podManagementPolicy="Parallel", updateStrategy={"type": "OnDelete"})
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "statefulset/db", "--timeout=60s")
    first = pods(kubectl)["db-0"][REVISION]
    kubectl("set", "env", "statefulset/db", "VERSION=2")
    kubectl("wait", "--for=jsonpath={.status.observedGeneration}=2", "statefulset/db", "--timeout=60s")
    replace(kubectl, "db-0")
    now = {name: labels[REVISION] == first for name, labels in pods(kubectl).items()}
    assert now == {"db-0": False, "db-1": True}


def test_a_daemon_set_has_a_pod_on_every_node_it_fits(kubectl: Kubectl) -> None:
    assert "Warning" not in apply(kubectl, "DaemonSet", name="agent")
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    found = kubectl.json("get", "pods")["items"]
    assert sorted(p["spec"]["nodeName"] for p in found) == ["n1", "n2"]
    kubectl("set", "env", "daemonset/agent", "VERSION=2")
    assert "successfully rolled out" in kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    assert revisions(kubectl, "daemonset/agent") == ["1", "2"]
    kubectl("rollout", "undo", "daemonset/agent", "--to-revision=1")
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    assert "VERSION" not in kubectl("get", "pods", "-o", "yaml")
    kubectl("rollout", "restart", "daemonset/agent")
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    assert kubectl("get", "daemonset", "agent", "--no-headers").split()[1:6] == ["2"] * 5
    kubectl("label", "node", "n1", f"only={kubectl.namespace}", "--overwrite")
    selector = {"spec": {"template": {"spec": {"nodeSelector": {"only": kubectl.namespace}}}}}
    kubectl("patch", "daemonset/agent", "-p", json.dumps(selector))
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.status.desiredNumberScheduled}=1", "daemonset/agent", "--timeout=60s")

    def places() -> set[str]:
        return {p["spec"]["nodeName"] for p in kubectl.json("get", "pods")["items"]}

    eventually(lambda: places() == {"n1"}, what="the pod of n2 is gone")


def test_a_daemon_set_with_surge_is_never_a_pod_short(kubectl: Kubectl) -> None:
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    apply(kubectl, "DaemonSet", name="agent", updateStrategy=surge)
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    kubectl("set", "env", "daemonset/agent", "VERSION=2")
    assert "successfully rolled out" in kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    assert len(pods(kubectl)) == 2


def test_a_job_runs_to_its_completions(kubectl: Kubectl) -> None:
    never = {"restartPolicy": "Never"}
    succeed = {ENDS: "Succeeded"}
    assert "Warning" not in apply(
        kubectl, "Job", name="once", annotations=succeed, completions=3, parallelism=2, pod=never
    )
    kubectl("wait", "--for=condition=complete", "job/once", "--timeout=60s")
    status = kubectl.json("get", "job", "once")["status"]
    assert (status["succeeded"], status.get("active"), status["ready"]) == (3, None, 0)
    assert kubectl("get", "job", "once", "--no-headers").split()[1:3] == ["Complete", "3/3"]
    assert len(pods(kubectl)) == 3
    kubectl("delete", "job", "once", "--cascade=foreground", "--timeout=60s")
    assert pods(kubectl) == {}


def test_a_job_that_fails_ends_at_its_limit(kubectl: Kubectl) -> None:
    apply(kubectl, "Job", name="bad", annotations={ENDS: "Failed"}, backoffLimit=0, pod={"restartPolicy": "Never"})
    kubectl("wait", "--for=condition=failed", "job/bad", "--timeout=60s")
    conditions = {c["type"]: c["reason"] for c in kubectl.json("get", "job", "bad")["status"]["conditions"]}
    assert conditions == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}


def test_a_job_past_its_deadline_is_stopped_and_one_past_its_time_is_removed(kubectl: Kubectl) -> None:
    apply(
        kubectl,
        "Job",
        name="slow",
        activeDeadlineSeconds=1,
        pod={"restartPolicy": "Never"},
    )
    kubectl("wait", "--for=condition=failed", "job/slow", "--timeout=60s")
    assert len(happened(kubectl, "SuccessfulCreate", "slow")) == 1
    assert happened(kubectl, "DeadlineExceeded", "slow") == ["Job was active longer than specified deadline"]
    kubectl("patch", "job/slow", "-p", '{"spec":{"ttlSecondsAfterFinished":1}}')
    kubectl("wait", "--for=delete", "job/slow", "--timeout=60s")
    assert pods(kubectl) == {}


def test_an_indexed_job_and_a_suspended_one(kubectl: Kubectl) -> None:
    indexed = {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "suspend": True}
    apply(kubectl, "Job", name="work", annotations={ENDS: "Succeeded"}, pod={"restartPolicy": "Never"}, **indexed)
    kubectl("wait", "--for=condition=suspended", "job/work", "--timeout=60s")
    assert pods(kubectl) == {}
    kubectl("patch", "job/work", "-p", '{"spec":{"suspend":false}}')
    kubectl("wait", "--for=condition=complete", "job/work", "--timeout=60s")
    assert kubectl.json("get", "job", "work")["status"]["completedIndexes"] == "0-2"
    pod = next(p for p in kubectl.json("get", "pods")["items"] if p["spec"]["hostname"] == "work-1")
    assert pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "1"
    assert pod["spec"]["containers"][0]["env"][-1]["name"] == "JOB_COMPLETION_INDEX"


def test_a_cron_jobs_job_is_made_when_it_is_due_or_by_hand(kubectl: Kubectl) -> None:
    job = json.loads(workload("Job", annotations={ENDS: "Succeeded"}, pod={"restartPolicy": "Never"}))
    schedule = far_away()
    spec = {"schedule": schedule, "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job["spec"]}}
    tree = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "db"}, "spec": spec}
    assert "Warning" not in kubectl("apply", "-f", "-", stdin=json.dumps(tree))
    kubectl("patch", "cronjob/db", "--subresource=status", "-p", LONG_DUE)
    (message,) = happened(kubectl, "SuccessfulCreate")
    name = message.removeprefix("Created job ")
    kubectl("wait", "--for=condition=complete", f"job/{name}", "--timeout=60s")
    assert happened(kubectl, "SawCompletedJob") == [f"Saw completed job: {name}, condition: Complete"]
    heading, line = kubectl("get", "cronjob", "db").splitlines()
    assert heading.split() == ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "SCHEDULE", "AGE"]
    assert line.split()[6:9] == ["<none>", "False", "0"]
    assert line.split()[:6] == ["db", *schedule.split()]
    described = kubectl("describe", "cronjob", "db")
    assert all(text in described for text in ("Concurrency Policy:", "Forbid", "Created job " + name))
    assert kubectl("create", "job", "--from=cronjob/db", "by-hand") == "job.batch/by-hand created\n"
    kubectl("wait", "--for=condition=complete", "job/by-hand", "--timeout=60s")
    made = kubectl.json("get", "job", "by-hand")["metadata"]
    assert made["annotations"] == {"cronjob.kubernetes.io/instantiate": "manual"}
    assert [(o["kind"], o["name"]) for o in made["ownerReferences"]] == [("CronJob", "db")]
    assert happened(kubectl, "UnexpectedJob")[0].endswith("did not create or forgot: by-hand")
    kubectl("delete", "cronjob", "db", "--cascade=foreground", "--timeout=60s")
    assert (kubectl("get", "jobs", "-o", "name"), pods(kubectl)) == ("", {})


def test_a_pod_counts_once_also_when_somebody_deletes_it(kubectl: Kubectl) -> None:
    """It is held until its Job has counted it; what it did is not done again."""
    apply(kubectl, "Job", name="pair", completions=2, pod={"restartPolicy": "Never"})

    def end_the_next(known: set[str]) -> str:
        eventually(lambda: set(pods(kubectl)) - known, what="another pod")
        (name,) = set(pods(kubectl)) - known
        assert "batch.kubernetes.io/job-tracking" in kubectl(
            "get", "pod", name, "-o", "jsonpath={.metadata.finalizers}"
        )
        kubectl("annotate", "pod", name, f"{ENDS}=Succeeded")
        return name

    first = end_the_next(set())
    kubectl("delete", "pod", first, "--timeout=60s")
    second = end_the_next({first})
    kubectl("wait", "--for=condition=complete", "job/pair", "--timeout=60s")
    status = kubectl.json("get", "job", "pair")["status"]
    assert (status["succeeded"], status["uncountedTerminatedPods"]) == (2, {})
    assert set(pods(kubectl)) == {second}
    assert "finalizers" not in kubectl.json("get", "pod", second)["metadata"]


@pytest.mark.parametrize("cascade", ["background", "orphan"])
def test_pods_of_a_deleted_job_are_let_go_of(kubectl: Kubectl, cascade: str) -> None:
    apply(kubectl, "Job", name="long", parallelism=2, completions=2, pod={"restartPolicy": "Never"})
    kubectl("wait", "--for=jsonpath={.status.ready}=2", "job/long", "--timeout=60s")
    left = sorted(pods(kubectl))
    kubectl("delete", "job", "long", f"--cascade={cascade}")
    if cascade == "orphan":
        assert sorted(pods(kubectl)) == left
        kubectl("delete", "pods", *left, "--timeout=60s")
    eventually(lambda: not kubectl.json("get", "pods")["items"], what="no pod")


def test_a_job_of_another_manager_is_left_alone_but_for_its_time(kubectl: Kubectl) -> None:
    never = {"restartPolicy": "Never"}
    assert "Warning" not in apply(kubectl, "Job", name="theirs", managedBy="acme.io/queue", pod=never)
    apply(kubectl, "Job", name="ours", annotations={ENDS: "Succeeded"}, pod=never)
    kubectl("wait", "--for=condition=complete", "job/ours", "--timeout=60s")
    assert "status" not in kubectl.json("get", "job", "theirs") or not kubectl.json("get", "job", "theirs")["status"]
    assert all(name.startswith("ours-") for name in pods(kubectl))
    kubectl("patch", "job/theirs", "-p", '{"spec":{"ttlSecondsAfterFinished":0}}')
    done = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = json.dumps({"status": {"conditions": [done]}})
    kubectl("patch", "job/theirs", "--subresource=status", "--type=merge", "-p", status)
    kubectl("wait", "--for=delete", "job/theirs", "--timeout=60s")


def test_a_replication_controller_keeps_its_pods(kubectl: Kubectl) -> None:
    assert "Warning" not in apply(kubectl, "ReplicationController", name="old", replicas=2)
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "rc/old", "--timeout=60s")
    kubectl("scale", "rc/old", "--replicas=1")
    kubectl("wait", "--for=jsonpath={.status.replicas}=1", "rc/old", "--timeout=60s")
    assert len(pods(kubectl)) == 1
    assert kubectl("get", "rc", "old", "--no-headers").split()[1:4] == ["1", "1", "1"]


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "ReplicationController"])
def test_dependents_go_or_stay_as_asked(kubectl: Kubectl, kind: str) -> None:
    """Orphans stay and are adopted again; background and foreground take them along."""
    resource = f"{kind.lower()}/db"
    more = {} if kind == "DaemonSet" else {"replicas": 2}

    def make() -> None:
        apply(kubectl, kind, **more)
        ready = "{.status.numberReady}" if kind == "DaemonSet" else "{.status.readyReplicas}"
        kubectl("wait", f"--for=jsonpath={ready}=2", resource, "--timeout=60s")

    make()
    before = {p["metadata"]["uid"] for p in kubectl.json("get", "pods")["items"]}
    kubectl("delete", resource, "--cascade=orphan")
    assert {p["metadata"]["uid"] for p in kubectl.json("get", "pods")["items"]} == before
    assert all("ownerReferences" not in p["metadata"] for p in kubectl.json("get", "pods")["items"])
    make()
    assert {p["metadata"]["uid"] for p in kubectl.json("get", "pods")["items"]} == before
    kubectl("delete", resource, "--cascade=foreground", "--timeout=60s")
    assert kubectl.json("get", "pods,controllerrevisions")["items"] == []
    make()
    kubectl("delete", resource, "--cascade=background")
    kubectl("wait", "--for=delete", "pods", "--all", "--timeout=60s")
