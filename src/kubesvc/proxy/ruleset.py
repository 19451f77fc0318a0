"""The rules that read the maps: constant, but for a chain for each class. Pure: all of it is data.

    prerouting (nat) ┬ a guarded address, from a source that may not: drop
                     ├ not a pod ─► outside ─► frontends-outside: class, drop ─┐
                     └► services ─► frontends: class, drop ─► classes ─► pick-off-cluster-3: slot random mod 3
    output (nat) ────── the same, without `outside`                            │
                                              masquerade-off-cluster? the mark ◄┤
                                                                               └► to-endpoint ┬ dnat: backends
                                                                              slot 0, for sure └ dnat: backends
    with affinity    pick-… ─► remembered-10800: the client's endpoint, for longer: dnat; it is gone: forget it
                          └─► slot ─► remember-10800: its endpoint's id, kept for the client ─► to-endpoint
                     the connection's mark is the Service's id meanwhile (borrow-mark, return-mark)
    with maglev      pick-…: slot jhash of the client or the connection
    input, forward, output (filter), new connections ─► refuse ─► refused: reject
                                                               └► another port of a Service's own address: reject
    forward, output ─► an address of a service CIDR that no Service has: drop
    postrouting (nat) ─► marked: masquerade;  a pod sent back to itself: masquerade
    prerouting (raw), where node ports answer on 127.0.0.1 ─► to or from 127/8, and not by the loopback: drop

What this node sends comes by `output`, so `prerouting` need only tell pods from the rest. What it sends to itself is
refused in input, where the sender hears of it.

Rules never grow with Services. Two things the kernel does decide their form. It revalidates a map of verdicts whole at
each change: so only `classes`, which is small, holds any. It walks all of a map when one more chain looks something up
in it (0.13 s at 400,000 elements): so a new class's chain has no look-up of its own. Between a packet's two look-ups
the number of endpoints may change: hence the second dnat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.objects import Chain, Hook, Rule
from kubesvc.proxy import statements as say
from kubesvc.proxy.backend import Ranges
from kubesvc.proxy.layout import (
    DSTNAT,
    FILTER,
    ID_SCOPE_MASK,
    IDS,
    MARK,
    OUTSIDE_ID,
    OUTSIDE_SLOTS,
    RAW,
    SLOTS,
    SRCNAT,
    TCP,
    Class,
    Draw,
    Masquerade,
    Refusal,
)
from kubesvc.proxy.maps import FAMILIES, FRONTENDS, OUTSIDE, REFUSED, SERVICE_IPS
from kubesvc.proxy.statements import rule, verdict

MARTIANS = "martians"
_LOOPBACK = IPv4Network("127.0.0.0/8")


def pick_name(number: int) -> str:
    """A class's chain: pick-off-cluster-3, pick-never-outside-2-10800, pick-always-client-16381."""
    found = Class.of(number)
    parts = ["pick", _word(found.masquerade)] + ["outside"] * found.outside
    parts += [found.draw.name.lower()] * (found.draw is not Draw.RANDOM) + [str(found.slots)]
    return "-".join(parts + [str(found.timeout)] * bool(found.timeout))


def _word(masquerade: Masquerade) -> str:
    return masquerade.name.lower().replace("_", "-")


def pick(number: int) -> Chain:
    """The chain that spreads the connections of one class."""
    found = Class.of(number)
    rules: list[Rule] = []
    if found.masquerade is not Masquerade.NEVER:
        rules.append(rule(verdict(nft.JUMP, "jump", f"masquerade-{_word(found.masquerade)}")))
    if found.timeout:
        rules.append(rule(verdict(nft.JUMP, "jump", f"remembered-{_memory(found)}")))
    first = OUTSIDE_SLOTS if found.outside else SLOTS
    if found.draw is Draw.RANDOM:
        rules.append(rule(say.draw(found.slots, first)))
    else:
        rules += [say.draw_for(f, found.draw is Draw.CONNECTION, found.slots, first) for f in FAMILIES]
    then = f"remember-{_memory(found)}" if found.timeout else _to_endpoint(found.outside)
    rules.append(rule(verdict(nft.GOTO, "goto", then)))
    return Chain(pick_name(number), tuple(rules))


