"""Frontends -> elements of maps, and the constant rules that read them. Pure: all of it is data.

    prerouting, output (nat) ─► services ─► frontends: class ─► classes ─► pick-off-cluster-3: slot random mod 3
                                              masquerade-off-cluster? set the mark ◄─┤
                                                                                     └► to-endpoint ┬ dnat: backends
                                                                                   slot 0, for sure └ dnat: backends
    input, forward, output (filter), new connections ─► refuse ─► refused: reject | drop
                                                               └► a cluster IP's other ports: reject
    forward, output ─► an address of a service CIDR that no Service has: drop
    postrouting (nat) ─► marked: masquerade;  a pod sent back to itself: masquerade

Rules never grow with Services. Two things the kernel does decide their form. It revalidates a map of verdicts whole at
each change: so only `classes`, which is small, holds any. It walks all of a map when one more chain looks something up
in it (0.13 s at 400,000 elements): so a new class's chain has no look-up of its own. Between a packet's two look-ups
the number of endpoints may change: hence the second dnat.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.expressions import Expression
from kubesvc.kernel.nft.objects import (
    CLASSID,
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    VERDICT,
    Chain,
    Hook,
    Map,
    Rule,
)
from kubesvc.proxy.backend import Frontend, Ranges
from kubesvc.proxy.layout import (
    DSTNAT,
    FILTER,
    MAGIC,
    MAGIC_MASK,
    MARK,
    SLOTS,
    SRCNAT,
    TCP,
    Masquerade,
    Refusal,
    class_of,
    describe_class,
    family,
    slot,
)

_ADDRESS = {"4": IPV4_ADDR, "6": IPV6_ADDR}
_FAMILIES = ("4", "6")

# "4" or "6" -> map
FRONTENDS = {f: Map(f"frontends{f}", (_ADDRESS[f], INET_PROTO, INET_SERVICE), (CLASSID,)) for f in _FAMILIES}
REFUSED = {f: Map(f"refused{f}", (_ADDRESS[f], INET_PROTO, INET_SERVICE), (CLASSID,)) for f in _FAMILIES}
BACKENDS = {
    f: Map(f"backends{f}", (_ADDRESS[f], INET_PROTO, INET_SERVICE, CLASSID), (_ADDRESS[f], INET_SERVICE))
    for f in _FAMILIES
}
CLUSTER_IPS = {f: Map(f"cluster-ips{f}", (_ADDRESS[f],)) for f in _FAMILIES}
HAIRPIN = {f: Map(f"hairpin{f}", (_ADDRESS[f], _ADDRESS[f])) for f in _FAMILIES}
CLASSES = Map("classes", (CLASSID,), (VERDICT,))

DATA_MAPS: dict[str, Map] = {
    m.name: m for maps in (FRONTENDS, BACKENDS, REFUSED, CLUSTER_IPS, HAIRPIN) for m in maps.values()
}
"""Name -> map, of those that grow with Services."""

Elements = dict[str, dict[bytes, bytes]]  # map name -> key -> data


# ── elements ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def no_elements() -> Elements:
    return {name: {} for name in DATA_MAPS}


def place(frontend: Frontend, into: Elements) -> None:
    """The elements of one frontend."""
    key = frontend.key
    suffix = "4" if len(key) == 12 else "6"
    endpoints = frontend.endpoints
    if endpoints:
        into["frontends" + suffix][key] = nft.native32(class_of(frontend.masquerade, len(endpoints)))
        backends = into["backends" + suffix]
        for number, endpoint in enumerate(endpoints):
            backends[key + slot(number)] = endpoint
    elif frontend.refusal is not None:
        into["refused" + suffix][key] = nft.native32(frontend.refusal)


def place_cluster_ip(address: bytes, into: Elements) -> None:
    into[CLUSTER_IPS[family(address)].name][address] = b""


def place_hairpin(address: bytes, into: Elements) -> None:
    into[HAIRPIN[family(address)].name][address + address] = b""


def class_number(frontend: Frontend) -> int:
    """The frontend's class; 0 when it has no endpoint and so needs none."""
    return class_of(frontend.masquerade, len(frontend.endpoints)) if frontend.endpoints else 0


# ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def rule(*statements: tuple[str, tuple[Expression, ...]]) -> Rule:
    return Rule(" ".join(text for text, _ in statements if text), tuple(e for _, found in statements for e in found))


def _only(suffix: str) -> tuple[str, tuple[Expression, ...]]:
    """A rule for one family; nft prints nothing for it, since the addresses after it say as much."""
    number = nft.NFPROTO_IPV4 if suffix == "4" else nft.NFPROTO_IPV6
    return "", (nft.Meta(nft.META_NFPROTO), nft.Compare(bytes((number,))))


