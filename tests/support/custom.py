"""Custom resource definitions for tests: in the shapes of a gateway's, of a route's and of an operator's."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


def definition(kind: str, schema: JSON, *, group: str = "example.com", plural: str = "", scope: str = "Namespaced",
               version: JSON | None = None, versions: list[JSON] | None = None, **names: Any) -> JSON:  # fmt: skip
    """A definition with one version, v1, that is served and stored; `version` adds to it."""
    plural = plural or f"{kind.lower()}s"
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **(version or {})}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "kind": kind, **names},
            "versions": versions or [one],
        },
    }


def of(properties: JSON, **more: Any) -> JSON:
    return {"type": "object", "properties": properties, **more}


TEXT: JSON = {"type": "string"}
NUMBER: JSON = {"type": "integer"}
CONDITIONS: JSON = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": of({"type": TEXT, "status": {"type": "string", "enum": ["True", "False", "Unknown"]}, "reason": TEXT,
                 "message": TEXT, "lastTransitionTime": {"type": "string", "format": "date-time"},
                 "observedGeneration": {"type": "integer", "format": "int64"}},
                required=["type", "status"]),
}  # fmt: skip

_NAME = {"type": "string", "minLength": 1, "maxLength": 253}
_PORT = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
_HOST = {"type": "string", "minLength": 1, "maxLength": 253,
         "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}  # fmt: skip

GATEWAY = definition(
    "Gateway",
    of(
        {
            "spec": of(
                {
                    "gatewayClassName": _NAME,
                    "listeners": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 64,
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": of(
                            {
                                "name": _NAME,
                                "hostname": _HOST,
                                "port": _PORT,
                                "protocol": {"type": "string", "enum": ["HTTP", "HTTPS", "TLS", "TCP", "UDP"]},
                                "tls": of({"mode": {"type": "string", "enum": ["Terminate", "Passthrough"],
                                                    "default": "Terminate"},
                                           "certificateRefs": {"type": "array", "items": of({"name": _NAME},
                                                                                            required=["name"])}}),
                                "allowedRoutes": of(
                                    {"namespaces": of({"from": {"type": "string", "enum": ["All", "Selector", "Same"],
                                                                "default": "Same"}}, default={"from": "Same"})},
                                    default={"namespaces": {"from": "Same"}},
                                ),
                            },
                            required=["name", "port", "protocol"],
                        ),
                        "x-kubernetes-validations": [
                            {"message": "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
                             "rule": "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)"},
                            {"message": "hostname must not be specified for protocols ['TCP', 'UDP']",
                             "rule": "self.all(l, l.protocol in ['TCP', 'UDP'] ? (!has(l.hostname) || l.hostname == '')"
                                     " : true)"},
                            {"message": "Combination of port, protocol and hostname must be unique for each listener",
                             "rule": "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol"
                                     " && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname :"
                                     " !has(l1.hostname) && !has(l2.hostname))))"},
                        ],
                    },
                    "infrastructure": of({"labels": {"type": "object", "additionalProperties": TEXT,
                                                     "maxProperties": 8}}),
                },
                required=["gatewayClassName", "listeners"],
            ),
            "status": of({"conditions": CONDITIONS,
                          "addresses": {"type": "array", "items": of({"type": TEXT, "value": TEXT})}}),
        },
        required=["spec"],
    ),
    group="gateway.example.com",
    version={
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Class", "type": "string", "jsonPath": ".spec.gatewayClassName"},
            {"name": "Address", "type": "string", "jsonPath": ".status.addresses[*].value"},
            {"name": "Programmed", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Programmed")].status'},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    },
    shortNames=["gtw"],
    categories=["gateway-api"],
)  # fmt: skip

HTTP_ROUTE = definition(
    "HTTPRoute",
    of(
        {
            "spec": of(
                {
                    "hostnames": {"type": "array", "maxItems": 16, "items": _HOST},
                    "parentRefs": {"type": "array", "maxItems": 32,
                                   "items": of({"name": _NAME, "sectionName": _NAME}, required=["name"])},
                    "rules": {
                        "type": "array",
                        "maxItems": 16,
                        "default": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}],
                        "items": of(
                            {
                                "matches": {
                                    "type": "array",
                                    "default": [{"path": {"type": "PathPrefix", "value": "/"}}],
                                    "items": of({"path": of(
                                        {"type": {"type": "string", "default": "PathPrefix",
                                                  "enum": ["Exact", "PathPrefix", "RegularExpression"]},
                                         "value": {"type": "string", "default": "/", "maxLength": 1024}},
                                        default={"type": "PathPrefix", "value": "/"},
                                        **{"x-kubernetes-validations": [
                                            {"rule": "(self.type in ['Exact', 'PathPrefix']) ?"
                                                     " self.value.startsWith('/') : true",
                                             "message": "value must be an absolute path and start with '/' when type"
                                                        " one of ['Exact', 'PathPrefix']"}]},
                                    )}),
                                },
                                "backendRefs": {"type": "array", "items": of(
                                    {"name": _NAME, "port": _PORT,
                                     "weight": {"type": "integer", "default": 1, "minimum": 0, "maximum": 1000000}},
                                    required=["name"])},
                                "timeouts": of({"request": {"type": "string",
                                                            "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}}),
                            }
                        ),
                    },
                }
            ),
            "status": of({"conditions": CONDITIONS}),
        },
        required=["spec"],
    ),
    group="gateway.example.com",
    version={
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Hostnames", "type": "string", "jsonPath": ".spec.hostnames"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    },
)  # fmt: skip

DATABASE = definition(
    "Database",
    of(
        {
            "spec": of(
                {
                    "engine": {"type": "string", "enum": ["postgres", "mysql"]},
                    "replicas": {"type": "integer", "minimum": 1, "maximum": 9, "default": 1},
                    "storage": {"x-kubernetes-int-or-string": True, "default": "1Gi"},
                    "parameters": {"type": "object", "additionalProperties": TEXT},
                    "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "backup": of({"schedule": TEXT, "keep": {"type": "integer", "nullable": True}}),
                    "version": {"type": "string", "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "version is immutable"}]},
                },
                required=["engine"],
                **{"x-kubernetes-validations": [
                    {"rule": "self.engine != 'mysql' || self.replicas == 1", "reason": "FieldValueForbidden",
                     "fieldPath": ".replicas",
                     "messageExpression": "'mysql has one replica, not ' + string(self.replicas)"}]},
            ),
            "status": of({"replicas": NUMBER, "selector": TEXT, "phase": TEXT, "conditions": CONDITIONS}),
        },
        required=["spec"],
    ),
    version={
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                                                 "statusReplicasPath": ".status.replicas",
                                                 "labelSelectorPath": ".status.selector"}},
        "additionalPrinterColumns": [
            {"name": "Engine", "type": "string", "jsonPath": ".spec.engine"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Storage", "type": "string", "jsonPath": ".spec.storage", "priority": 1},
        ],
        "selectableFields": [{"jsonPath": ".spec.engine"}],
    },
    shortNames=["db"],
    categories=["all"],
)  # fmt: skip
