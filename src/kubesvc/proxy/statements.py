"""The statements our rules are made of: each as nft prints it, and the expressions it stands for. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.expressions import Expression
from kubesvc.kernel.nft.objects import Map, Rule
from kubesvc.proxy.layout import HASH_SEED, LENT_FOR, MAGIC, MAGIC_MASK, SERVICE_ID, SERVICE_ID_MASK
from kubesvc.proxy.maps import AFFINITY, ALLOWED, BACKENDS, CLASSES, GUARDED, HAIRPIN, LENT_MARKS, SERVICES, SLOTS

Statement = tuple[str, tuple[Expression, ...]]


def rule(*statements: Statement) -> Rule:
    return Rule(" ".join(text for text, _ in statements if text), tuple(e for _, found in statements for e in found))


def verdict(code: int, text: str, chain: str = "") -> Statement:
    return f"{text} {chain}".rstrip(), (nft.Verdict(code, chain),)


DROP = verdict(nft.DROP, "drop")
OBEY = (
    f"meta priority vmap @{CLASSES.name}",
    (nft.Meta(nft.META_PRIORITY), nft.Lookup(CLASSES.name, verdicts=True)),
)
MASQUERADE = ("masquerade fully-random", (nft.Masquerade(),))
IS_NEW = (
    "ct state new",
    (nft.Conntrack(nft.CT_STATE), nft.Bitwise(nft.CT_STATE_NEW), nft.Compare(bytes(4), negated=True)),
)
IS_TRANSLATED = (
    "ct status dnat",
    (nft.Conntrack(nft.CT_STATUS), nft.Bitwise(nft.CT_STATUS_DNAT), nft.Compare(bytes(4), negated=True)),
)
NOT_FROM_ITSELF = ('iifname != "lo"', (nft.Meta(nft.META_IIFNAME), nft.Compare(b"lo".ljust(16, b"\0"), negated=True)))
TO_ITSELF = ('oifname "lo"', (nft.Meta(nft.META_OIFNAME), nft.Compare(b"lo".ljust(16, b"\0"))))


# ── headers ──


def only(suffix: str) -> Statement:
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


def _ports(into: int) -> Statement:
    """Load protocol . destination port."""
    return "meta l4proto . th dport", (nft.Meta(nft.META_L4PROTO, into), nft.Payload(nft.TRANSPORT, 2, 2, into + 1))


def _destination(suffix: str) -> Statement:
    """Load address . protocol . port, the key of a frontend, from word 0 on."""
    text, load = _ports(_words(suffix))
    return f"{_ip(suffix)} daddr . {text}", (_address(suffix, "daddr"), *load)


def _connection(suffix: str) -> tuple[str, tuple[Expression, ...], int]:
    """Load what tells a connection from all others: text, loads, and how many words they take."""
    ip, words = _ip(suffix), _words(suffix)
    loads = (
        _address(suffix, "saddr"),
        _address(suffix, "daddr", words),
        nft.Meta(nft.META_L4PROTO, 2 * words),
        nft.Payload(nft.TRANSPORT, 0, 2, 2 * words + 1),
        nft.Payload(nft.TRANSPORT, 2, 2, 2 * words + 2),
    )
    return f"{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport", loads, 2 * words + 3


def in_network(which: str, network: IPv4Network | IPv6Network) -> Statement:
    """Compare the bytes of the prefix; where it ends inside a byte, all of the address, masked (nft prints only that
    form in clear)."""
    suffix = str(network.version)
    text = f"{_ip(suffix)} {which} {network}"
    packed = network.network_address.packed
    if network.prefixlen % 8 == 0 and network.prefixlen:
        length = network.prefixlen // 8
        return text, (_address(suffix, which, length=length), nft.Compare(packed[:length]))
    return text, (_address(suffix, which), nft.Mask(network.netmask.packed), nft.Compare(packed))


def is_destination(suffix: str, set_: Map) -> Statement:
    """Whether the packet's address, or address . protocol . port, is in a set."""
    if len(set_.key) == 1:
        text, load = f"{_ip(suffix)} daddr", (_address(suffix, "daddr"),)
        return f"{text} @{set_.name}", (*load, nft.Lookup(set_.name))
    text, loads = _destination(suffix)
    return f"{text} @{set_.name}", (*loads, nft.Lookup(set_.name))