def _to_endpoint(outside: bool) -> str:
    return "to-endpoint-outside" if outside else "to-endpoint"


# ── affinity ──


def _memory(found: Class) -> str:
    return "-".join(["outside"] * found.outside + [str(found.timeout)])


def memories(classes: Iterable[int]) -> dict[str, Chain]:
    """name -> chain, of those that the classes' own chains need for their affinity."""
    chains: dict[str, Chain] = {}
    sorts = {(found.timeout, found.outside) for found in map(Class.of, classes) if found.timeout}
    for timeout, outside in sorted(sorts):
        found = Class(Masquerade.NEVER, 1, outside, timeout)
        for chain in (*_marks(), _remembered(found), _remember(found)):
            chains[chain.name] = chain
    return chains


_USABLE = say.scratch_is(IDS, ID_SCOPE_MASK)
_IN_SCOPE = (_USABLE, say.scratch_is(IDS | OUTSIDE_ID, ID_SCOPE_MASK))


def _in_scope(found: Class) -> tuple[Rule, ...]:
    """The id as it is looked up: so a client may be remembered to have a pod that it may not reach by this way."""
    return (rule(_USABLE, say.add_to_scratch(OUTSIDE_ID)),) if found.outside else ()


def _remembered(found: Class) -> Chain:
    """To the endpoint that the client had; back where it had none, or one that is gone or not for sources outside.
    Who had none has nothing to forget: by then another of the client's connections may be remembered."""
    rules = (
        rule(verdict(nft.JUMP, "jump", "borrow-mark")),
        *(say.recall(f) for f in FAMILIES),
        *(say.keep(f, found.timeout, _USABLE) for f in FAMILIES),
        *_in_scope(found),
        rule(_IN_SCOPE[found.outside], verdict(nft.JUMP, "jump", "translate")),
        *(say.forget(f, _IN_SCOPE[found.outside]) for f in FAMILIES),
    )
    return Chain(f"remembered-{_memory(found)}", rules)


def _remember(found: Class) -> Chain:
    """Of two connections that a client makes at once, the first to be remembered decides for both."""
    rules = (
        *(say.slot_to_id(f) for f in FAMILIES),
        *(say.keep(f, found.timeout, _USABLE) for f in FAMILIES),
        *(say.recall(f) for f in FAMILIES),
        *_in_scope(found),
        rule(verdict(nft.JUMP, "jump", "return-mark")),
        rule(verdict(nft.GOTO, "goto", _to_endpoint(found.outside))),
    )
    return Chain(f"remember-{_memory(found)}", rules)


def _marks() -> Iterator[Chain]:
    """The mark is its owner's again before a dnat ends the hook."""
    borrow, give_back = (rule(verdict(nft.JUMP, "jump", f"{verb}-mark")) for verb in ("borrow", "return"))
    kept = tuple(say.keep_mark(f) for f in FAMILIES)
    yield Chain("borrow-mark", (*kept, *(say.mark_service(f) for f in FAMILIES)))
    yield Chain("return-mark", (say.unmark_service(), *(say.restore_mark(f) for f in FAMILIES)))
    yield Chain("translate", (give_back, *(say.dnat(f) for f in FAMILIES), borrow))


# ── constant chains ──


def constant_chains(ranges: Ranges) -> tuple[Chain, ...]:
    """Every chain that doesn't depend on Services, in an order in which `nft list` reads well."""
    guard = (_martians(),) if ranges.localhost else ()
    return (*guard, *_nat_chains(ranges), *_filter_chains(ranges))


