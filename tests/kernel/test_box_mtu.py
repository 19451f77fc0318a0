"""The packet size that a box chooses: that of what carries its packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.box import network
from kubesvc.box.definition import Options, define
from support.net import Lab


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(Options(), 1500, id="no way out"),
        pytest.param(Options(egress=True), 1500, id="a way out that takes more"),
        pytest.param(Options(egress=True, ip_family="dual"), 1420, id="the least of both families' ways"),
        pytest.param(Options(egress=True, ip_family="ipv6"), 1420, id="that of its own family"),
        pytest.param(Options(egress=True, ip_family="dual", mtu=9000), 9000, id="what the user says"),
    ],
)
def test_the_mtu_is_the_least_of_what_carries_the_packets(options: Options, expected: int) -> None:
    """IPv4 leaves by a link of 9000 bytes, IPv6 by one of 1420; a smaller one leads to a neighbour only."""
    with Lab("mtu") as lab:
        host, outside = lab.namespace("host"), lab.namespace("outside")
        for link, mtu, address in (("wide", 9000, "10.9.0.1/24"), ("narrow", 1420, "fd09::1/64"), ("side", 1300, "")):
            lab.link(host, link, outside, f"to-{link}")
            host.ip("link", "set", link, "mtu", str(mtu))
            if address:
                host.ip("addr", "add", address, "dev", link)
        host.ip("route", "add", "default", "via", "10.9.0.2", "dev", "wide")
        host.ip("-6", "route", "add", "default", "via", "fd09::2", "dev", "narrow")
        box = define("t", Path("/nowhere"), options, None)
        assert host.call(lambda: network.mtu(box)) == expected