def is_not_allowed(suffix: str) -> Rule:
    """Drop what goes to a guarded frontend from a source that may not."""
    text, load = _destination(suffix)
    name = ALLOWED[suffix].name
    source = (*load, _address(suffix, "saddr", _words(suffix) + 2), nft.Lookup(name, negated=True))
    not_allowed = (f"{text} . {_ip(suffix)} saddr != @{name}", source)
    return rule(only(suffix), is_destination(suffix, GUARDED[suffix]), not_allowed, DROP)


def is_hairpin(suffix: str) -> Statement:
    ip, name = _ip(suffix), HAIRPIN[suffix].name
    load = (_address(suffix, "saddr"), _address(suffix, "daddr", _words(suffix)))
    return f"{ip} saddr . {ip} daddr @{name}", (*load, nft.Lookup(name))


# ── marks ──


def set_mark(mark: int) -> Statement:
    return (
        f"meta mark set meta mark | 0x{mark:08x}",
        (nft.Meta(nft.META_MARK), nft.Bitwise(~mark & 0xFFFFFFFF, mark), nft.SetMeta(nft.META_MARK)),
    )


def is_marked(mark: int) -> Statement:
    return (
        f"meta mark & 0x{mark:08x} == 0x{mark:08x}",
        (nft.Meta(nft.META_MARK), nft.Bitwise(mark), nft.Compare(nft.native32(mark))),
    )


def clear_mark(mark: int) -> Statement:
    return (
        f"meta mark set meta mark & 0x{~mark & 0xFFFFFFFF:08x}",
        (nft.Meta(nft.META_MARK), nft.Bitwise(~mark & 0xFFFFFFFF), nft.SetMeta(nft.META_MARK)),
    )


# ── the scratch register: meta priority ──


def _classid(number: int) -> str:
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


CLEAR_SCRATCH = ("meta priority set none", (nft.Immediate(nft.native32(0)), nft.SetMeta(nft.META_PRIORITY)))


def scratch(number: int) -> Statement:
    """Set it to a constant."""
    return (
        f"meta priority set {_classid(number)}",
        (nft.Immediate(nft.native32(number)), nft.SetMeta(nft.META_PRIORITY)),
    )


def add_to_scratch(bits: int) -> Statement:
    alter = nft.Bitwise(~bits & 0xFFFFFFFF, bits)
    return (
        f"meta priority set meta priority | {_classid(bits)}",
        (nft.Meta(nft.META_PRIORITY), alter, nft.SetMeta(nft.META_PRIORITY)),
    )


def scratch_is(number: int, mask: int = 0xFFFFFFFF) -> Statement:
    compare = nft.Compare(nft.native32(number))
    if mask == 0xFFFFFFFF:
        return f"meta priority {_classid(number)}", (nft.Meta(nft.META_PRIORITY), compare)
    text = f"meta priority & {_classid(mask)} == {_classid(number)}"
    return text, (nft.Meta(nft.META_PRIORITY), nft.Bitwise(mask), compare)


SCRATCH_IS_OURS = scratch_is(MAGIC, MAGIC_MASK)


def draw(modulus: int, offset: int) -> Statement:
    """Put one of `modulus` numbers from `offset` on into it."""
    return (
        f"meta priority set numgen random mod {modulus} offset {offset}",
        (nft.RandomNumber(modulus, offset), nft.SetMeta(nft.META_PRIORITY)),
    )


def draw_for(suffix: str, whole: bool, modulus: int, offset: int) -> Rule:
    """Put the one of `modulus` numbers from `offset` on into it that is the client's, or the `whole` connection's."""
    text, loads, words = _connection(suffix)
    if not whole:
        text, loads, words = f"{_ip(suffix)} saddr", (_address(suffix, "saddr"),), _words(suffix)
    hashed = nft.JenkinsHash(0, 4 * words, modulus, HASH_SEED, offset)
    said = f"meta priority set jhash {text} mod {modulus} seed {HASH_SEED:#x} offset {offset}"
    return rule(only(suffix), (said, (*loads, hashed, nft.SetMeta(nft.META_PRIORITY))))


def scratch_from(suffix: str, map_: Map) -> Rule:
    """Put what the map has for the packet's address . protocol . port into it, if it has anything."""
    text, load = _destination(suffix)
    look_up = (*load, nft.Lookup(map_.name, into=0), nft.SetMeta(nft.META_PRIORITY))
    return rule(only(suffix), (f"meta priority set {text} map @{map_.name}", look_up))


def slot_to_id(suffix: str) -> Rule:
    """From a slot to the id of the endpoint in it."""
    text, load = _destination(suffix)
    name = SLOTS[suffix].name
    loads = (*load, nft.Meta(nft.META_PRIORITY, _words(suffix) + 2))
    look_up = (*loads, nft.Lookup(name, into=0), nft.SetMeta(nft.META_PRIORITY))
    return rule(only(suffix), (f"meta priority set {text} . meta priority map @{name}", look_up))


