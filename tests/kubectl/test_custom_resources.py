"""kubectl with custom resources: defined, explained, applied, printed, scaled, waited for, deleted."""

from __future__ import annotations

import copy
import json

import pytest

from support.apiserver import ServerThread
from support.box import eventually
from support.custom import DATABASE, GATEWAY, HTTP_ROUTE
from support.kubectl import Kubectl

GATEWAY_YAML = """
apiVersion: gateway.example.com/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: ours
  listeners:
  - {name: web, port: 80, protocol: HTTP, hostname: "*.example.com"}
---
apiVersion: gateway.example.com/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front}]
  hostnames: [shop.example.com]
  rules:
  - backendRefs: [{name: shop, port: 80}]
"""


@pytest.fixture
def defined(kubectl: Kubectl) -> Kubectl:
    """The definitions are the cluster's: made once, found by everybody."""
    for tree in (GATEWAY, HTTP_ROUTE, DATABASE):
        kubectl("apply", "-f", "-", stdin=json.dumps(tree))
        kubectl("wait", "--for=condition=Established", f"crd/{tree['metadata']['name']}", "--timeout=60s")
    return kubectl


def test_definitions_are_listed(defined: Kubectl) -> None:
    assert "databases.example.com" in defined("get", "crds")
    assert "httproutes" in defined("api-resources", "--api-group=gateway.example.com")


def test_a_route_is_applied_changed_diffed_and_printed(defined: Kubectl) -> None:
    assert "gateway.gateway.example.com/front created" in defined("apply", "-f", "-", stdin=GATEWAY_YAML)
    version = defined("get", "gtw,httproutes", "-o", "jsonpath={.items[*].metadata.resourceVersion}")
    defined("apply", "-f", "-", stdin=GATEWAY_YAML)
    assert defined("get", "gtw,httproutes", "-o", "jsonpath={.items[*].metadata.resourceVersion}") == version
    changed = GATEWAY_YAML.replace("port: 80, protocol", "port: 8080, protocol")
    diff = defined.run("diff", "-f", "-", stdin=changed, check=False)
    assert diff.returncode == 1, diff.stderr
    assert "+  - allowedRoutes" not in diff.stdout
    assert "+    port: 8080" in diff.stdout
    assert "front configured" in defined("apply", "-f", "-", stdin=changed)
    assert defined("get", "gtw").split("\n")[0].split() == ["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]
    assert '["shop.example.com"]' in defined("get", "httproutes")
    assert "front" in defined("get", "gateway-api")
    patch = '{"status":{"conditions":[{"type":"Programmed","status":"True"}]}}'
    defined("patch", "gateway", "front", "--subresource=status", "--type=merge", "-p", patch)
    defined("wait", "gateway/front", "--for=condition=Programmed", "--timeout=60s")


def test_server_side_apply_names_the_conflict(defined: Kubectl) -> None:
    defined("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=GATEWAY_YAML)
    changed = GATEWAY_YAML.replace("port: 80, protocol", "port: 81, protocol")
    refused = defined.fails("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=changed)
    assert 'conflict with "one"' in refused
    assert '.spec.listeners[name="web"].port' in refused
    defined("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=changed)


def test_what_is_wrong_is_said_in_upstreams_words(defined: Kubectl) -> None:
    refused = defined.fails("apply", "-f", "-", stdin=GATEWAY_YAML.replace("protocol: HTTP", "protocol: GOPHER"))
    assert 'spec.listeners[0].protocol: Unsupported value: "GOPHER": supported values: "HTTP"' in refused
    refused = defined.fails("apply", "-f", "-", stdin=GATEWAY_YAML.replace("gatewayClassName", "gatewayClasName"))
    assert 'unknown field "spec.gatewayClasName"' in refused


def test_explain_reads_the_schema(defined: Kubectl) -> None:
    assert "gatewayClassName" in defined("explain", "gateway.spec")
    assert "KIND:       Database" in defined("explain", "databases.spec.engine")
    assert "enum" in defined("explain", "db.spec.engine").lower()


def test_an_operators_resource_scales_and_is_edited(defined: Kubectl) -> None:
    tree = {"apiVersion": "example.com/v1", "kind": "Database", "metadata": {"name": "main"},
            "spec": {"engine": "postgres"}}  # fmt: skip
    assert "database.example.com/main created" in defined("create", "-f", "-", stdin=json.dumps(tree))
    defined("scale", "database/main", "--replicas=3")
    assert defined("get", "db", "main", "-o", "jsonpath={.spec.replicas}") == "3"
    assert defined("get", "db", "-o", "wide").split("\n")[1].split() == ["main", "postgres", "3", "1Gi"]
    defined("label", "db", "main", "tier=data")
    assert "main" in defined("get", "db", "-l", "tier=data", "--field-selector", "spec.engine=postgres")
    assert "main" in defined("get", "all")
    refused = defined.fails("patch", "db", "main", "--type=merge", "-p", '{"spec":{"engine":"mysql"}}')
    assert "mysql has one replica" in refused
    assert "deleted" in defined("delete", "db", "main", "--timeout=60s")


def test_deleting_a_definition_deletes_its_objects(defined: Kubectl, server: ServerThread) -> None:
    tree = copy.deepcopy(DATABASE)
    tree["spec"]["names"] = {"plural": "jitters", "kind": "Jitter"}
    tree["metadata"]["name"] = "jitters.example.com"
    defined("apply", "-f", "-", stdin=json.dumps(tree))
    defined("wait", "--for=condition=Established", "crd/jitters.example.com", "--timeout=60s")
    one = {"apiVersion": "example.com/v1", "kind": "Jitter", "metadata": {"name": "x"}, "spec": {"engine": "mysql"}}
    defined("create", "-f", "-", stdin=json.dumps(one))
    defined("delete", "crd", "jitters.example.com", "--timeout=60s")
    eventually(lambda: "jitters" in defined.fails("get", "jitters"), what="the kind is served no more")