def _address(suffix: str, which: str, into: int = 0, length: int = 0) -> nft.Payload:
    """Load the source or destination address, or its first `length` bytes."""
    offset, size = {
        ("4", "saddr"): (12, 4),
        ("4", "daddr"): (16, 4),
        ("6", "saddr"): (8, 16),
        ("6", "daddr"): (24, 16),
    }[suffix, which]
    return nft.Payload(nft.NETWORK, offset, length or size, into)


def _ip(suffix: str) -> str:
    return "ip" if suffix == "4" else "ip6"


def _words(suffix: str) -> int:
    return 1 if suffix == "4" else 4


def _destination(suffix: str) -> tuple[str, tuple[Expression, ...]]:
    """Load address . protocol . port, the key of a frontend, from word 0 on."""
    after = _words(suffix)
    text = f"{_ip(suffix)} daddr . meta l4proto . th dport"
    return text, (
        _address(suffix, "daddr"),
        nft.Meta(nft.META_L4PROTO, after),
        nft.Payload(nft.TRANSPORT, 2, 2, after + 1),
    )


def _scratch_from(suffix: str, map_: Map) -> Rule:
    """Put the class of the packet's destination into its priority, if it has one."""
    text, load = _destination(suffix)
    return rule(
        _only(suffix),
        (
            f"meta priority set {text} map @{map_.name}",
            (*load, nft.Lookup(map_.name, into=0), nft.SetMeta(nft.META_PRIORITY)),
        ),
    )


_CLEAR_SCRATCH = (
    "meta priority set none",
    (nft.Immediate(nft.native32(0)), nft.SetMeta(nft.META_PRIORITY)),
)


def _classid(number: int) -> str:
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


def _scratch_is(refusal: Refusal) -> tuple[str, tuple[Expression, ...]]:
    return f"meta priority {_classid(refusal)}", (nft.Meta(nft.META_PRIORITY), nft.Compare(nft.native32(refusal)))


def _verdict(code: int, text: str, chain: str = "") -> tuple[str, tuple[Expression, ...]]:
    return f"{text} {chain}".rstrip(), (nft.Verdict(code, chain),)


def _in_network(which: str, network: IPv4Network | IPv6Network) -> tuple[str, tuple[Expression, ...]]:
    """Compare the bytes of the prefix; where it ends inside a byte, all of the address, masked (nft prints only that
    form in clear)."""
    suffix = str(network.version)
    text = f"{_ip(suffix)} {which} {network}"
    packed = network.network_address.packed
    if network.prefixlen % 8 == 0 and network.prefixlen:
        length = network.prefixlen // 8
        return text, (_address(suffix, which, length=length), nft.Compare(packed[:length]))
    return text, (_address(suffix, which), nft.Mask(network.netmask.packed), nft.Compare(packed))


def _dnat(suffix: str) -> Rule:
    """To the endpoint in the slot that the packet's priority names."""
    text, load = _destination(suffix)
    words = _words(suffix)
    backends = BACKENDS[suffix].name
    return rule(
        _only(suffix),
        (
            f"dnat {_ip(suffix)} to {text} . meta priority map @{backends}",
            (
                *load,
                nft.Meta(nft.META_PRIORITY, words + 2),
                nft.Lookup(backends, into=0),
                nft.Dnat(nft.NFPROTO_IPV4 if suffix == "4" else nft.NFPROTO_IPV6, 0, words),
            ),
        ),
    )


def pick_name(number: int) -> str:
    """A class's chain: pick-off-cluster-3."""
    masquerade, endpoints = describe_class(number)
    return f"pick-{masquerade.name.lower().replace('_', '-')}-{endpoints}"


def pick(number: int) -> Chain:
    """The chain that spreads the connections of one class."""
    masquerade, endpoints = describe_class(number)
    draw = (
        f"meta priority set numgen random mod {endpoints} offset {SLOTS}",
        (nft.RandomNumber(endpoints, SLOTS), nft.SetMeta(nft.META_PRIORITY)),
    )
    rules = [rule(draw)]
    if masquerade is not Masquerade.NEVER:
        rules.append(rule(_verdict(nft.JUMP, "jump", f"masquerade-{masquerade.name.lower().replace('_', '-')}")))
    rules.append(rule(_verdict(nft.GOTO, "goto", "to-endpoint")))
    return Chain(pick_name(number), tuple(rules))


def constant_chains(ranges: Ranges) -> tuple[Chain, ...]:
    """Every chain that doesn't depend on Services, in an order in which `nft list` reads well."""
    return (*_nat_chains(ranges), *_filter_chains(ranges))


