"""Random histories of Services and slices, for hypothesis, and what a data plane holds after one.

The order of slots and the order in which elements came don't count; every other difference does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from hypothesis import strategies as st

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.kernel.nft.transaction import Nft
from kubesvc.proxy import maps
from kubesvc.proxy.backend import Backend, Ranges
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import TABLE, Draw, outside_id, pack
from support.proxy import NODE, NODE_IP, endpoint, service, slice_of

RANGES = Ranges(
    (ip_network("10.96.0.0/16"), ip_network("fd00:96::/108")),
    (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
)
NODE_IPS = (NODE_IP, "fd00:29::11")
_NAMES = ("a", "b", "c")
SLOTS = 31  # of a table
_LOAD_BALANCERS = (pack("172.29.8.0"), pack("172.29.8.255"))


def _service(name: str, draw: dict[str, Any]) -> Service:
    number = _NAMES.index(name) + 1
    ips = [f"10.96.0.{number}", f"fd00:96::{number}"][: draw["families"]]
    ports = [
        {"name": "http", "port": 80, "nodePort": 30000 + number},
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30000 + number},
    ][: draw["ports"]]
    return service(
        name,
        ips[0],
        clusterIPs=ips,
        ports=ports,
        type="LoadBalancer",
        externalIPs=draw["external"],
        status_ips=draw["ingress"],
        externalTrafficPolicy=draw["outside"],
        internalTrafficPolicy=draw["inside"],
        sessionAffinity=draw["affinity"],
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": draw["timeout"]}},
        loadBalancerSourceRanges=draw["sources"],
        annotations=draw["balance"],
    )


_POLICY = st.sampled_from(["Cluster", "Local"])
SERVICES = st.fixed_dictionaries(
    {
        "families": st.integers(1, 2),
        "ports": st.integers(1, 2),
        # Addresses that others have too: a Service's cluster IP, a node, another's load balancer address.
        "external": st.lists(st.sampled_from(["203.0.113.1", "10.96.0.2", NODE_IP, "2001:db8::1"]), unique=True),
        "ingress": st.lists(st.sampled_from(["172.29.8.1", "172.29.8.2", "203.0.113.1", "2001:db8::2"]), unique=True),
        "outside": _POLICY,
        "inside": _POLICY,
        "affinity": st.sampled_from(["None", "ClientIP"]),
        "timeout": st.sampled_from([1, 60, 10800]),
        "sources": st.lists(
            st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "172.29.7.0/24", "192.0.2.7/32", "0.0.0.0/0", "fd00::/8"]),
            max_size=3,
        ),
        "balance": st.sampled_from(
            [
                {},
                {"kubesvc.dev/balance": "weighted"},
                {"kubesvc.dev/balance": "maglev"},
                {"kubesvc.dev/balance": "maglev", "kubesvc.dev/balance-key": "client"},
                {"kubesvc.dev/balance": "nonsense"},
            ]
        ),
    }
)
_ENDPOINTS = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.sampled_from([NODE, "node2"]),
        st.sampled_from(["ready", "ready", "draining", "dead", "starting"]),
        st.sampled_from([None, "x", "y"]),
        st.sampled_from([None, None, "0", "1", "3", "100", "-1"]),
    ),
    max_size=5,
    unique_by=lambda e: e[0],
)


def _slice(name: str, which: int, family: str, found: list[Any]) -> EndpointSlice:
    endpoints = [
        endpoint(
            f"10.244.0.{n}" if family == "4" else f"fd00:10:244::{n}",
            node=node,
            state=state,
            **({"hints": {"forZones": [{"name": zone}]}} if zone else {}),
        )
        for n, node, state, zone, _ in found
    ]
    ports = [{"name": "http", "port": 8080}, {"name": "dns", "port": 1053, "protocol": "UDP"}]
    weights = ",".join(f"{e['addresses'][0]}={w}" for e, (*_, w) in zip(endpoints, found, strict=True) if w is not None)
    more = {"owner": name, "name": f"{name}-{which}", "ports": ports, "weights": weights}
    return slice_of(*endpoints, family=f"IPv{family}", **more)


_NAME = st.sampled_from(_NAMES)
HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.just("service"), _NAME, SERVICES),
        st.tuples(st.just("service gone"), _NAME),
        st.tuples(st.just("slice"), _NAME, st.integers(0, 1), st.sampled_from("46"), _ENDPOINTS),
        st.tuples(st.just("slice gone"), _NAME, st.integers(0, 1)),
        st.tuples(st.just("zone"), st.sampled_from(["x", "y", ""])),
        st.just(("apply",)),
    ),
    max_size=25,
)


def frontends() -> Frontends:
    return Frontends(
        Locality(NODE), [pack(ip) for ip in NODE_IPS], load_balancer_ranges=[_LOAD_BALANCERS], slot_table=SLOTS
    )


def live(history: list[Any], backend: Backend) -> Callable[[], Frontends]:
    """Go through a history with a backend; gives what makes the same decisions from nothing."""
    deciding = frontends()
    backend.resync(deciding.take())
    services: dict[str, Service] = {}
    slices: dict[str, EndpointSlice] = {}
    zone = ""
    for event in (*history, ("apply",)):
        match event:
            case ("service", name, draw):
                services[name] = _service(name, draw)
                deciding.set_service(services[name].key, services[name])
            case ("service gone", name):
                services.pop(name, None)
                deciding.set_service(("default", name), None)
            case ("slice", name, which, family, found):
                made = _slice(name, which, family, found)
                deciding.set_slice(slices.get(made.name), made)
                slices[made.name] = made
            case ("slice gone", name, which):
                gone = slices.pop(f"{name}-{which}", None)
                if gone is not None:
                    deciding.set_slice(gone, None)
            case ("zone", zone):
                deciding.set_zone(zone)
            case _:
                backend.apply(deciding.take(), "1")

    def again() -> Frontends:
        fresh = frontends()
        fresh.set_zone(zone)
        for name in reversed(slices):
            fresh.set_slice(None, slices[name])
        for name in sorted(services):
            fresh.set_service(services[name].key, services[name])
        fresh.take()
        return fresh

    return again


def held(nft: Nft) -> dict[str, Any]:
    """What the maps say, whatever slot an endpoint is in where that is left to chance."""
    found: dict[str, Any] = {name: nft.elements(TABLE, m) for name, m in maps.DATA_MAPS.items()}
    classes = nft.elements(TABLE, maps.CLASSES)
    for suffix in maps.FAMILIES:
        found[f"tables{suffix}"] = _tables(found, suffix)
        for name in ("frontends", "frontends-outside"):
            for number in found[name + suffix].values():
                assert number in classes or number == maps.native32(maps.Refusal.DROP)
        backends, slots = found[f"backends{suffix}"], found[f"slots{suffix}"]
        for place, number in slots.items():
            scoped = outside_id(number) if place[-2] & 4 else number
            assert backends[place[:-4] + scoped] == backends[place], "an id and its slot lead to different pods"
        found[f"backends{suffix}"] = _grouped(backends)
        found[f"slots{suffix}"] = _grouped(slots)
    return found


def _tables(found: dict[str, Any], suffix: str) -> dict[bytes, bytes]:
    """The elements of slots that a hash chooses."""
    classes = (found["frontends" + suffix], found["frontends-outside" + suffix])
    hashed = {key for map_ in classes for key, number in map_.items() if number[3] in (Draw.CLIENT, Draw.CONNECTION)}
    return {key: data for key, data in found["backends" + suffix].items() if key[:-4] in hashed and key[-1] == 0x6B}


def _grouped(elements: dict[bytes, bytes]) -> dict[bytes, list[bytes]]:
    """Elements whose keys differ in the slot alone, together; their slots are checked to be 0 to N-1."""
    found: dict[bytes, list[bytes]] = defaultdict(list)
    numbers: dict[bytes, list[int]] = defaultdict(list)
    for key, data in elements.items():
        if key[-1] == 0x6B:
            found[key[:-4] + key[-2:]].append(data)
            numbers[key[:-4] + key[-2:]].append(int.from_bytes(key[-4:-2], "little"))
        else:
            found[key].append(data)
    for place, slots in numbers.items():
        assert sorted(slots) == list(range(len(found[place])))
    return {key: sorted(datas) for key, datas in found.items()}
