"""Weights and maglev: which endpoint is in which slot, and how little moves when one comes or goes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.balance import Balance, read_weights, write_weights
from kubesvc.kernel.nft.jenkins import jhash, scale
from kubesvc.proxy import maps
from kubesvc.proxy.balance import MOST_SLOTS, arrange, fill, table
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.fake import Connection, FakeBackend
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import HASH_SEED, SLOT_TABLE, TABLE, TCP, endpoint_ids, pack, port_data
from support.proxy import NODE, NODE_IP, RANGES, service, slice_of


def pods(count: int, port: int = 8080) -> tuple[bytes, ...]:
    return tuple(pack(f"10.244.{n // 250}.{n % 250 + 1}") + port_data(port) for n in range(count))


def alike(endpoints: tuple[bytes, ...]) -> tuple[tuple[bytes, int], ...]:
    return tuple((endpoint, 1) for endpoint in endpoints)


HUNDRED = pods(100)
WEIGHTED = {"kubesvc.dev/balance": "weighted"}
MAGLEV = {"kubesvc.dev/balance": "maglev"}

# ── weights ──


@pytest.mark.parametrize(
    ("weights", "slots"),
    [
        pytest.param({}, {0: 1, 1: 1, 2: 1}, id="no weights: one slot each"),
        pytest.param({0: 3}, {0: 3, 1: 1, 2: 1}, id="as many slots as the weight"),
        pytest.param({0: 100, 1: 50, 2: 50}, {0: 2, 1: 1, 2: 1}, id="divided by what they have in common"),
        pytest.param({0: 0}, {1: 1, 2: 1}, id="weight 0 gets none while others are there"),
        pytest.param({0: 0, 1: 0, 2: 0}, {0: 1, 1: 1, 2: 1}, id="all drain: none is better than another"),
        pytest.param({0: 0, 1: 0, 2: 7}, {2: 1}, id="one left"),
    ],
)
def test_slots_are_in_proportion(weights: dict[int, int], slots: dict[int, int]) -> None:
    """Slot counts by endpoint."""
    three = pods(3)
    found = fill(Balance.WEIGHTED, three, {three[n][:-4]: w for n, w in weights.items()}, ())
    assert Counter(found) == {three[n]: count for n, count in slots.items()}


def test_the_number_of_slots_is_bounded() -> None:
    """Weights without a common divisor share 2,048 slots, exact to half of one; nobody of weight 1 is left out."""
    weights = {endpoint[:-4]: 100 - n % 7 for n, endpoint in enumerate(HUNDRED)}
    weights[HUNDRED[0][:-4]] = 1
    found = Counter(fill(Balance.WEIGHTED, HUNDRED, weights, ()))
    assert sum(found.values()) <= MOST_SLOTS + len(HUNDRED)
    total = sum(weights.values())
    for endpoint, count in found.items():
        assert abs(count - weights[endpoint[:-4]] * MOST_SLOTS / total) <= 0.85
    assert found.keys() == set(HUNDRED)


def test_without_the_annotation_weights_do_nothing() -> None:
    """Weights are for Services that ask."""
    three = pods(3)
    assert fill(None, three, {three[0][:-4]: 9}, ()) == three


SLOTTED = st.lists(st.sampled_from(pods(5)), max_size=12).map(tuple)


@given(SLOTTED, SLOTTED)
def test_slots_are_kept_as_far_as_can_be(before: tuple[bytes, ...], wanted: tuple[bytes, ...]) -> None:
    """The right ones, and no slot changes that needn't."""
    found = arrange(before, wanted)
    assert Counter(found) == Counter(wanted)
    both = (Counter(before) & Counter(wanted)).total()
    surplus = max(0, len(before) - len(wanted))
    assert sum(a == b for a, b in zip(before, found, strict=False)) >= both - surplus


def test_ids_do_not_count_an_endpoint_twice() -> None:
    """With affinity an endpoint of several slots has one id."""
    one, two, three = pods(3)
    assert endpoint_ids([one, one, two, one, three]) == endpoint_ids([three, two, one])


# ── the annotation between pods and data planes ──


@given(st.dictionaries(st.ip_addresses().map(str), st.integers(0, 100)))
def test_weights_come_through_a_slice(weights: dict[str, int]) -> None:
    """Written and read back, either family."""
    assert read_weights(write_weights(weights)) == weights


@pytest.mark.parametrize("text", ["", ",,", "10.0.0.1", "10.0.0.1=", "=5", "10.0.0.1=-1", "10.0.0.1=101", "10.0.0.1=٣"])
def test_what_is_no_weight_is_left_out(text: str) -> None:
    """Anybody may write a slice."""
    assert read_weights(text) == {}
    assert read_weights(text + ",10.0.0.2=7") == {"10.0.0.2": 7}


# ── maglev ──


def test_a_table_is_the_same_everywhere() -> None:
    """It follows from the endpoints: not from their order, nor from what was before, nor from their ports."""
    first = table(tuple(sorted(alike(HUNDRED))), SLOT_TABLE)
    assert fill(Balance.MAGLEV, HUNDRED[::-1], {}, pods(7)) == first
    other = fill(Balance.MAGLEV, pods(100, 9090), {}, ())
    assert [endpoint[:-4] for endpoint in other] == [endpoint[:-4] for endpoint in first]
    # A change of the function would move the flows of a cluster whose nodes are updated one by one.
    assert jhash(b"".join(first), HASH_SEED) == 0x7A9C2AB1


