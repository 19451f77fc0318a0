"""What somebody who doesn't belong here sees: a good certificate, but no role, or a node's.

Who has no certificate, an expired one or another authority's is in test_apiserver_tls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.apiserver import ServerThread
from support.kubectl import Kubectl

As = Callable[..., Kubectl]


@pytest.fixture
def presenting(binary: Path, server: ServerThread, tmp_path: Path) -> As:
    """A kubectl that presents this certificate."""

    def make(name: str) -> Kubectl:
        directory = server.directory
        tree = yaml.safe_load(server.kubeconfig.read_text())
        tree["clusters"][0]["cluster"]["certificate-authority"] = str(server.directory / "ca.crt")
        files = {"client-certificate": str(directory / f"{name}.crt"), "client-key": str(directory / f"{name}.key")}
        tree["users"][0]["user"] = files
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(tree))
        return Kubectl(binary, path)

    return make


def test_a_good_certificate_without_a_role_may_nothing(server: ServerThread, presenting: As) -> None:
    server.authority.client("alice", "alice", "devs")
    alice = presenting("alice")
    assert 'User "alice" cannot list resource "pods" in API group "" in the namespace "default"' in alice.fails(
        "get", "po"
    )
    assert alice.run("auth", "can-i", "get", "pods", check=False).stdout == "no\n"
    assert "alice" in alice("auth", "whoami")
    for words in (("--as=admin",), ("--as=x", "--as-group=system:masters")):
        assert "cannot impersonate resource" in alice.fails("get", "pods", *words)


def test_a_nodes_certificate_is_good_for_that_node_alone(server: ServerThread, presenting: As) -> None:
    server.authority.client("n1", "system:node:n1", "system:nodes")
    node = presenting("n1")
    assert 'is not allowed to modify node "n2"' in node.fails("create", "-f", "-", stdin=(
        '{"apiVersion":"v1","kind":"Node","metadata":{"name":"n2"}}'))  # fmt: skip
    assert "forbidden" in node.fails("get", "secrets", "-A")
    assert "forbidden" in node.fails("create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=x")


def test_roles_as_kubectl_makes_and_asks_for_them(server: ServerThread, presenting: As, kubectl: Kubectl) -> None:
    server.authority.client("bob", "bob")
    bob, inside = presenting("bob"), f"--namespace={kubectl.namespace}"
    kubectl("create", "role", "r", "--verb=get,list", "--resource=pods,deployments.apps/scale")
    kubectl("create", "rolebinding", "b", "--role=r", "--user=bob")
    assert bob("auth", "can-i", "list", "pods", inside) == "yes\n"
    assert bob.run("auth", "can-i", "delete", "pods", inside, check=False).stdout == "no\n"
    assert "deployments.apps/scale" in bob("auth", "can-i", "--list", inside)
    bob("get", "pods", inside)
    assert "Role/r" in kubectl("get", "rolebindings")
    kubectl("create", "rolebinding", "v", "--clusterrole=view", "--group=x")
    assert kubectl("auth", "can-i", "get", "services", "--as=someone", "--as-group=x") == "yes\n"


def bearing(binary: Path, server: ServerThread, token: str) -> Kubectl:
    """A kubectl that shows this token and no certificate."""
    tree = yaml.safe_load(server.kubeconfig.read_text())
    tree["clusters"][0]["cluster"]["certificate-authority"] = str(server.directory / "ca.crt")
    tree["users"][0]["user"] = {"token": token}
    path = server.directory / "token.kubeconfig"
    path.write_text(yaml.safe_dump(tree))
    return Kubectl(binary, path)


def test_a_token_as_kubectl_makes_it_and_shows_it(binary: Path, server: ServerThread, kubectl: Kubectl) -> None:
    """Who it is, what it may, and that it ends with what it is bound to."""
    me, inside = f"system:serviceaccount:{kubectl.namespace}:robot", f"--namespace={kubectl.namespace}"
    kubectl("create", "serviceaccount", "robot")
    robot = bearing(binary, server, kubectl("create", "token", "robot", "--duration=10m").strip())
    shown = robot("auth", "whoami")
    assert me in shown
    assert f"system:serviceaccounts:{kubectl.namespace}" in shown
    assert "JTI=" in shown
    assert robot.run("auth", "can-i", "list", "pods", inside, check=False).stdout == "no\n"
    assert f'User "{me}" cannot list resource "pods"' in robot.fails("get", "pods", inside)
    kubectl("create", "rolebinding", "robot", "--clusterrole=view", f"--serviceaccount={kubectl.namespace}:robot")
    assert robot("auth", "can-i", "list", "pods", inside) == "yes\n"
    assert kubectl("auth", "can-i", "list", "pods", f"--as={me}") == "yes\n"
    robot("get", "pods", inside)
    assert "less than 10 minutes" in kubectl.fails("create", "token", "robot", "--duration=9m")
    elsewhere = bearing(binary, server, kubectl("create", "token", "robot", "--audience=https://vault.example").strip())
    assert "Unauthorized" in elsewhere.fails("get", "pods", inside) or "logged in" in elsewhere.fails("auth", "whoami")
    kubectl("create", "secret", "generic", "pin")
    words = ("--bound-object-kind=Secret", "--bound-object-name=pin")
    bound = bearing(binary, server, kubectl("create", "token", "robot", *words).strip())
    bound("get", "pods", inside)
    kubectl("delete", "secret", "pin")
    refused = bound.fails("get", "pods", inside)
    assert "logged in" in refused or "Unauthorized" in refused