def _nat_chains(ranges: Ranges) -> Iterator[Chain]:
    guard = tuple(say.is_not_allowed(f) for f in FAMILIES)
    outside, services = (rule(verdict(nft.JUMP, "jump", name)) for name in ("outside", "services"))
    yield Chain("prerouting", (*guard, outside, services), Hook("nat", "prerouting", DSTNAT))
    yield Chain("output", (*guard, services), Hook("nat", "output", DSTNAT))
    pods = tuple(
        rule(say.only(str(n.version)), say.in_network("saddr", n), verdict(nft.RETURN, "return"))
        for n in ranges.pod_cidrs
    )
    obey = (rule(say.OBEY), rule(say.scratch_is(Refusal.DROP), say.DROP))
    yield Chain("outside", (*pods, *(say.scratch_from(f, OUTSIDE[f]) for f in FAMILIES), *obey))
    yield Chain("services", (*(say.scratch_from(f, FRONTENDS[f]) for f in FAMILIES), *obey))
    yield Chain("masquerade-off-cluster", (*pods, rule(say.set_mark(MARK))))
    yield Chain("masquerade-always", (rule(say.set_mark(MARK)),))
    dnats = tuple(say.dnat(f) for f in FAMILIES)
    for outside_, slot_0 in ((False, SLOTS), (True, OUTSIDE_SLOTS)):
        yield Chain(_to_endpoint(outside_), (*dnats, rule(say.scratch(slot_0)), *dnats))
    yield Chain("postrouting", tuple(_postrouting()), Hook("nat", "postrouting", SRCNAT))


def _martians() -> Chain:
    """The kernel refuses loopback addresses that come over a wire, until `route_localnet` lets node ports on 127.0.0.1
    out: so they are refused here. Before connection tracking, where an answer to 127.0.0.1 still bears the address it
    was masqueraded as."""
    either = (say.in_network(which, _LOOPBACK) for which in ("daddr", "saddr"))
    rules = tuple(rule(say.only("4"), network, say.NOT_FROM_ITSELF, say.DROP) for network in either)
    return Chain(MARTIANS, rules, Hook("filter", "prerouting", RAW))


def _postrouting() -> Iterator[Rule]:
    yield rule(say.is_marked(MARK), say.clear_mark(MARK), say.MASQUERADE)
    for suffix in FAMILIES:
        yield rule(say.IS_TRANSLATED, say.only(suffix), say.is_hairpin(suffix), say.MASQUERADE)


def _filter_chains(ranges: Ranges) -> Iterator[Chain]:
    refuse = rule(say.IS_NEW, verdict(nft.JUMP, "jump", "refuse"))
    unallocated = tuple(
        rule(say.only(str(n.version)), say.in_network("daddr", n), say.DROP) for n in ranges.service_cidrs
    )
    yield Chain("filter-input", (refuse,), Hook("filter", "input", FILTER))
    yield Chain("filter-forward", (refuse, *unallocated), Hook("filter", "forward", FILTER))
    later = rule(say.IS_NEW, say.TO_ITSELF, verdict(nft.GOTO, "goto", "clear-priority"))
    yield Chain("filter-output", (later, refuse, *unallocated), Hook("filter", "output", FILTER))
    clear = rule(say.SCRATCH_IS_OURS, say.CLEAR_SCRATCH)
    yield Chain("clear-priority", (clear,))
    to_reject = verdict(nft.GOTO, "goto", "reject-connection")
    yield Chain(
        "refuse",
        (
            clear,
            *(rule(say.only(f), say.is_destination(f, REFUSED[f]), to_reject) for f in FAMILIES),
            *(rule(say.only(f), say.is_destination(f, SERVICE_IPS[f]), to_reject) for f in FAMILIES),
        ),
    )
    # Upstream answers TCP with ICMP too; but the kernel sends one host six of those and then one a second, so that
    # all but the first few connections would time out where they should be refused.
    reset = (
        "meta l4proto tcp reject with tcp reset",
        (nft.Meta(nft.META_L4PROTO), nft.Compare(bytes((TCP,))), nft.Reject(reset=True)),
    )
    yield Chain("reject-connection", (rule(reset), rule(("reject", (nft.Reject(),)))))
