"""Pods and what makes them: defaults, validation, what an update may change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubesvc.api.registry import DAEMON_SET, DEPLOYMENT, POD, REPLICA_SET, STATEFUL_SET, Kind
from kubesvc.apiserver.admission.pod_defaults import pull_policy
from support.admission import admit, context, named, texts

JSON = dict[str, Any]


def pod(*containers: JSON, **spec: Any) -> JSON:
    return named(POD, "p", spec={"containers": list(containers) or [{"name": "web", "image": "host"}], **spec})


def workload(kind: Kind, labels: JSON | None = None, **spec: Any) -> JSON:
    template = {
        "metadata": {"labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "host"}]},
    }
    return named(kind, "web", spec={"selector": {"matchLabels": {"app": "web"}}, "template": template} | spec)


def changed(tree: JSON, path: str, value: Any) -> JSON:
    tree = copy.deepcopy(tree)
    *parents, last = path.split(".")
    node: Any = tree
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    node[last] = value
    return tree


# ── defaults ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pod_that_says_only_its_image_gets_every_default() -> None:
    spec = admit(POD, pod())["spec"]
    assert spec.pop("tolerations") == [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for taint in ("not-ready", "unreachable")
    ]
    assert spec == {
        "containers": [
            {
                "name": "web",
                "image": "host",
                "resources": {},
                "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
        "securityContext": {},
        "enableServiceLinks": True,
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("web:1.2", "IfNotPresent"),
        ("registry:5000/web", "Always"),
        ("registry:5000/web:1.2", "IfNotPresent"),
        ("web@sha256:0123", "IfNotPresent"),
    ],
)
def test_an_image_is_pulled_every_time_unless_its_tag_is_fixed(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_probes_and_volumes_get_their_defaults() -> None:
    container = {
        "name": "web",
        "image": "host",
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/s"}],
    }
    volumes = [
        {"name": "scratch"},
        {"name": "conf", "configMap": {"name": "c"}},
        {"name": "data", "image": {"reference": "data:1"}},
    ]
    spec = admit(POD, pod(container, volumes=volumes, hostNetwork=True))["spec"]
    found = spec["containers"][0]
    assert found["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert found["ports"] == [{"containerPort": 80, "protocol": "TCP", "hostPort": 80}]
    assert found["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["volumes"] == [
        {"name": "scratch", "emptyDir": {}},
        {"name": "conf", "configMap": {"name": "c", "defaultMode": 420}},
        {"name": "data", "image": {"reference": "data:1", "pullPolicy": "IfNotPresent"}},
    ]


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        pytest.param({}, "BestEffort", id="nothing said"),
        pytest.param({"requests": {"cpu": "1"}}, "Burstable", id="a request"),
        pytest.param({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed", id="limits are requests too"),
    ],
)
def test_a_new_pod_is_pending_and_has_its_quality_of_service(resources: JSON, quality: str) -> None:
    container = {"name": "web", "image": "host", "resources": resources}
    tree = pod(container) | {"status": {"phase": "Running"}}
    assert admit(POD, tree)["status"] == {"phase": "Pending", "qosClass": quality}


# ── validation ───────────────────────────────────────────────────────────────────────────────────────────────────────

WEB = {"name": "web", "image": "host"}
PROFILE = "spec.containers[0].securityContext.seccompProfile.localhostProfile"


def seccomp(kind: str, file: str | None = None) -> JSON:
    profile = {"type": kind} | ({"localhostProfile": file} if file is not None else {})
    return {"securityContext": {"seccompProfile": profile}}


@pytest.mark.parametrize(
    ("containers", "text"),
    [
        pytest.param([{"image": "host"}], "spec.containers[0].name: Required value", id="name"),
        pytest.param([{"name": "web"}], "spec.containers[0].image: Required value", id="image"),
        pytest.param([WEB, WEB], 'spec.containers[1].name: Duplicate value: "web"', id="two of a name"),
        pytest.param([WEB | {"ports": [{"containerPort": 0}]}], "spec.containers[0].ports[0].containerPort: Required "
                     "value", id="no port"),
        pytest.param([WEB | {"ports": [{"containerPort": 70000}]}], "spec.containers[0].ports[0].containerPort: "
                     "Invalid value: 70000: must be between 1 and 65535, inclusive", id="port"),
        pytest.param([WEB | {"ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]}],
                     'spec.containers[0].ports[1].name: Duplicate value: "a"', id="two ports of a name"),
        pytest.param([WEB | {"ports": [{"containerPort": 1, "protocol": "X"}]}],
                     'spec.containers[0].ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", '
                     '"UDP"', id="protocol"),
        pytest.param([WEB | {"imagePullPolicy": "Maybe"}], 'spec.containers[0].imagePullPolicy: Unsupported value: '
                     '"Maybe": supported values: "Always", "IfNotPresent", "Never"', id="pull policy"),
        pytest.param([WEB | {"volumeMounts": [{"name": "x", "mountPath": "/x"}]}],
                     'spec.containers[0].volumeMounts[0].name: Not found: "x"', id="mount of nothing"),
        pytest.param([WEB | {"readinessProbe": {}}], "spec.containers[0].readinessProbe: Required value: must specify "
                     "a handler type", id="empty probe"),
        pytest.param([WEB | {"livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 2}}],
                     "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1", id="liveness"),
        pytest.param([WEB | {"env": [{"value": "x"}]}], "spec.containers[0].env[0].name: Required value", id="env"),
        pytest.param([WEB | {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}],
                     'spec.containers[0].securityContext: Invalid value: "": cannot set `allowPrivilegeEscalation` to '
                     "false and `privileged` to true", id="privileged and held back"),
        pytest.param([WEB | {"securityContext": {"runAsUser": -1}}], "spec.containers[0].securityContext.runAsUser: "
                     "Invalid value: -1: must be between 0 and 2147483647, inclusive", id="user"),
        pytest.param([WEB | {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}],
                     'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu '
                     "limit of 1500m", id="more than the limit"),
        pytest.param([WEB | seccomp("Localhost")], f"{PROFILE}: Required value: must be set when seccomp type is "
                     "Localhost", id="a profile without a file"),
        pytest.param([WEB | seccomp("Localhost", "/a")], f'{PROFILE}: Invalid value: "/a": must be a relative path',
                     id="an absolute profile"),
        pytest.param([WEB | seccomp("Localhost", "../a")], f"{PROFILE}: Invalid value: \"../a\": must not contain '..'",
                     id="a profile elsewhere"),
        pytest.param([WEB | seccomp("RuntimeDefault", "a")], f'{PROFILE}: Invalid value: "a": can only be set when '
                     "seccomp type is Localhost", id="a file of the default profile"),
        pytest.param([WEB | {"securityContext": {"procMount": "Unmasked"}}], "spec.containers[0].securityContext."
                     'procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`',
                     id="an open /proc"),
        pytest.param([WEB | {"securityContext": {"procMount": "Half"}}], "spec.containers[0].securityContext."
                     'procMount: Unsupported value: "Half": supported values: "Default", "Unmasked"',
                     id="a way of /proc"),
    ],
)  # fmt: skip
def test_containers_are_refused_in_upstreams_words(containers: list[JSON], text: str) -> None:
    assert texts(POD, pod(*containers)) == [text]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"containers": []}, "spec.containers: Required value", id="no container"),
        pytest.param({"restartPolicy": "Sometimes"}, 'spec.restartPolicy: Unsupported value: "Sometimes": supported '
                     'values: "Always", "Never", "OnFailure"', id="restart policy"),
        pytest.param({"dnsPolicy": "None"}, "spec.dnsConfig.nameservers: Required value: must provide at least one DNS "
                     "nameserver when `dnsPolicy` is None", id="DNS by hand"),
        pytest.param({"dnsConfig": {"nameservers": ["1.1.1.1"] * 4}}, 'spec.dnsConfig.nameservers: Invalid value: '
                     '["1.1.1.1","1.1.1.1","1.1.1.1","1.1.1.1"]: must not have more than 3 nameservers',
                     id="too many name servers"),
        pytest.param({"dnsConfig": {"nameservers": ["dns.example"]}}, 'spec.dnsConfig.nameservers[0]: Invalid value: '
                     '"dns.example": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
                     id="a name server by name"),
        pytest.param({"dnsConfig": {"searches": ["a"] * 33}}, "spec.dnsConfig.searches: Invalid value: "
                     "[" + ",".join(['"a"'] * 33) + "]: must not have more than 32 search paths",
                     id="too many search domains"),
        pytest.param({"dnsConfig": {"options": [{"value": "2"}]}}, "spec.dnsConfig.options[0]: Required value: "
                     "must not be empty", id="a resolver option without a name"),
        pytest.param({"volumes": [{"name": "a"}, {"name": "a"}]}, 'spec.volumes[1].name: Duplicate value: "a"',
                     id="two volumes of a name"),
        pytest.param({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]},
                     "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type", id="two sources"),
        pytest.param({"tolerations": [{"key": "a", "operator": "Exists", "effect": "Never"}]},
                     'spec.tolerations[0].effect: Unsupported value: "Never": supported values: "NoExecute", '
                     '"NoSchedule", "PreferNoSchedule"', id="effect"),
        pytest.param({"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "-1"}}]}, "spec.volumes[0].emptyDir."
                     "sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity", id="less than nothing"),
        pytest.param({"volumes": [{"name": "a", "image": {}}]}, "spec.volumes[0].image.reference: Required value",
                     id="no image"),
        pytest.param({"volumes": [{"name": "a", "image": {"reference": "x", "pullPolicy": "Maybe"}}]},
                     'spec.volumes[0].image.pullPolicy: Unsupported value: "Maybe": supported values: "Always", '
                     '"IfNotPresent", "Never"', id="pull policy of a volume"),
        pytest.param({"securityContext": {"seccompProfile": {}}}, "spec.securityContext.seccompProfile.type: Required "
                     "value: type is required when seccompProfile is set", id="seccomp of no type"),
        pytest.param({"securityContext": {"seccompProfile": {"type": "Mine"}}},
                     'spec.securityContext.seccompProfile.type: Unsupported value: "Mine": supported values: '
                     '"Localhost", "RuntimeDefault", "Unconfined"', id="seccomp type"),
    ],
)  # fmt: skip
def test_a_pod_spec_is_refused_in_upstreams_words(spec: JSON, text: str) -> None:
    assert texts(POD, pod(**spec)) == [text]


@pytest.mark.parametrize(
    ("mount", "privileged", "text"),
    [
        ({"mountPropagation": "Bidirectional"}, True, ""),
        ({"mountPropagation": "HostToContainer"}, False, ""),
        ({"readOnly": True, "recursiveReadOnly": "Enabled", "mountPropagation": "None"}, False, ""),
        (
            {"mountPropagation": "Bidirectional"}, False,
            "mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            {"mountPropagation": "Up"}, False, 'mountPropagation: Unsupported value: "Up": supported values: '
            '"Bidirectional", "HostToContainer", "None"',
        ),
        (
            {"recursiveReadOnly": "Enabled"}, False,
            "recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
        (
            {"readOnly": True, "recursiveReadOnly": "IfPossible", "mountPropagation": "HostToContainer"}, False,
            "recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
        ),
        (
            {"recursiveReadOnly": "Deep"}, False, 'recursiveReadOnly: Unsupported value: "Deep": supported values: '
            '"Disabled", "Enabled", "IfPossible"',
        ),
    ],
)  # fmt: skip
def test_mounts_are_refused_in_upstreams_words(mount: JSON, privileged: bool, text: str) -> None:
    """Upstream's paths name no mount of the list."""
    container = WEB | {
        "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}],
        "securityContext": {"privileged": privileged},
    }
    told = [f"spec.containers[0].volumeMounts.{text}"] if text else []
    assert texts(POD, pod(container, volumes=[{"name": "v"}])) == told


