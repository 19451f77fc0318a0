"""What kubectl does with every kind that is served: create, get in every form, explain, describe, delete."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubesvc.api import registry
from kubesvc.api.registry import Kind
from support.certificates import request_for
from support.kubectl import Kubectl

POD = {"containers": [{"name": "c", "image": "host", "command": ["sleep", "1"]}]}
TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": POD}
JOB = {"metadata": {}, "spec": POD | {"restartPolicy": "Never"}}
SELECTOR = {"matchLabels": {"app": "x"}}
SCALED = {"spec": {"selector": SELECTOR, "template": TEMPLATE}}
RULES = [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
BINDING = {
    "roleRef": {"apiGroup": registry.RBAC, "kind": "ClusterRole", "name": "view"},
    "subjects": [{"apiGroup": registry.RBAC, "kind": "User", "name": "x"}],
}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
DEFINITION = {
    "scope": "Cluster",
    "names": {"plural": "xs", "kind": "X"},
    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
}
WEBHOOKS = [
    {
        "name": "x.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://192.0.2.1/"},
    }
]

REQUEST = request_for("x")

# resource -> (the rest of a manifest, what `describe` says of it, a path of `explain`, a field it lists)
KINDS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "namespaces": ({}, "Status: Active", "namespace.spec", "finalizers\t<[]string>"),
    "nodes": ({}, "Lease: Failed to get lease", "node.status.addresses", "address\t<string> -required-"),
    "pods": ({"spec": POD}, "Containers: c: Image: host", "pod.spec.containers.ports", "containerPort\t<integer>"),
    "services": ({"spec": {"ports": [{"port": 80}]}}, "IP Families: IPv4", "service.spec.ports",
                 "targetPort\t<IntOrString>"),
    "endpoints": ({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]}, "Addresses: 192.0.2.1",
                  "endpoints.subsets.addresses", "ip\t<string> -required-"),
    "configmaps": ({"data": {"a": "b"}}, "Data ==== a: ---- b", "configmap", "binaryData\t<map[string]string>"),
    "secrets": ({"stringData": {"a": "b"}}, "a: 1 bytes", "secret", "stringData\t<map[string]string>"),
    "events": ({"involvedObject": {"kind": "Pod", "name": "x"}, "reason": "R"}, "Reason: R",
               "event.involvedObject", "fieldPath\t<string>"),
    "serviceaccounts": ({}, "Image pull secrets: <none>", "serviceaccount", "automountServiceAccountToken\t<boolean>"),
    "deployments.apps": (SCALED, "StrategyType: RollingUpdate", "deployment.spec.strategy",
                         "rollingUpdate\t<RollingUpdateDeployment>"),
    "replicasets.apps": (SCALED, "Pods Status:", "replicaset.spec", "minReadySeconds\t<integer>"),
    "endpointslices.discovery.k8s.io": ({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]},
                                        "AddressType: IPv4", "endpointslice.endpoints.conditions",
                                        "serving\t<boolean>"),
    "servicecidrs.networking.k8s.io": ({"spec": {"cidrs": ["10.123.0.0/24"]}}, "CIDRs: 10.123.0.0/24 Status:",
                                       "servicecidr.spec", "cidrs\t<[]string>"),
    "ipaddresses.networking.k8s.io": ({"spec": {"parentRef": {"resource": "services", "name": "x"}}},
                                      "Parent Reference:", "ipaddress.spec.parentRef", "resource\t<string> -required-"),
    "leases.coordination.k8s.io": ({"spec": {"holderIdentity": "x"}}, "Holder Identity: x", "lease.spec",
                                   "renewTime\t<string>"),
    "ingresses.networking.k8s.io": ({"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 1}}}}},
                                    "Default backend: x:1", "ingress.spec.rules.http.paths",
                                    "pathType\t<string> -required-"),
    "statefulsets.apps": ({"spec": {"serviceName": "x", **SCALED["spec"]}}, "Replicas:", "statefulset.spec",
                          "serviceName\t<string>"),
    "daemonsets.apps": (SCALED, "Desired Number of Nodes Scheduled: 0", "daemonset.spec",
                        "updateStrategy\t<DaemonSetUpdateStrategy>"),
    "networkpolicies.networking.k8s.io": ({"spec": {"podSelector": {}}}, "Policy Types: Ingress",
                                          "networkpolicy.spec.ingress", "from\t<[]NetworkPolicyPeer>"),
    "jobs.batch": ({"spec": {"template": JOB}}, "Parallelism:", "job.spec", "backoffLimit\t<integer>"),
    "cronjobs.batch": ({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": JOB}}}},
                       "Schedule: @daily", "cronjob.spec", "whose clocks the schedule means"),
    "replicationcontrollers": ({"spec": {"template": TEMPLATE}}, "Pods Status:", "rc.spec", "replicas\t<integer>"),
    "controllerrevisions.apps": ({"revision": 1, "data": {"a": 1}}, "Revision:", "controllerrevision",
                                "revision\t<integer> -required-"),
    "ingressclasses.networking.k8s.io": ({"spec": {"controller": "a.b/c"}}, "Controller: a.b/c",
                                         "ingressclass.spec", "controller\t<string>"),
    "persistentvolumes": ({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {
        "path": "/x"}}}, "Reclaim Policy: Retain", "pv.spec", "capacity\t<map[string]Quantity>"),
    "persistentvolumeclaims": ({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {
        "storage": "1Gi"}}}}, "Status: Pending", "pvc.spec", "accessModes\t<[]string>"),
    "storageclasses.storage.k8s.io": ({"provisioner": "p"}, "Provisioner: p", "storageclass",
                                      "volumeBindingMode\t<string>"),
    "poddisruptionbudgets.policy": ({"spec": {"minAvailable": 1, "selector": SELECTOR}}, "Min available: 1",
                                    "pdb.spec", "maxUnavailable\t<IntOrString>"),
    "horizontalpodautoscalers.autoscaling": ({"spec": {"maxReplicas": 3, "scaleTargetRef": TARGET}},
                                             "<unknown> / 80%", "hpa.spec.behavior", "scaleDown\t<HPAScalingRules>"),
    "resourcequotas": ({"spec": {"hard": {"pods": "4"}}}, "Resource Used Hard", "quota.spec",
                       "hard\t<map[string]Quantity>"),
    "limitranges": ({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}, "Container cpu - 1 1 1",
                    "limits.spec.limits", "maxLimitRequestRatio\t<map[string]Quantity>"),
    "priorityclasses.scheduling.k8s.io": ({"value": 5}, "PreemptionPolicy: PreemptLowerPriority", "priorityclass",
                                          "globalDefault\t<boolean>"),
    "roles.rbac.authorization.k8s.io": ({"rules": RULES}, "pods [] [] [get]", "role.rules", "resources\t<[]string>"),
    "clusterroles.rbac.authorization.k8s.io": ({"rules": RULES}, "pods [] [] [get]", "clusterrole.aggregationRule",
                                               "clusterRoleSelectors\t<[]LabelSelector>"),
    "rolebindings.rbac.authorization.k8s.io": (BINDING, "Role: Kind: ClusterRole Name: view", "rolebinding.roleRef",
                                               "kind\t<string> -required-"),
    "clusterrolebindings.rbac.authorization.k8s.io": (BINDING, "User x", "clusterrolebinding.subjects",
                                                      "namespace\t<string>"),
    "certificatesigningrequests.certificates.k8s.io": (
        {"spec": {"request": REQUEST, "usages": ["client auth"], "signerName": "example.com/x"}}, "Status: Pending",
        "csr.spec", "expirationSeconds\t<integer>"),
    "ipaddresspools.kubesvc.dev": ({"spec": {"addresses": ["192.0.2.0/28"]}}, "192.0.2.0/28",
                                   "ipaddresspool.spec", "autoAssign\t<boolean>"),
    "l2advertisements.kubesvc.dev": ({"spec": {"ipAddressPools": ["a"]}}, "Ip Address Pools: a",
                                     "l2advertisement.spec", "interfaces\t<[]string>"),
    "bgpadvertisements.kubesvc.dev": ({"spec": {"localPref": 100}}, "Local Pref: 100",
                                      "bgpadvertisement.spec", "communities\t<[]string>"),
    "bgppeers.kubesvc.dev": ({"spec": {"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1"}}, "Peer ASN: 2",
                             "bgppeer.spec", "peerAddress\t<string> -required-"),
    "customresourcedefinitions.apiextensions.k8s.io": ({"spec": DEFINITION}, "Names: Kind: X", "crd.spec.names",
                                                       "shortNames\t<[]string>"),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": (
        {"webhooks": WEBHOOKS}, "URL: https://192.0.2.1/", "mutatingwebhookconfiguration.webhooks",
        "reinvocationPolicy\t<string>"),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": (
        {"webhooks": WEBHOOKS}, "URL: https://192.0.2.1/", "validatingwebhookconfiguration.webhooks",
        "sideEffects\t<string> -required-"),
}  # fmt: skip


# Kinds that kubectl 1.32 describes by asking for v1beta1 of them, which isn't served.
NOT_BY_1_32 = (registry.SERVICE_CIDR, registry.IP_ADDRESS)


def _minor(kubectl: Kubectl) -> int:
    return int(json.loads(kubectl("version", "--client", "-o", "json"))["clientVersion"]["minor"].rstrip("+"))


def test_the_table_has_every_kind() -> None:
    assert set(KINDS) == {kind.resource for kind in registry.stored()}


@pytest.fixture
def made(kubectl: Kubectl, request: pytest.FixtureRequest) -> tuple[Kind, str]:
    """One object of the kind, and its name."""
    kind: Kind = request.param
    name = kubectl.namespace if not kind.namespaced else "x"
    if kind is registry.IP_ADDRESS:
        name = f"10.124.0.{1 + int(name.rpartition('-')[2]) % 250}"
    rest = KINDS[kind.resource][0]
    if kind is registry.CUSTOM_RESOURCE_DEFINITION:
        rest = {"spec": {**rest["spec"], "group": f"{name}.example"}}
        name = f"xs.{name}.example"
    if kind is registry.EVENT:
        rest = {**rest, "involvedObject": {**rest["involvedObject"], "namespace": kubectl.namespace}}
    if kind is not registry.NAMESPACE:
        manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **rest}
        printed = kubectl("create", "-f", "-", "--save-config", stdin=json.dumps(manifest))
        assert printed == f"{_named(kind)}/{name} created\n"
    return kind, name


def _named(kind: Kind) -> str:
    return f"{kind.singular}.{kind.group}" if kind.group else kind.singular


@pytest.mark.parametrize("made", registry.stored(), indirect=True, ids=lambda kind: kind.resource)
def test_an_object_of_every_kind_in_every_form(kubectl: Kubectl, made: tuple[Kind, str]) -> None:
    kind, name = made
    says, path, field = KINDS[kind.resource][1:]
    what = kind.resource
    assert kubectl("get", what, name, "-o", "name") == f"{_named(kind)}/{name}\n"
    tree = kubectl.json("get", what, name)
    assert (tree["apiVersion"], tree["kind"], tree["metadata"]["name"]) == (kind.api_version, kind.kind, name)
    heading, row = kubectl("get", what, name, "-o", "wide", "--show-labels").splitlines()
    assert heading.split()[-1] == "LABELS"
    assert name in row
    if kind in NOT_BY_1_32 and _minor(kubectl) <= 32:
        assert "the server could not find the requested resource" in kubectl.fails("describe", what, name)
    else:
        described = " ".join(kubectl("describe", what, name).split())
        assert described.startswith(f"Name: {name} "), described
        assert says in described, described
    explained = kubectl("explain", path)
    assert f"KIND:       {kind.kind}\n" in explained
    assert field in explained
    if kind is not registry.NAMESPACE:
        assert "deleted" in kubectl("delete", what, name, "--wait=false")
