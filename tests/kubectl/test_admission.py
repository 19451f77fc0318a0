"""Real kubectl against what admission, patches, tables and OpenAPI answer: apply, diff, explain, and refusals."""

from __future__ import annotations

import pytest

from support.kubectl import Kubectl

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: web, labels: {{app: web}}}}
spec:
  type: {type}
  selector: {{app: web}}
  ports: {ports}
"""
HTTP, HTTPS = "{name: http, port: 80, targetPort: 8080}", "{name: https, port: 443}"


def manifest(kind: str, *ports: str) -> str:
    return SERVICE.format(type=kind, ports=f"[{', '.join(ports)}]")


def test_a_service_keeps_its_address_and_node_port_through_applies(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest("NodePort", HTTP))
    before = kubectl.json("get", "service", "web")["spec"]
    assert kubectl("apply", "-f", "-", stdin=manifest("NodePort", HTTP)) == "service/web unchanged\n"
    kubectl("apply", "-f", "-", stdin=manifest("LoadBalancer", HTTPS, HTTP))
    after = kubectl.json("get", "service", "web")["spec"]
    assert after["clusterIP"] == before["clusterIP"]
    node_ports = {port["name"]: port["nodePort"] for port in after["ports"]}
    assert node_ports["http"] == before["ports"][0]["nodePort"]
    kubectl("apply", "-f", "-", stdin=manifest("ClusterIP", HTTP))
    last = kubectl.json("get", "service", "web")["spec"]
    assert last["ports"] == [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    assert last["clusterIP"] == before["clusterIP"]


def test_diff_shows_defaults_and_changes_nothing(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest("NodePort", HTTP))
    before = kubectl.json("get", "service", "web")
    done = kubectl.run("diff", "-f", "-", stdin=manifest("LoadBalancer", HTTP), check=False)
    assert done.returncode == 1
    assert "+  allocateLoadBalancerNodePorts: true" in done.stdout
    assert kubectl.json("get", "service", "web") == before


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("service.spec.ports", ["targetPort\t<IntOrString>", "port\t<integer> -required-"], id="ports"),
        pytest.param("service.spec.type", ["ENUM:\n    ClusterIP\n    ExternalName\n"], id="type"),
        pytest.param(
            "endpointslice.endpoints.conditions", ["serving\t<boolean>", "GROUP:      discovery"], id="slices"
        ),
        pytest.param("deployment.spec.template.spec.containers.ports", ["containerPort\t<integer>"], id="a template"),
    ],
)
def test_explain(kubectl: Kubectl, path: str, words: list[str]) -> None:
    printed = kubectl("explain", path)
    assert [word for word in words if word not in printed] == []


def test_environment_variables_merge_by_name(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=host")
    kubectl("set", "env", "deployment/web", "A=1", "B=2")
    kubectl("set", "env", "deployment/web", "B-", "C=3")
    (container,) = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "A", "value": "1"}, {"name": "C", "value": "3"}]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        pytest.param(
            ("service", "nodeport", "np", "--tcp=80", "--node-port=80"),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. "
            "The range of valid ports is 30000-32767",
            id="node port",
        ),
        pytest.param(
            ("service", "clusterip", "A", "--tcp=80"),
            'metadata.name: Invalid value: "A": a lowercase RFC 1123 label must consist of',
            id="name",
        ),
        pytest.param(
            ("service", "clusterip", "a", "--tcp=80", "--clusterip=192.0.2.1"),
            'spec.clusterIPs: Invalid value: ["192.0.2.1"]: failed to allocate IP 192.0.2.1: the provided IP '
            "(192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
            id="address",
        ),
    ],
)
def test_refusals_are_upstreams(kubectl: Kubectl, args: tuple[str, ...], text: str) -> None:
    assert text in kubectl.fails("create", *args)


def test_an_address_and_a_node_port_belong_to_one_service(kubectl: Kubectl) -> None:
    first = "{name: http, port: 80, nodePort: %d}"
    kubectl("create", "-f", "-", stdin=manifest("NodePort", HTTP))
    held = kubectl.json("get", "service", "web")["spec"]
    number = held["ports"][0]["nodePort"]
    second = manifest("NodePort", first % number).replace("name: web,", "name: other,")
    assert f"spec.ports[0].nodePort: Invalid value: {number}: provided port is already allocated" in kubectl.fails(
        "create", "-f", "-", stdin=second
    )
    third = manifest("ClusterIP", HTTP).replace("name: web,", "name: other,") + f"  clusterIP: {held['clusterIP']}\n"
    assert (
        f'spec.clusterIPs: Invalid value: ["{held["clusterIP"]}"]: failed to allocate IP {held["clusterIP"]}: '
        "provided IP is already allocated" in kubectl.fails("create", "-f", "-", stdin=third)
    )