# ── updates ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("spec.containers.0.image", "other:1", id="image"),
        pytest.param("spec.activeDeadlineSeconds", 5, id="deadline"),
        pytest.param("metadata.labels", {"a": "b"}, id="labels"),
        pytest.param("spec.securityContext", None, id="an empty value or none at all"),
    ],
)
def test_what_a_pod_update_may_change(path: str, value: Any) -> None:
    old = admit(POD, pod())
    assert texts(POD, changed(old, path, value), old) == []


def test_a_toleration_may_be_added_but_not_taken_back() -> None:
    old = admit(POD, pod())
    more = [*old["spec"]["tolerations"], {"key": "a", "operator": "Exists"}]
    assert texts(POD, changed(old, "spec.tolerations", more), old) == []
    fewer = changed(old, "spec.tolerations", [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}])
    assert texts(POD, fewer, old)[0].startswith("spec.tolerations: Forbidden: existing toleration can not be modified")


def test_any_other_change_of_a_pod_is_refused_and_named() -> None:
    old = admit(POD, pod())
    (text,) = texts(POD, changed(old, "spec.hostname", "h"), old)
    assert text == (
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
        "changed: spec.hostname"
    )


def test_gates_are_told_of_and_only_taken_away() -> None:
    gated = admit(POD, pod(schedulingGates=[{"name": "example.com/a"}, {"name": "example.com/b"}]))
    (told,) = gated["status"]["conditions"]
    assert (told["type"], told["status"], told["reason"]) == ("PodScheduled", "False", "SchedulingGated")
    assert texts(POD, changed(gated, "spec.schedulingGates", [{"name": "example.com/b"}]), gated) == []
    (text,) = texts(POD, changed(gated, "spec.schedulingGates", [{"name": "example.com/c"}]), gated)
    assert text == (
        "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate "
        "'example.com/c'"
    )
    (text,) = texts(POD, pod(nodeName="node1", schedulingGates=[{"name": "example.com/a"}]))
    assert text == "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"


