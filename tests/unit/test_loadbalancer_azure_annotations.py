"""What is read out of a Service for Azure: each annotation is supported, ignored with a remark, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubesvc.api.core import Service, ServicePort
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.azure import annotations as known
from kubesvc.loadbalancer.providers.azure.wish import remarks, wish_of
from support.azure_services import AZURE, service

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "azure.md"
PORT = "service.beta.kubernetes.io/port_80_"


def test_the_guide_has_the_table() -> None:
    assert known.table() in GUIDE.read_text()


@pytest.mark.parametrize("annotation", known.ANNOTATIONS, ids=lambda a: a.name)
def test_each_annotation_meets_its_fate(annotation: known.Annotation) -> None:
    key = known.PREFIX + annotation.name.replace("{port}", "80").replace("*", "name")
    wanted, plain = web({key: "true"}), web({})
    if annotation.fate == known.REJECTED:
        with pytest.raises(Refused, match=key) as caught:
            wish_of(wanted)
        assert caught.value.reason == "Unsupported"
    elif annotation.fate == known.IGNORED:
        assert wish_of(wanted) == wish_of(plain)
        assert remarks(wanted) == [f"{key} is ignored: {annotation.says}"]
    else:
        assert remarks(wanted) == []
        assert read(wanted) != read(plain)


def web(annotations: dict[str, str], app_protocol: str | None = "http") -> Service:
    made = service(annotations=annotations)
    port = ServicePort(port=80, node_port=30080, app_protocol=app_protocol)
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, ports=[port]))


def read(wanted: Service) -> object:
    """What is understood, or why it isn't."""
    try:
        return wish_of(wanted)
    except Refused as refused:
        return str(refused)


@pytest.mark.parametrize(
    ("annotations", "spec", "why"),
    [
        ({AZURE + "load-balancer-tcp-idle-timeout": "31"}, {}, "'31' isn't a number from 4 to 30"),
        ({AZURE + "load-balancer-tcp-idle-timeout": "soon"}, {}, "'soon' isn't a number from 4 to 30"),
        ({AZURE + "load-balancer-internal": "yes"}, {}, "load-balancer-internal: 'yes' isn't true or false"),
        ({AZURE + "load-balancer-health-probe-interval": "4"}, {}, "'4' isn't a number from 5 to 119"),
        (
            {PORT + "health-probe_interval": "60", PORT + "health-probe_num-of-probe": "2"},
            {},
            "takes 120 s; it must stay",
        ),
        ({PORT + "health-probe_protocol": "ftp"}, {}, "'ftp' isn't tcp, http or https"),
        ({PORT + "health-probe_protocol": "http", PORT + "health-probe_request-path": "up"}, {}, "begins with /"),
        ({AZURE + "pip-tags": "a"}, {}, "isn't pairs with commas between them: a=b,c=d"),
        ({AZURE + "load-balancer-ipv4": "fd00::1"}, {}, "'fd00::1' isn't an IPv4 address"),
        ({}, {"load_balancer_ip": "fd00::1"}, "fd00::1 is IPv6, but the Service isn't"),
        ({AZURE + "allowed-ip-ranges": "10.0.0.0/8"}, {"load_balancer_source_ranges": ["10.0.0.0/8"]}, "keep one"),
        ({AZURE + "allowed-ip-ranges": "ten"}, {}, "'ten' isn't a network such as 192.0.2.0/24"),
        ({}, {"ports": [(80, 30080, "SCTP")]}, "Azure balances TCP and UDP, not SCTP"),
        ({PORT + "no_lb_rule": "true"}, {}, "no port is left to balance"),
        ({}, {"ports": [(80, 0, "TCP")], "allocate_load_balancer_node_ports": False}, "must be Local and floating IP"),
    ],
)
def test_a_wish_that_can_not_be_met_says_what_was_expected(
    annotations: dict[str, str], spec: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused) as caught:
        wish_of(service(annotations=annotations, **spec))
    assert why in str(caught.value)


def test_an_annotation_that_nobody_knows_is_remarked() -> None:
    (said,) = remarks(service(annotations={AZURE + "load-balancer-intrenal": "true"}))
    assert said.endswith("is ignored: no such annotation is known: is it spelt right?")


def test_what_is_about_public_ips_is_remarked_on_an_internal_service() -> None:
    given = {AZURE + "load-balancer-internal": "true", AZURE + "pip-name": "mine"}
    assert remarks(service(annotations=given)) == [
        f"{AZURE}pip-name is ignored: the load balancer is internal and has no public IP"
    ]


def test_annotations_of_others_are_none_of_our_business() -> None:
    others = {"example.com/x": "y", "service.beta.kubernetes.io/aws-load-balancer-type": "nlb"}
    assert remarks(service(annotations=others)) == []


@pytest.mark.parametrize(
    ("app_protocol", "annotation", "expected"),
    [
        (None, None, "Tcp"),
        ("HTTP", None, "Http"),
        ("https", "tcp", "Https"),
        (None, "http", "Http"),
        ("grpc", None, "Tcp"),
    ],
)
def test_a_probe_follows_app_protocol_before_the_services_annotation(
    app_protocol: str | None, annotation: str | None, expected: str
) -> None:
    given = {AZURE + "load-balancer-health-probe-protocol": annotation} if annotation else {}
    probe = wish_of(web(given, app_protocol)).ports[0].probe
    assert probe is not None
    assert probe.protocol == expected