def test_slots_are_spread_evenly() -> None:
    """Of 100 endpoints each has within 5 % of its share."""
    counts = Counter(table(alike(HUNDRED), SLOT_TABLE)).values()
    share = SLOT_TABLE / 100
    assert len(counts) == 100
    assert 0.95 * share <= min(counts) <= max(counts) <= share + 1


def test_when_one_of_a_hundred_leaves_hardly_any_other_slot_changes_hands() -> None:
    """Whichever leaves: at most 1 % of the others' slots, and so of their flows."""
    before = table(alike(HUNDRED), SLOT_TABLE)
    for gone in HUNDRED[::9]:
        after = table(alike(tuple(e for e in HUNDRED if e != gone)), SLOT_TABLE)
        others = [(a, b) for a, b in zip(before, after, strict=True) if a != gone]
        assert sum(a != b for a, b in others) / len(others) <= 0.01


def test_weights_count_in_a_table() -> None:
    """Slots in proportion; one of weight 0 has none."""
    four = pods(4)
    weights = {four[0][:-4]: 5, four[1][:-4]: 2, four[3][:-4]: 0}
    found = Counter(fill(Balance.MAGLEV, four, weights, ()))
    for endpoint, weight in zip(four, (5, 2, 1), strict=False):
        assert found[endpoint] == pytest.approx(SLOT_TABLE * weight / 8, rel=0.05)
    assert four[3] not in found


@pytest.mark.parametrize("size", [1, 2, 7, 31])
def test_a_table_is_always_full(size: int) -> None:
    """Also with more endpoints than slots, and with one."""
    if size > 1:
        assert len(table(alike(pods(40)), 31)) == 31
    assert set(table(alike(pods(1)), 31)) == set(pods(1))


def test_the_hash_is_the_kernels() -> None:
    """Known values of linux/jhash.h; `tests/kernel` compares with real packets."""
    assert jhash(b"", 0) == 0xDEADBEEF
    assert scale(0, 7) == 0
    assert scale(0xFFFFFFFF, 7) == 6


class Hashed:
    """A Service with maglev in a fake data plane."""

    def __init__(self, *addresses: str, **annotations: str) -> None:
        self.frontends = Frontends(Locality(NODE), [pack(NODE_IP)])
        made = service(annotations=MAGLEV | annotations, type="LoadBalancer", status_ips=["203.0.113.20"])
        self.frontends.set_service(made.key, made)
        self.slice = slice_of(*addresses)
        self.frontends.set_slice(None, self.slice)
        self.frontends.take()
        self.backend = FakeBackend(RANGES, [NODE_IP])
        self.backend.resync(self.frontends.everything())

    def put(self, *addresses: str) -> None:
        changed = slice_of(*addresses)
        self.frontends.set_slice(self.slice, changed)
        self.slice = changed
        self.backend.apply(self.frontends.take(), "1")

    def slots(self) -> dict[bytes, bytes]:
        return self.backend.nft.elements(TABLE, maps.BACKENDS["4"])


ADDRESSES = tuple(f"10.244.0.{n}" for n in range(1, 11))


def test_a_change_programs_changed_slots_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The elements sent are those whose endpoint is another one."""
    hashed = Hashed(*ADDRESSES)
    before = hashed.slots()
    sent: list[int] = []
    commit = hashed.backend.nft.commit

    def counting(transaction):  # type: ignore[no-untyped-def]
        sent.extend(len(o.elements) for o in transaction.operations if type(o).__name__ == "AddElements")
        commit(transaction)

    monkeypatch.setattr(hashed.backend.nft, "commit", counting)
    hashed.put(*ADDRESSES[1:])
    after = hashed.slots()
    changed = sum(after[key] != before[key] for key in before)
    assert sum(sent) == changed
    assert changed < len(before) * 0.11
    assert after.keys() == before.keys(), "the number of slots stays, and so does the class"


def test_a_connection_keeps_its_slot_and_other_connections_have_others() -> None:
    """The 5-tuple decides: nothing random is left, and a client's connections are spread."""
    hashed = Hashed(*ADDRESSES)
    found = {
        port: {
            hashed.backend.trace(Connection("192.0.2.1", "10.96.0.10", TCP, 80, source_port=port), draw=n).output
            for n in range(3)
        }
        for port in range(40000, 40200)
    }
    assert all(len(ends) == 1 for ends in found.values())
    assert len({end for ends in found.values() for end in ends}) == 10


@pytest.mark.parametrize("annotations", [{"kubesvc.dev/balance-key": "client"}])
def test_by_client_every_address_and_every_node_leads_to_one_pod(annotations: dict[str, str]) -> None:
    """Nothing is remembered: the client's address alone decides."""
    one, other = Hashed(*ADDRESSES, **annotations), Hashed(*reversed(ADDRESSES), **annotations)
    for client in ("192.0.2.1", "192.0.2.2", "10.244.0.1"):
        found = {
            hashed.backend.trace(Connection(client, address, TCP, 80, source_port=port)).output
            for hashed in (one, other)
            for address in ("10.96.0.10", "203.0.113.20")
            for port in (40000, 50000)
        }
        assert len(found) == 1


@pytest.mark.parametrize("value", ["Maglev", "", "least-connections"])
def test_an_unknown_balance_is_random(value: str) -> None:
    """As if it weren't there."""
    hashed = Hashed(*ADDRESSES, **{"kubesvc.dev/balance": value})
    assert len(hashed.slots()) == 2 * len(ADDRESSES)
