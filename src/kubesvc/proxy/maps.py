"""The maps of the table, and the elements that frontends become. Pure: all of it is data.

    frontends          address . protocol . port                    -> class, or DROP
    frontends-outside  the same, asked first for sources outside the cluster; holds externalTrafficPolicy Local alone
    classes            class                                        -> goto its pick chain
    backends           address . protocol . port . slot             -> endpoint
                       address . protocol . port . endpoint id      -> endpoint         with affinity, beside the slots
    slots              address . protocol . port . slot             -> endpoint id      with affinity
    services           address . protocol . port                    -> service id       with affinity
    affinity           client . service id                          -> endpoint id      written by packets
    lent-marks         client . address . protocol . both ports     -> mark             written by packets, for a moment
    refused            address . protocol . port                    rejected
    guarded            address . protocol . port                    open only to sources in
    allowed            address . protocol . port . source range
    service-ips        address                                      only Services have it: other ports are rejected
    hairpin            address . address                            a pod of this node, reaching itself

A client's memory goes by the Service, not by what it connected to: cluster IP, node ports and load balancer's address
lead it to one pod. The way there has two numbers at once, the Service's and the pod's, and `meta priority` holds one:
the Service's is lent the connection's mark meanwhile, and `lent-marks` keeps a mark that somebody else had put there.
"""

from __future__ import annotations

from kubesvc.kernel.nft.expressions import native32
from kubesvc.kernel.nft.objects import CLASSID, INET_PROTO, INET_SERVICE, IPV4_ADDR, IPV6_ADDR, MARK, VERDICT, Map, Type
from kubesvc.proxy.backend import Frontend
from kubesvc.proxy.layout import (
    AFFINITY_SIZE,
    LENT,
    Class,
    Draw,
    Masquerade,
    Refusal,
    endpoint_ids,
    family,
    keep_for,
    outside_id,
    plain_class,
    service_id,
    slot,
)

FAMILIES = ("4", "6")
_ADDRESS = {"4": IPV4_ADDR, "6": IPV6_ADDR}


def _both(name: str, *key: Type | None, data: tuple[Type | None, ...] = (), **more: int) -> dict[str, Map]:
    """A map for each family; None stands for an address."""

    def of(family_: str, types: tuple[Type | None, ...]) -> tuple[Type, ...]:
        return tuple(_ADDRESS[family_] if t is None else t for t in types)

    return {
        f: Map(name + f, of(f, key), of(f, data), bool(more.get("interval")), more.get("dynamic", 0)) for f in FAMILIES
    }


# "4" or "6" -> map; None in a key is an address
_PLACE = (None, INET_PROTO, INET_SERVICE)
FRONTENDS = _both("frontends", *_PLACE, data=(CLASSID,))
OUTSIDE = _both("frontends-outside", *_PLACE, data=(CLASSID,))
BACKENDS = _both("backends", *_PLACE, CLASSID, data=(None, INET_SERVICE))
SLOTS = _both("slots", *_PLACE, CLASSID, data=(CLASSID,))
REFUSED = _both("refused", *_PLACE)
GUARDED = _both("guarded", *_PLACE)
ALLOWED = _both("allowed", *_PLACE, None, interval=True)
SERVICE_IPS = _both("service-ips", None)
HAIRPIN = _both("hairpin", None, None)
SERVICES = _both("services", *_PLACE, data=(MARK,))
AFFINITY = _both("affinity", None, MARK, data=(CLASSID,), dynamic=AFFINITY_SIZE)
LENT_MARKS = _both("lent-marks", None, None, INET_PROTO, INET_SERVICE, INET_SERVICE, data=(MARK,), dynamic=LENT)
CLASSES = Map("classes", (CLASSID,), (VERDICT,))

DATA_MAPS: dict[str, Map] = {
    m.name: m
    for maps in (FRONTENDS, OUTSIDE, BACKENDS, SLOTS, SERVICES, REFUSED, GUARDED, ALLOWED, SERVICE_IPS, HAIRPIN)
    for m in maps.values()
}
"""Name -> map, of those that grow with Services."""

DYNAMIC_MAPS = (*AFFINITY.values(), *LENT_MARKS.values())
"""Those that packets write: nobody else does, and they outlive a restart."""

