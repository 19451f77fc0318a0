"""CNI configurations, requests and results, without plugins."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from kubesvc.api.meta import ObjectMeta
from kubesvc.api.pods import Container, ContainerPort, Pod, PodSpec
from kubesvc.node.cni import network as cni
from kubesvc.node.cni.network import CniError
from kubesvc.node.ipam import Network

POD = Pod(
    metadata=ObjectMeta(name="web", namespace="shop", uid="u1"),
    spec=PodSpec(containers=[Container(name="c", ports=[ContainerPort(container_port=80, host_port=8080)])]),
)
CIDRS: tuple[Network, ...] = (ip_network("10.244.1.0/24"), ip_network("fd00:1::/64"))


def parsed(**tree: Any) -> cni.CniNetwork:
    usual = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}
    return cni.parse(json.dumps(usual | tree).encode(), "FILE")


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("{", "FILE is not JSON"),
        ("[]", "expected an object"),
        (
            '{"cniVersion": "2.0.0", "name": "n", "plugins": [{"type": "a"}]}',
            "cniVersion '2.0.0': expected one of 0.3.0",
        ),
        ('{"cniVersion": "1.0.0", "plugins": [{"type": "a"}]}', "has no name"),
        ('{"cniVersion": "1.0.0", "name": "n", "plugins": []}', "a list of plugins"),
        ('{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../a"}]}', "without a path"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(text: str, refusal: str) -> None:
    with pytest.raises(CniError, match=refusal):
        cni.parse(text.encode(), "FILE")


def test_a_single_plugins_configuration_is_a_list_of_one() -> None:
    found = cni.parse(b'{"cniVersion": "0.3.1", "name": "n", "type": "ptp"}', "FILE")
    assert (found.types, found.disable_check) == (("ptp",), False)


def test_a_plugin_is_told_what_it_has_a_capability_for() -> None:
    """And name, version, and the result of the one before it."""
    plugin = {"type": "bridge", "mtu": 1400, "capabilities": {"ipRanges": True, "portMappings": False}}
    network = parsed(plugins=[plugin])
    told = cni.capabilities(POD, CIDRS)
    assert cni.request(network, plugin, told, {"ips": []}) == {
        "type": "bridge",
        "mtu": 1400,
        "cniVersion": "1.0.0",
        "name": "net",
        "runtimeConfig": {"ipRanges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:1::/64"}]]},
        "prevResult": {"ips": []},
    }
    assert told["portMappings"] == [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]
    assert network.can("ipRanges")
    assert not network.can("portMappings")
    assert "runtimeConfig" not in cni.request(network, {"type": "ptp"}, told, None)
    assert "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web" in cni.arguments(POD)


def test_a_pods_addresses_are_those_inside_it() -> None:
    """The first of each family; not those of the node's own interfaces."""
    result = {
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [
            {"address": "10.0.0.1/24", "interface": 0},
            {"address": "fd00:1::2/64", "interface": 1},
            {"address": "10.244.1.2/24", "interface": 1},
            {"address": "10.244.1.3/24"},
        ],
    }
    assert list(map(str, cni.addresses(result))) == ["fd00:1::2", "10.244.1.2"]
    for nothing in ({}, {"ips": result["ips"][:1], "interfaces": result["interfaces"]}):
        with pytest.raises(CniError, match="no IP address"):
            cni.addresses(nothing)
    with pytest.raises(CniError, match="can't be understood"):
        cni.addresses({"ips": [{"address": "nonsense"}]})


def test_a_refusal_is_what_the_plugin_says() -> None:
    assert cni.refusal(b'{"code": 7, "msg": "no", "details": "none left"}') == "no: none left"
    assert cni.refusal(b"plain words\n") == "plain words"