def test_a_binding_sets_the_node() -> None:
    old = admit(POD, pod())
    bound = changed(old, "spec.nodeName", "node1")
    assert texts(POD, bound, old, context(subresource="binding")) == []
    assert texts(POD, bound, old) != []


def test_a_status_update_leaves_the_spec_alone() -> None:
    old = admit(POD, pod())
    new = changed(changed(old, "spec.hostname", "h"), "status.phase", "Running")
    written = admit(POD, new, old, context(subresource="status"))
    assert written["spec"] == old["spec"]
    assert written["status"]["phase"] == "Running"
    assert written["metadata"]["generation"] == 1


# ── workloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deployment_gets_its_defaults_and_those_of_its_template() -> None:
    found = admit(DEPLOYMENT, workload(DEPLOYMENT))
    spec = found["spec"]
    assert found["metadata"]["generation"] == 1
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    assert "tolerations" not in spec["template"]["spec"], "a template says nothing that only a pod gets"


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        pytest.param(REPLICA_SET, "replicas", 1, id="ReplicaSet"),
        pytest.param(STATEFUL_SET, "podManagementPolicy", "OrderedReady", id="StatefulSet"),
        pytest.param(DAEMON_SET, "updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1,
                     "maxSurge": 0}}, id="DaemonSet"),
    ],
)  # fmt: skip
def test_defaults_of_other_workloads(kind: Kind, field: str, expected: Any) -> None:
    assert admit(kind, workload(kind))["spec"][field] == expected


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"selector": None}, "spec.selector: Required value", id="no selector"),
        pytest.param({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
                     id="empty selector"),
        pytest.param({"selector": {"matchLabels": {"app": "db"}}}, "spec.template.metadata.labels: Invalid value: "
                     '{"app":"web"}: `selector` does not match template `labels`', id="another's pods"),
        pytest.param({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                     id="fewer than none"),
        pytest.param({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
                     'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` '
                     "is 0",
                     id="no room to roll"),
        pytest.param({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
                     "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                     id="recreate doesn't roll"),
        pytest.param({"minReadySeconds": 600}, "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than "
                     "minReadySeconds", id="no time to progress"),
    ],
)  # fmt: skip
def test_a_deployment_is_refused_in_upstreams_words(spec: JSON, text: str) -> None:
    assert texts(DEPLOYMENT, workload(DEPLOYMENT, **spec)) == [text]


def test_a_selector_is_for_life() -> None:
    old = admit(DEPLOYMENT, workload(DEPLOYMENT, labels={"app": "web", "tier": "front"}))
    new = changed(old, "spec.selector", {"matchLabels": {"tier": "front"}})
    assert texts(DEPLOYMENT, new, old) == [
        'spec.selector: Invalid value: {"matchLabels":{"tier":"front"}}: field is immutable'
    ]


def test_the_generation_counts_changes_of_the_spec_alone() -> None:
    old = admit(DEPLOYMENT, workload(DEPLOYMENT))
    labelled = admit(DEPLOYMENT, changed(old, "metadata.labels", {"a": "b"}), old)
    assert labelled["metadata"]["generation"] == 1
    scaled = admit(DEPLOYMENT, changed(labelled, "spec.replicas", 3), labelled)
    assert scaled["metadata"]["generation"] == 2
    observed = admit(DEPLOYMENT, changed(scaled, "status.replicas", 3), scaled, context(subresource="status"))
    assert observed["metadata"]["generation"] == 2
    forged = admit(DEPLOYMENT, changed(observed, "metadata.generation", 9), observed)
    assert forged["metadata"]["generation"] == 2