Elements = dict[str, dict[bytes, bytes]]  # map name -> key -> data


def no_elements() -> Elements:
    return {name: {} for name in DATA_MAPS}


def place(frontend: Frontend, into: Elements) -> None:
    """The elements of one frontend."""
    key = frontend.key
    suffix = "4" if len(key) == 12 else "6"
    if frontend.sources is not None:
        _guard(frontend, suffix, into)
    endpoints = frontend.endpoints
    if not _is_plain(frontend):
        _place_carefully(frontend, suffix, into)
    elif endpoints:
        into["frontends" + suffix][key] = native32(plain_class(frontend.masquerade, len(endpoints)))
        backends = into["backends" + suffix]
        for number, endpoint in enumerate(endpoints):
            backends[key + slot(number)] = endpoint
    else:
        _refuse(frontend, suffix, into)


def place_service_ip(address: bytes, into: Elements) -> None:
    into[SERVICE_IPS[family(address)].name][address] = b""


def place_hairpin(address: bytes, into: Elements) -> None:
    into[HAIRPIN[family(address)].name][address + address] = b""


def classes_of(frontend: Frontend) -> tuple[int, ...]:
    """The classes that the frontend's elements name."""
    if _is_plain(frontend):
        return (plain_class(frontend.masquerade, len(frontend.endpoints)),) if frontend.endpoints else ()
    return tuple(c.number for c in (_inside(frontend), _outside(frontend)) if c.slots)


def _is_plain(frontend: Frontend) -> bool:
    """Nearly every frontend: random, without affinity, the same for all sources."""
    return not frontend.affinity and frontend.outside is None and frontend.draw is Draw.RANDOM


def _inside(frontend: Frontend) -> Class:
    return Class(frontend.masquerade, len(frontend.endpoints), False, keep_for(frontend.affinity), frontend.draw)


def _outside(frontend: Frontend) -> Class:
    return Class(Masquerade.NEVER, len(frontend.outside or ()), True, keep_for(frontend.affinity), frontend.draw)


def _place_carefully(frontend: Frontend, suffix: str, into: Elements) -> None:
    """With affinity, slots of a hash, or another answer for sources outside."""
    if frontend.affinity and frontend.endpoints:
        into["services" + suffix][frontend.key] = service_id(frontend.service)
    ids = endpoint_ids((*frontend.endpoints, *(frontend.outside or ()))) if frontend.affinity else {}
    if frontend.endpoints:
        into["frontends" + suffix][frontend.key] = native32(_inside(frontend).number)
        _place_endpoints(frontend.key, frontend.endpoints, ids, False, suffix, into)
    else:
        _refuse(frontend, suffix, into)
    if frontend.outside:
        into["frontends-outside" + suffix][frontend.key] = native32(_outside(frontend).number)
        _place_endpoints(frontend.key, frontend.outside, ids, True, suffix, into)
    elif frontend.outside is not None:
        into["frontends-outside" + suffix][frontend.key] = native32(Refusal.DROP)


def _place_endpoints(
    key: bytes, endpoints: tuple[bytes, ...], ids: dict[bytes, bytes], outside: bool, suffix: str, into: Elements
) -> None:
    backends, slots = into["backends" + suffix], into["slots" + suffix]
    for number, endpoint in enumerate(endpoints):
        place = key + slot(number, outside=outside)
        backends[place] = endpoint
        if ids:
            slots[place] = ids[endpoint]
            backends[key + (outside_id(ids[endpoint]) if outside else ids[endpoint])] = endpoint


def _refuse(frontend: Frontend, suffix: str, into: Elements) -> None:
    if frontend.refusal is Refusal.DROP:
        into["frontends" + suffix][frontend.key] = native32(Refusal.DROP)
    elif frontend.refusal is not None:
        into["refused" + suffix][frontend.key] = b""


def _guard(frontend: Frontend, suffix: str, into: Elements) -> None:
    into["guarded" + suffix][frontend.key] = b""
    allowed = into["allowed" + suffix]
    for between in frontend.sources or ():
        middle = len(between) // 2
        allowed[frontend.key + between[:middle] + frontend.key + between[middle:]] = b""
