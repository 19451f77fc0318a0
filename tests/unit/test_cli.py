"""The command line: help for everything, and no traceback for anything."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus
from kubesvc.api.meta import ObjectMeta
from kubesvc.box.errors import BoxError
from kubesvc.box.overview import inside_addresses, outside_addresses
from kubesvc.cli.main import COMMANDS, cli


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command):
    """--help works and says what the command's line in the overview says."""
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert COMMANDS[command][1].split(":")[0].rstrip(".") in shown.output


def test_help_is_quick_because_commands_are_lazy():
    """`kubesvc --help` imports no room."""
    code = (
        "import sys; from kubesvc.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('kubesvc.') and not m.startswith('kubesvc.cli')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["status", "down", "kubeconfig"])
def test_a_box_that_is_not_there_is_named(command):
    """With the command that would start it."""
    shown = CliRunner().invoke(cli, [command, "--name", "nosuchbox"])
    assert shown.exit_code == 1
    assert "there is no box 'nosuchbox'" in shown.output
    assert "kubesvc up --name nosuchbox" in shown.output


@pytest.mark.parametrize("command", ["status", "down", "doctor"])
def test_who_forgot_the_name_is_told_how_to_give_it(command, monkeypatch):
    """There are boxes, and none of the name that is meant without one."""
    monkeypatch.setattr("kubesvc.cli.options.find", lambda name, directory: None)
    monkeypatch.setattr("kubesvc.cli.options.names", lambda: ["mine", "other"])
    shown = CliRunner().invoke(cli, [command])
    assert shown.exit_code == 1
    assert "no box 'default'; boxes here: mine, other; choose with --name or KUBESVC_NAME" in shown.output
    assert "or start one with `kubesvc up`" in shown.output


def test_an_unknown_command_is_refused():
    """As click words it."""
    assert CliRunner().invoke(cli, ["nonsense"]).exit_code == 2


def service(type: str, **spec) -> Service:
    ports = [ServicePort(port=80, node_port=30080 if type in ("NodePort", "LoadBalancer") else 0)]
    return Service(
        metadata=ObjectMeta(name="shop", namespace="ns"),
        spec=ServiceSpec(type=type, **({"cluster_ip": "10.96.1.2", "ports": ports} | spec)),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=[LoadBalancerIngress(ip="172.29.0.200")])),
    )


def test_status_says_where_each_kind_of_service_answers():
    """Names and cluster IPs for pods; node ports and balancer addresses for this machine."""
    name = "shop.ns.svc.cluster.local"
    nodes = {"node1": ["172.29.0.2"], "node2": ["172.29.0.3"]}
    assert inside_addresses(service("ClusterIP"), "cluster.local") == [name, "10.96.1.2:80/TCP"]
    assert inside_addresses(service("ClusterIP", cluster_ip="None"), "cluster.local") == [name]
    alias = service("ExternalName", external_name="a.example", cluster_ip="")
    assert inside_addresses(alias, "cluster.local") == [f"{name} -> a.example"]
    assert outside_addresses(service("NodePort"), nodes, {"node2"})[-1] == "172.29.0.2:30080 (any node)"
    assert outside_addresses(service("LoadBalancer"), nodes, ())[0] == "172.29.0.200:80"
    local = service("NodePort", external_traffic_policy="Local")
    assert outside_addresses(local, nodes, {"node2"})[-1] == "172.29.0.3:30080 (nodes with a pod)"
    assert outside_addresses(local, nodes, ()) == ["172.29.0.200:80"]
    udp = Service(spec=ServiceSpec(type="NodePort", ports=[ServicePort(port=53, protocol="UDP", node_port=30053)]))
    assert outside_addresses(udp, nodes, ())[-1] == "172.29.0.2:30053/UDP (any node)"
    pending = Service(spec=ServiceSpec(type="LoadBalancer", ports=[ServicePort(port=80)]))
    assert outside_addresses(pending, nodes, ()) == ["<pending>"]


def test_several_dns_domains_are_given_with_commas_or_one_by_one(monkeypatch, tmp_path):
    """The first is the cluster's own."""
    seen = []

    def up(name, directory, options, **rest):
        seen.append((options.dns_domain, options.more_dns_domains, options.transfer_to, options.zone))
        raise BoxError("enough")

    monkeypatch.setattr("kubesvc.box.lifecycle.up", up)
    for words in (
        ["--dns-domain", "a.b, c.d"],
        ["--dns-domain", "a.b", "--dns-domain", "c.d"],
        ["--transfer-to", ""],
        [],
    ):
        assert CliRunner().invoke(cli, ["up", "--dir", str(tmp_path), *words]).exit_code == 1
    assert seen == [
        ("a.b", ("c.d",), None, None),
        ("a.b", ("c.d",), None, None),
        (None, None, ("",), None),
        (None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--zone", "x y"), "--zone 'x y': expected up to 63 letters"),
        (("--zone", "z" * 64), "expected up to 63 letters"),
        (("--label", "disk"), "--label 'disk': expected KEY=VALUE"),
        (("--label", "-.-/disk=ssd"), "--label '-.-/disk=ssd': expected KEY=VALUE"),
        (("--label", "disk=a/b"), "--label 'disk=a/b': expected KEY=VALUE"),
    ],
)
def test_a_node_that_could_never_be_one_is_not_begun(tmp_path, monkeypatch, words, refusal):
    asked = []
    monkeypatch.setattr("kubesvc.box.control.ask", lambda *request: asked.append(request))
    monkeypatch.setattr("kubesvc.cli.node.box_or_fail", lambda *_: None)
    found = CliRunner().invoke(cli, ["node", "add", *words, "node9"])
    assert found.exit_code == 1
    assert refusal in found.output
    assert not asked
