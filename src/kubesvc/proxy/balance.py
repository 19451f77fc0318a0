"""Which endpoint is in which slot. Pure.

    random      each endpoint has one slot; it stays in it when others come and go
    weighted    as many slots as its weight, divided by what all weights have in common
    maglev      a table of SLOT_TABLE slots that follows from nothing but the endpoints and their weights: all nodes
                have the same one, and a hash of the client or the connection chooses the slot

The table is Maglev's (Eisenbud et al., NSDI 2016) in that endpoints take turns at claiming slots, each in an order of
its own, up to its share. It differs in what happens to an endpoint whose slot is taken: it waits for its next turn, and
doesn't look further at once. So who has a slot hardly depends on who else there is, and when one of 100 leaves, 0.7 %
of the others' slots change hands where Maglev's own way makes it 1.4 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import gcd

from kubesvc.api.balance import Balance
from kubesvc.proxy.layout import MOST_ENDPOINTS, SLOT_TABLE

MOST_SLOTS = 2048
"""Of a frontend with weights: a share is exact to half a slot of that many. More endpoints than that are all alike."""


def fill(
    balance: Balance | None,
    wanted: tuple[bytes, ...],
    weights: Mapping[bytes, int],
    before: tuple[bytes, ...],
    size: int = SLOT_TABLE,
) -> tuple[bytes, ...]:
    """The endpoint of each slot, where `before` gives those of now. `weights` maps addresses that don't weigh 1; `size`
    is that of maglev's table."""
    if len(wanted) > MOST_ENDPOINTS:
        wanted = wanted[:MOST_ENDPOINTS]
    if balance is None:
        return arrange(before, wanted)
    wanted, shares = _shares(wanted, weights)
    if balance is Balance.MAGLEV:
        return table(tuple(sorted(zip(wanted, shares, strict=True))), size) if wanted else ()
    slots = [endpoint for endpoint, share in zip(wanted, _bounded(shares), strict=True) for _ in range(share)]
    return arrange(before, tuple(slots))


def _shares(wanted: tuple[bytes, ...], weights: Mapping[bytes, int]) -> tuple[tuple[bytes, ...], list[int]]:
    """The endpoints that get connections, and how much each: those of weight 0 only when there is no other."""
    found = [weights.get(endpoint[:-4], 1) for endpoint in wanted]
    if not any(found):
        return wanted, [1] * len(wanted)
    return tuple(e for e, weight in zip(wanted, found, strict=True) if weight), [w for w in found if w]


def _bounded(shares: Sequence[int]) -> list[int]:
    """The fewest slots in this proportion, or about MOST_SLOTS in nearly this one."""
    common = gcd(*shares)
    total = sum(shares)
    if total <= MOST_SLOTS * common:
        return [share // common for share in shares]
    return [max(1, round(share * MOST_SLOTS / total)) for share in shares]


def arrange(slots: tuple[bytes, ...], wanted: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """`wanted` in an order that leaves as many as can be in the slots they have: newcomers take the places of those
    that left, and where more left than came, the last ones move down."""
    if not slots or not wanted:
        return wanted
    if len(slots) == len(wanted) and sorted(slots) == sorted(wanted):
        return slots
    missing = Counter(wanted)
    settled: list[bytes | None] = []
    for endpoint in slots:
        stays = missing[endpoint] > 0
        missing[endpoint] -= stays
        settled.append(endpoint if stays else None)
    arrived = [endpoint for endpoint in wanted for _ in range(max(0, missing.pop(endpoint, 0)))]
    settled = [arrived.pop() if endpoint is None and arrived else endpoint for endpoint in settled]
    settled += arrived
    place = 0
    while place < len(settled):
        if settled[place] is not None:
            place += 1
        elif (last := settled.pop()) is not None:
            settled[place] = last
    return tuple(e for e in settled if e is not None)


@lru_cache(maxsize=32)
def table(shares: tuple[tuple[bytes, int], ...], size: int) -> tuple[bytes, ...]:
    """Endpoint and weight of each -> the endpoint in each slot. Goes by addresses, not by ports: a slot is the same pod
    at every port of a Service. `size` is a prime; where there are more endpoints, some have no slot."""
    total, heaviest = sum(weight for _, weight in shares), max(weight for _, weight in shares)
    turns = [_Turn(endpoint, weight, size * weight // total + 1, size) for endpoint, weight in shares]
    turns.sort(key=lambda turn: turn.rank)
    slots: list[bytes] = [b""] * size
    free = size
    while True:
        for turn in turns:
            turn.credit += turn.weight
            if turn.credit < heaviest:
                continue
            turn.credit -= heaviest
            if not slots[turn.place]:
                slots[turn.place] = turn.endpoint
                turn.left -= 1
                free -= 1
                if not free:
                    return tuple(slots)
            turn.place = (turn.place + turn.step) % size
        turns = [turn for turn in turns if turn.left]


class _Turn:
    """An endpoint that claims slots: where next, and how many more."""

    __slots__ = ("credit", "endpoint", "left", "place", "rank", "step", "weight")

    def __init__(self, endpoint: bytes, weight: int, most: int, size: int) -> None:
        digest = blake2b(endpoint[:-4], digest_size=12).digest()
        first, step, rank = (int.from_bytes(digest[n : n + 4], "big") for n in (0, 4, 8))
        self.endpoint, self.weight, self.left, self.rank = endpoint, weight, most, rank
        self.place, self.step = first % size, step % (size - 1) + 1
        self.credit = 0