def dnat(suffix: str) -> Rule:
    """To the endpoint whose slot or id it is."""
    text, load = _destination(suffix)
    words = _words(suffix)
    backends = BACKENDS[suffix].name
    return rule(
        only(suffix),
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


# ── the other scratch register, for affinity: the connection's mark ──

_GET_CT_MARK = nft.Conntrack(nft.CT_MARK)
_UNMARKED = ("ct mark 0x00000000", (_GET_CT_MARK, nft.Compare(bytes(4))))
_UNMARK = ("ct mark set 0x00000000", (nft.Immediate(bytes(4)), nft.SetConntrack(nft.CT_MARK)))
_IS_LENT = (
    f"ct mark & {SERVICE_ID_MASK:#x} == {SERVICE_ID:#x}",
    (_GET_CT_MARK, nft.Bitwise(SERVICE_ID_MASK), nft.Compare(nft.native32(SERVICE_ID))),
)


def keep_mark(suffix: str) -> Rule:
    """Put somebody else's mark aside."""
    text, loads, after = _connection(suffix)
    name = LENT_MARKS[suffix].name
    update = nft.DynamicSet(name, nft.UPDATE, 0, after, LENT_FOR)
    said = f"update @{name} {{ {text} timeout {_lasting(LENT_FOR)} : ct mark }}"
    marked = ("ct mark != 0x00000000", (_GET_CT_MARK, nft.Compare(bytes(4), negated=True)))
    return rule(marked, only(suffix), (said, (*loads, nft.Conntrack(nft.CT_MARK, after), update)), _UNMARK)


def mark_service(suffix: str) -> Rule:
    """Mark the connection with its Service."""
    text, load = _destination(suffix)
    name = SERVICES[suffix].name
    look_up = (*load, nft.Lookup(name, into=0), nft.SetConntrack(nft.CT_MARK))
    return rule(_UNMARKED, only(suffix), (f"ct mark set {text} map @{name}", look_up))


def unmark_service() -> Rule:
    return rule(_IS_LENT, _UNMARK)


def restore_mark(suffix: str) -> Rule:
    """Give the connection the mark that was put aside, if there was one."""
    text, loads, _ = _connection(suffix)
    name = LENT_MARKS[suffix].name
    look_up = (*loads, nft.Lookup(name, into=0), nft.SetConntrack(nft.CT_MARK))
    return rule(_UNMARKED, only(suffix), (f"ct mark set {text} map @{name}", look_up))


# ── affinity ──


def _client(suffix: str) -> tuple[str, tuple[Expression, ...], str, int]:
    """The key of a client's memory, client . Service: text, loads, the map, and the first word after it."""
    words = _words(suffix)
    loads = (_address(suffix, "saddr"), nft.Conntrack(nft.CT_MARK, words))
    return f"{_ip(suffix)} saddr . ct mark", loads, AFFINITY[suffix].name, words + 1


def recall(suffix: str) -> Rule:
    """Put the id of the client's endpoint into the scratch register, if there is one."""
    text, load, name, _ = _client(suffix)
    look_up = (*load, nft.Lookup(name, into=0), nft.SetMeta(nft.META_PRIORITY))
    return rule(_IS_LENT, only(suffix), (f"meta priority set {text} map @{name}", look_up))


def keep(suffix: str, timeout: int, condition: Statement) -> Rule:
    """Remember the id in the scratch register for the client, or remember the one it has for longer."""
    text, load, name, after = _client(suffix)
    update = nft.DynamicSet(name, nft.UPDATE, 0, after, timeout)
    said = f"update @{name} {{ {text} timeout {_lasting(timeout)} : meta priority }}"
    remember = (said, (*load, nft.Meta(nft.META_PRIORITY, after), update))
    return rule(condition, _IS_LENT, only(suffix), remember)


def forget(suffix: str, condition: Statement) -> Rule:
    """Delete what the client has, whatever it is by now."""
    text, load, name, after = _client(suffix)
    said = f"delete @{name} {{ {text} : meta priority }}"
    expressions = (*load, nft.Meta(nft.META_PRIORITY, after), nft.DynamicSet(name, nft.DELETE, 0, after))
    return rule(condition, _IS_LENT, only(suffix), (said, expressions))


def _lasting(seconds: int) -> str:
    """As nft prints it: 1h30m."""
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)