def _nat_chains(ranges: Ranges) -> Iterator[Chain]:
    to_services = (rule(_verdict(nft.JUMP, "jump", "services")),)
    yield Chain("prerouting", to_services, Hook("nat", "prerouting", DSTNAT))
    yield Chain("output", to_services, Hook("nat", "output", DSTNAT))
    obey = (
        f"meta priority vmap @{CLASSES.name}",
        (nft.Meta(nft.META_PRIORITY), nft.Lookup(CLASSES.name, verdicts=True)),
    )
    yield Chain("services", (*(_scratch_from(f, FRONTENDS[f]) for f in _FAMILIES), rule(obey)))
    pods = (
        rule(_only(str(n.version)), _in_network("saddr", n), _verdict(nft.RETURN, "return")) for n in ranges.pod_cidrs
    )
    mark = (
        f"meta mark set meta mark | 0x{MARK:08x}",
        (nft.Meta(nft.META_MARK), nft.Bitwise(~MARK & 0xFFFFFFFF, MARK), nft.SetMeta(nft.META_MARK)),
    )
    yield Chain("masquerade-off-cluster", (*pods, rule(mark)))
    yield Chain("masquerade-always", (rule(mark),))
    slot_0 = (
        f"meta priority set {_classid(SLOTS)}",
        (nft.Immediate(nft.native32(SLOTS)), nft.SetMeta(nft.META_PRIORITY)),
    )
    dnats = [_dnat(f) for f in _FAMILIES]
    yield Chain("to-endpoint", (*dnats, rule(slot_0), *dnats))
    yield Chain("postrouting", tuple(_postrouting()), Hook("nat", "postrouting", SRCNAT))


def _postrouting() -> Iterator[Rule]:
    masquerade = ("masquerade fully-random", (nft.Masquerade(),))
    yield rule(
        (
            f"meta mark & 0x{MARK:08x} == 0x{MARK:08x}",
            (nft.Meta(nft.META_MARK), nft.Bitwise(MARK), nft.Compare(nft.native32(MARK))),
        ),
        (
            f"meta mark set meta mark & 0x{~MARK & 0xFFFFFFFF:08x}",
            (nft.Meta(nft.META_MARK), nft.Bitwise(~MARK & 0xFFFFFFFF), nft.SetMeta(nft.META_MARK)),
        ),
        masquerade,
    )
    for suffix in _FAMILIES:
        ip, name = _ip(suffix), HAIRPIN[suffix].name
        load = (_address(suffix, "saddr"), _address(suffix, "daddr", _words(suffix)))
        yield rule(
            (
                "ct status dnat",
                (nft.Conntrack(nft.CT_STATUS), nft.Bitwise(nft.CT_STATUS_DNAT), nft.Compare(bytes(4), negated=True)),
            ),
            _only(suffix),
            (f"{ip} saddr . {ip} daddr @{name}", (*load, nft.Lookup(name))),
            masquerade,
        )


def _filter_chains(ranges: Ranges) -> Iterator[Chain]:
    is_new = (
        "ct state new",
        (nft.Conntrack(nft.CT_STATE), nft.Bitwise(nft.CT_STATE_NEW), nft.Compare(bytes(4), negated=True)),
    )
    refuse = rule(is_new, _verdict(nft.JUMP, "jump", "refuse"))
    unallocated = tuple(
        rule(_only(str(n.version)), _in_network("daddr", n), _verdict(nft.DROP, "drop")) for n in ranges.service_cidrs
    )
    yield Chain("filter-input", (refuse,), Hook("filter", "input", FILTER))
    yield Chain("filter-forward", (refuse, *unallocated), Hook("filter", "forward", FILTER))
    yield Chain("filter-output", (refuse, *unallocated), Hook("filter", "output", FILTER))
    is_ours = (
        f"meta priority & {_classid(MAGIC_MASK)} == {_classid(MAGIC)}",
        (nft.Meta(nft.META_PRIORITY), nft.Bitwise(MAGIC_MASK), nft.Compare(nft.native32(MAGIC))),
    )
    to_reject = _verdict(nft.GOTO, "goto", "reject-connection")
    yield Chain(
        "refuse",
        (
            rule(is_ours, _CLEAR_SCRATCH),
            *(_scratch_from(f, REFUSED[f]) for f in _FAMILIES),
            rule(_scratch_is(Refusal.REJECT), _CLEAR_SCRATCH, to_reject),
            rule(_scratch_is(Refusal.DROP), _verdict(nft.DROP, "drop")),
            *(
                rule(
                    _only(f),
                    (f"{_ip(f)} daddr @{CLUSTER_IPS[f].name}", (_address(f, "daddr"), nft.Lookup(CLUSTER_IPS[f].name))),
                    to_reject,
                )
                for f in _FAMILIES
            ),
        ),
    )
    # Upstream answers TCP with ICMP too; but the kernel sends one host six of those and then one a second, so that
    # all but the first few connections would time out where they should be refused.
    reset = (
        "meta l4proto tcp reject with tcp reset",
        (nft.Meta(nft.META_L4PROTO), nft.Compare(bytes((TCP,))), nft.Reject(reset=True)),
    )
    yield Chain("reject-connection", (rule(reset), rule(("reject", (nft.Reject(),)))))
