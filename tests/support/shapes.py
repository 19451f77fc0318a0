"""Objects in other shapes than their kind's: a good one of each sort of structure, and each of its nodes replaced."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

from support.custom import DATABASE

JSON = dict[str, Any]
Path = tuple[str | int, ...]

JUNK: tuple[Any, ...] = ([None], 5, "x", None, [], True, {}, ["x"], 1.5, [{}], "", {"a": 1}, [5], -1, [[]], {"": None},
                         10**30, "\0")  # fmt: skip
_SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
_POD = {
    "containers": [{
        "name": "c", "image": "i", "command": ["x"], "ports": [{"containerPort": 80, "name": "w", "hostPort": 8}],
        "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "resources": {"requests": {"cpu": "1"}}, "volumeMounts": [{"name": "v", "mountPath": "/x"}],
        "readinessProbe": {"httpGet": {"port": 80}}, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
    }],
    "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "x"}}]}}],
    "tolerations": [{"key": "a", "operator": "Exists"}], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}],
    "imagePullSecrets": [{"name": "a"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule",
                                   "labelSelector": _SELECTOR}],
}  # fmt: skip
_RULE = {"rule": "true", "message": "m", "reason": "FieldValueInvalid", "fieldPath": ".i", "messageExpression": "'x'"}
_SCHEMA = {
    "type": "object", "x-kubernetes-validations": [_RULE],
    "properties": {
        "a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
              "items": {"type": "object", "required": ["k"], "properties": {
                  "k": {"type": "string", "enum": ["a"], "format": "uri", "maxLength": 3, "pattern": "a"},
                  "n": {"type": "number", "multipleOf": 2, "minimum": 1, "default": 2}},
                  "allOf": [{"anyOf": [{"required": ["n"]}], "not": {"required": ["z"]}}]}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "granular"},
        "i": {"x-kubernetes-int-or-string": True},
    },
}  # fmt: skip
_DEFINITION = copy.deepcopy({name: part for name, part in DATABASE.items() if name not in ("apiVersion", "kind")})
_DEFINITION["spec"]["versions"].append(
    {"name": "v2", "served": True, "storage": False, "schema": {"openAPIV3Schema": _SCHEMA},
     "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
     "additionalPrinterColumns": [{"name": "a", "type": "string", "jsonPath": ".a"}],
     "selectableFields": [{"jsonPath": ".i"}]})  # fmt: skip
_HOOK = {"name": "a.b.c", "clientConfig": {"service": {"name": "a", "namespace": "b", "path": "/c", "port": 1}},
         "rules": [{"operations": ["CREATE"], "apiGroups": ["zz"], "apiVersions": ["v1"], "resources": ["x"]}],
         "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1,
         "namespaceSelector": _SELECTOR, "matchConditions": [{"name": "a", "expression": "true"}]}  # fmt: skip
_GROUP = "rbac.authorization.k8s.io"

# plural -> what a good one has beside its metadata
SAMPLES: dict[str, JSON] = {
    "pods": {"spec": _POD},
    "deployments": {"spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                             "template": {"metadata": {"labels": {"a": "b"}}, "spec": _POD}}},
    "services": {"spec": {"selector": {"a": "b"}, "type": "LoadBalancer", "ipFamilies": ["IPv4"],
                          "ports": [{"name": "a", "port": 80, "targetPort": "x", "protocol": "TCP"}],
                          "loadBalancerSourceRanges": ["1.2.3.0/24"], "sessionAffinity": "ClientIP",
                          "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}},
    "endpointslices": {"addressType": "IPv4", "ports": [{"name": "a", "port": 1}],
                       "endpoints": [{"addresses": ["1.2.3.4"], "conditions": {"ready": True}}]},
    "configmaps": {"data": {"a": "b"}, "binaryData": {"c": "eA=="}},
    "secrets": {"data": {"a": "eA=="}, "stringData": {"b": "c"}},
    "namespaces": {"spec": {"finalizers": ["kubernetes"]}},
    "networkpolicies": {"spec": {"podSelector": _SELECTOR, "ingress": [
        {"from": [{"ipBlock": {"cidr": "1.2.3.0/24", "except": ["1.2.3.4/32"]}}], "ports": [{"port": 80}]}]}},
    "clusterroles": {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
                     "aggregationRule": {"clusterRoleSelectors": [_SELECTOR]}},
    "clusterrolebindings": {"roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": "view"},
                            "subjects": [{"kind": "User", "name": "x", "apiGroup": _GROUP}]},
    "customresourcedefinitions": _DEFINITION,
    "validatingwebhookconfigurations": {"webhooks": [_HOOK]},
    "mutatingwebhookconfigurations": {"webhooks": [_HOOK]},
    "certificatesigningrequests": {"spec": {"request": "eA==", "signerName": "a.b/c", "usages": ["client auth"]}},
}  # fmt: skip

# path of what is asked for and not stored -> a good one
QUESTIONS: dict[str, JSON] = {
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": {"spec": {
        "user": "x", "groups": ["g"], "extra": {"a": ["b"]},
        "resourceAttributes": {"verb": "get", "resource": "pods"}}},
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews": {"spec": {"namespace": "default"}},
    "/apis/authentication.k8s.io/v1/tokenreviews": {"spec": {"token": "x", "audiences": ["a"]}},
    "/api/v1/namespaces/default/serviceaccounts/default/token": {"spec": {
        "audiences": ["a"], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "x"}}},
    "/api/v1/namespaces/default/pods/n/binding": {"metadata": {"name": "n"}, "target": {"kind": "Node", "name": "x"}},
    "/api/v1/namespaces/default/pods/n/eviction": {
        "metadata": {"name": "n"}, "deleteOptions": {"preconditions": {"uid": "x"}, "dryRun": ["All"]}},
}  # fmt: skip
SCALE: JSON = {"metadata": {"name": "n"}, "spec": {"replicas": 2}}
METADATA: JSON = {
    "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a.b/c"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}],
    "managedFields": [{"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                       "fieldsV1": {"f:data": {"f:a": {}}}}],
}  # fmt: skip


def misshapen(tree: JSON, *, each: int = 4) -> Iterator[JSON]:
    """`tree` with one node replaced: each node by `each` sorts of junk, which take turns, and by a list of nothing."""
    turns = itertools.cycle(JUNK)
    for path in _paths(tree):
        for junk in ([None], *itertools.islice(turns, each)):
            if path:
                yield _with(tree, path, junk)


def _paths(node: Any, at: Path = ()) -> Iterator[Path]:
    yield at
    for step, inside in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _paths(inside, (*at, step))


def _with(tree: JSON, path: Path, value: Any) -> JSON:
    made: Any = copy.deepcopy(tree)
    node = made
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    found: JSON = made
    return found
