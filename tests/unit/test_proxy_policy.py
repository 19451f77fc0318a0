"""What a Service's policies make of its frontends, where a packet wouldn't show it."""

from __future__ import annotations

import pytest

from kubesvc.proxy.backend import Changes
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import pack, unpack
from kubesvc.proxy.sources import allowed
from support.proxy import NODE, NODE_IP, endpoint, service, slice_of

VIP, VIP6, NODE_IP6 = "172.29.8.1", "fd00:29:8::1", "fd00:29::11"


@pytest.mark.parametrize(
    ("ranges", "vip", "expected"),
    [
        pytest.param(["10.0.0.0/8"], VIP, ["10.0.0.0-10.255.255.255"], id="one"),
        pytest.param([" 10.0.0.0/8\t"], VIP, ["10.0.0.0-10.255.255.255"], id="blanks don't count"),
        pytest.param(["10.0.0.0/8", "0.0.0.0/0"], VIP, None, id="a range of all"),
        pytest.param(["10.0.0.0/8", "10.1.0.0/16"], VIP, ["10.0.0.0-10.255.255.255"], id="overlapping"),
        pytest.param(["10.1.2.3/8"], VIP, ["10.0.0.0-10.255.255.255"], id="host bits"),
        pytest.param(["fd00::/8"], VIP, None, id="none of the family"),
        pytest.param(["10.0.0.0/8", "::/0"], VIP, ["10.0.0.0-10.255.255.255"], id="all of the other family"),
        pytest.param(["::/0", "10.0.0.0/8"], VIP6, None, id="all of this one"),
        pytest.param(
            [f"{NODE_IP}/32"], VIP, [f"{NODE_IP}-{NODE_IP}", f"{VIP}-{VIP}"], id="this node, and so the address itself"
        ),
        pytest.param(["172.29.0.0/16"], VIP, ["172.29.0.0-172.29.255.255"], id="both at once"),
        pytest.param(
            [f"{NODE_IP6}/128"], VIP6, [f"{NODE_IP6}-{NODE_IP6}", f"{VIP6}-{VIP6}"], id="this node, the other family"
        ),
        pytest.param(["rubbish", "10.0.0.0/8"], VIP, ["10.0.0.0-10.255.255.255"], id="rubbish is left out"),
    ],
)
def test_source_ranges(ranges: list[str], vip: str, expected: list[str] | None) -> None:
    """Upstream's rules, as ranges that don't overlap."""
    address = pack(vip)
    found = allowed(ranges, address, [pack(NODE_IP), pack(NODE_IP6)])
    half = len(address)
    shown = None if found is None else [f"{unpack(f[:half])}-{unpack(f[half:])}" for f in found]
    assert shown == expected


def decide(*found: object, ranges: tuple[tuple[str, str], ...] = ()) -> Changes:
    made = Frontends(
        Locality(NODE),
        [pack(NODE_IP)],
        load_balancer_ranges=[(pack(first), pack(last)) for first, last in ranges],
    )
    web, *slices = found
    made.set_service(web.key, web)  # type: ignore[attr-defined]
    for each in slices:
        made.set_slice(None, each)  # type: ignore[arg-type]
    return made.take()


def test_an_address_that_may_be_a_hosts_is_not_closed() -> None:
    """Some controllers give a node's address as the load balancer's: only ours are refused at other ports."""
    web = service(type="LoadBalancer", status_ips=[VIP, "172.29.7.12"])
    assert decide(web).service_ips == {pack("10.96.0.10"): True}
    found = decide(web, ranges=(("172.29.8.0", "172.29.8.255"),)).service_ips
    assert found == {pack("10.96.0.10"): True, pack(VIP): True}


def test_an_empty_proxy_name_is_a_name_too() -> None:
    """A Service that carries the label is not for a proxy without a name."""
    assert not decide(service(labels={"service.kubernetes.io/service-proxy-name": ""}), slice_of("10.244.0.5"))


def test_the_sets_of_policy_local_keep_their_slots_apart() -> None:
    """Inside and outside are arranged each on its own when endpoints come and go."""
    made = Frontends(Locality(NODE), [])
    web = service(type="LoadBalancer", externalTrafficPolicy="Local", status_ips=[VIP])
    made.set_service(web.key, web)
    here, there = (endpoint(f"10.244.0.{n}", node=NODE) for n in (1, 2)), endpoint("10.244.1.1")
    before = slice_of(*here, there)
    made.set_slice(None, before)
    made.take()
    after = slice_of(there, endpoint("10.244.0.2", node=NODE), endpoint("10.244.0.9", node=NODE))
    made.set_slice(before, after)
    (found,) = (f for f in made.take().frontends.values() if f is not None and f.outside is not None)
    assert [e[:4] for e in found.endpoints] == [pack(a) for a in ("10.244.0.9", "10.244.0.2", "10.244.1.1")]
    assert [e[:4] for e in found.outside or ()] == [pack(a) for a in ("10.244.0.9", "10.244.0.2")]
