"""Namespaces, garbage and node address blocks."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from kubesvc.api.core import ConfigMap
from kubesvc.api.meta import Object
from kubesvc.controllers.garbage.plan import Owner, plan, state_of
from kubesvc.controllers.namespace.plan import plan as plan_namespace
from kubesvc.controllers.nodeipam.plan import Exhausted, first_free
from kubesvc.controllers.nodeipam.plan import plan as plan_blocks
from support.objects import CREATED, make, namespace, node, owned_by

# ── namespaces ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_namespace_is_furnished() -> None:
    decided = plan_namespace(namespace("shop"), False, None, "PEM", None)
    assert decided.account == {"metadata": {"name": "default", "namespace": "shop"}}
    assert decided.ca is not None
    assert decided.ca["data"] == {"ca.crt": "PEM"}
    right = make(ConfigMap, "kube-root-ca.crt", data={"ca.crt": "PEM"})
    assert plan_namespace(namespace("shop"), True, right, "PEM", None) == plan_namespace(
        namespace("x"), True, right, "PEM", None
    )
    wrong = make(ConfigMap, "kube-root-ca.crt", data={"ca.crt": "old"})
    assert plan_namespace(namespace("shop"), True, wrong, "PEM", None).ca_found


def test_a_deleted_namespace_is_emptied_then_let_go() -> None:
    going = namespace("shop", {"deletionTimestamp": CREATED}, finalizers=["kubernetes", "mine/x"])
    assert plan_namespace(going, False, None, "PEM", None).empty
    assert plan_namespace(going, False, None, "PEM", ["pods"]).empty
    decided = plan_namespace(going, False, None, "PEM", [])
    assert decided.finalize is not None
    assert decided.finalize["spec"]["finalizers"] == ["mine/x"]
    gone = namespace("shop", {"deletionTimestamp": CREATED}, finalizers=["mine/x"])
    decided = plan_namespace(gone, False, None, "PEM", [])
    assert (decided.finalize, decided.empty, decided.account) == (None, False, None)


# ── garbage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def thing(name: str, **meta: Any) -> Object:
    return make(Object, name, meta)


DEPENDENT = thing("d", **owned_by("ReplicaSet", "rs"))


@pytest.mark.parametrize(
    ("story", "owners", "dependents", "delete", "patched"),
    [
        ("nobody owns it", {}, [], "", False),
        ("its owner lives", {"a": Owner.SOLID}, [], "", False),
        ("its owner is gone", {"a": Owner.ABSENT}, [], "Background", False),
        ("one of two is gone", {"a": Owner.ABSENT, "b": Owner.SOLID}, [], "", True),
        ("its owner waits for it", {"a": Owner.WAITING}, [], "Background", False),
        ("its owner waits, and it has dependents", {"a": Owner.WAITING}, [DEPENDENT], "Foreground", False),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_becomes_of_a_dependent(
    story: str, owners: dict[str, Owner], dependents: list[Object], delete: str, patched: bool
) -> None:
    decided = plan(thing("x", **owned_by("ReplicaSet", "a")), owners, dependents)
    assert (decided.delete, decided.patch is not None) == (delete, patched)


def test_an_owner_deleted_in_the_foreground_waits_for_those_that_block_it() -> None:
    owner = thing("rs", deletionTimestamp=CREATED, finalizers=["foregroundDeletion", "mine/x"])
    assert plan(owner, {}, [DEPENDENT]).pursue == (DEPENDENT,)
    decided = plan(owner, {}, [])
    assert decided.patch is not None
    assert decided.patch["metadata"]["finalizers"] == ["mine/x"]


def test_an_orphaning_owner_lets_go_of_its_dependents_first() -> None:
    owner = thing("rs", deletionTimestamp=CREATED, finalizers=["orphan"])
    assert plan(owner, {}, [DEPENDENT]).release == (DEPENDENT,)
    decided = plan(owner, {}, [])
    assert decided.patch is not None
    assert decided.patch["metadata"]["finalizers"] is None


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (None, Owner.ABSENT),
        (thing("a"), Owner.SOLID),
        (thing("a", uid="another"), Owner.ABSENT),
        (thing("a", deletionTimestamp=CREATED), Owner.SOLID),
        (thing("a", deletionTimestamp=CREATED, finalizers=["foregroundDeletion"]), Owner.WAITING),
    ],
    ids=["gone", "there", "another of its name", "going", "waiting"],
)
def test_what_an_owner_is(owner: Object | None, expected: Owner) -> None:
    assert state_of(owner, "uid-a") is expected


# ── node address blocks ──────────────────────────────────────────────────────────────────────────────────────────────

V4, V6 = ip_network("10.244.0.0/16"), ip_network("fd00:244::/56")


def test_nodes_get_the_first_free_block_and_keep_it() -> None:
    """n1 and n2 get blocks, n1 leaves, n3 gets n1's."""
    given, _ = plan_blocks([node("n1"), node("n2")], [V4, V6], 24, 64)
    assert {n: [str(b) for b in blocks] for n, blocks in given.items()} == {
        "n1": ["10.244.0.0/24", "fd00:244::/64"],
        "n2": ["10.244.1.0/24", "fd00:244:0:1::/64"],
    }
    second = node("n2", podCIDR="10.244.1.0/24", podCIDRs=["10.244.1.0/24", "fd00:244:0:1::/64"])
    given, _ = plan_blocks([second, node("n3")], [V4, V6], 24, 64)
    assert {n: str(blocks[0]) for n, blocks in given.items()} == {"n3": "10.244.0.0/24"}


def test_a_node_for_which_no_block_is_left_is_named() -> None:
    small = ip_network("10.0.0.0/24")
    given, left_out = plan_blocks([node("n1"), node("n2")], [small], 24, 64)
    assert (list(given), left_out) == (["n1"], ["n2"])


def test_a_block_given_by_hand_is_stepped_over() -> None:
    assert str(first_free(V4, 24, [ip_network("10.244.0.0/22")])) == "10.244.4.0/24"
    assert str(first_free(V4, 24, [ip_network("10.244.0.128/25")])) == "10.244.1.0/24"
    with pytest.raises(Exhausted, match="no /24 is free"):
        first_free(V4, 24, [ip_network("10.244.0.0/16")])
