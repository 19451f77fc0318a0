"""Field ownership and server-side apply as pure functions: sets, what an update takes, what an apply merges and drops.

The cases are those of structured-merge-diff's merge tests, told with Services and Deployments.
"""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import DEPLOYMENT, NODE, POD, SERVICE, Kind
from kubesvc.apiserver.managed import sets
from kubesvc.apiserver.managed.apply import LAST_APPLIED, Conflicts, apply
from kubesvc.apiserver.managed.changes import Writer, record_create, record_update
from kubesvc.apiserver.managed.typed import Duplicate

NOON, ONE = "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z"
L: JSON = {}  # a leaf


def writer(name: str, subresource: str = "", now: str = NOON) -> Writer:
    return Writer(name, now, subresource)


def service(*ports: JSON, **metadata: Any) -> JSON:
    tree: JSON = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", **metadata},
    }
    return tree | ({"spec": {"ports": list(ports)}} if ports else {})


def created(kind: Kind, tree: JSON, by: str = "maker") -> JSON:
    record_create(kind, tree, writer(by))
    return tree


def updated(kind: Kind, old: JSON, new: JSON, by: str, subresource: str = "", now: str = ONE) -> JSON:
    record_update(kind, old, new, writer(by, subresource, now))
    return new


def owned(tree: JSON, manager: str, operation: str = "") -> list[str]:
    """The paths that a manager owns."""
    return [
        path
        for entry in tree["metadata"]["managedFields"]
        if entry["manager"] == manager and operation in ("", entry["operation"])
        for path in sets.paths(entry["fieldsV1"])
    ]


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ALGEBRA = [
    pytest.param({"f:a": L}, {"f:b": L}, {"f:a": L, "f:b": L}, {"f:a": L}, {}, id="apart"),
    pytest.param({"f:a": L}, {"f:a": L}, {"f:a": L}, {}, {"f:a": L}, id="the same"),
    pytest.param({"f:a": {"f:x": L}}, {"f:a": {"f:y": L}}, {"f:a": {"f:x": L, "f:y": L}}, {"f:a": {"f:x": L}}, {},
                 id="neighbours"),
    pytest.param({"f:a": {".": L, "f:x": L}}, {"f:a": {"f:x": L}}, {"f:a": {".": L, "f:x": L}}, {"f:a": L},
                 {"f:a": {"f:x": L}}, id="the node itself is a member of its own"),
    pytest.param({"f:a": L}, {"f:a": {"f:x": L}}, {"f:a": {".": L, "f:x": L}}, {"f:a": L}, {},
                 id="a leaf is the node, not what is below"),
    pytest.param({}, {"f:a": L}, {"f:a": L}, {}, {}, id="the empty set"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "either", "alone", "both"), ALGEBRA)
def test_sets_of_fields_obey_their_algebra(one: JSON, other: JSON, either: JSON, alone: JSON, both: JSON) -> None:
    assert sets.union(one, other) == either == sets.union(other, one)
    assert sets.difference(one, other) == alone
    assert sets.intersection(one, other) == both == sets.intersection(other, one)


def test_paths_are_written_as_upstream_does() -> None:
    ports = {".": L, 'k:{"port":80,"protocol":"TCP"}': {".": L, "f:nodePort": L}}
    fields = {"f:spec": {"f:ports": ports, "f:type": L}, "f:metadata": {"f:finalizers": {'v:"x"': L}}}
    assert list(sets.paths(fields)) == [
        '.metadata.finalizers[="x"]',
        ".spec.ports",
        ".spec.type",
        '.spec.ports[port=80,protocol="TCP"]',
        '.spec.ports[port=80,protocol="TCP"].nodePort',
    ]


# ── who creates, who updates ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_creates_owns_what_is_there_and_no_identity() -> None:
    """As upstream shows a Service of `kubectl create`, down to the dots."""
    tree = created(SERVICE, service({"port": 80, "protocol": "TCP"}, labels={"a": "b"}, uid="1"), by="kubectl-create")
    assert tree["metadata"]["managedFields"] == [
        {
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "v1",
            "time": NOON,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": L, "f:a": L}},
                "f:spec": {
                    "f:ports": {
                        ".": L,
                        'k:{"port":80,"protocol":"TCP"}': {".": L, "f:port": L, "f:protocol": L},
                    }
                },
            },
        }
    ]


def test_a_pod_templates_containers_are_owned_one_by_one() -> None:
    container = {"name": "c", "image": "i", "resources": {}, "env": [{"name": "A", "value": "1"}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    tree = created(
        DEPLOYMENT, {"metadata": {}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    )
    assert tree["metadata"]["managedFields"][0]["fieldsV1"] == {
        "f:spec": {
            "f:selector": L,
            "f:template": {
                "f:metadata": {"f:labels": {".": L, "f:a": L}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {
                            ".": L,
                            "f:name": L,
                            "f:image": L,
                            "f:resources": L,
                            "f:env": {".": L, 'k:{"name":"A"}': {".": L, "f:name": L, "f:value": L}},
                        }
                    }
                },
            },
        }
    }


def test_an_update_takes_what_it_changes_and_nothing_else() -> None:
    old = created(SERVICE, service(labels={"a": "1", "b": "1"}))
    new = updated(SERVICE, old, service(labels={"a": "2", "b": "1", "c": "1"}), "other")
    assert owned(new, "maker") == [".metadata.labels", ".metadata.labels.b"]
    assert owned(new, "other") == [".metadata.labels.a", ".metadata.labels.c"]


def test_what_is_removed_is_nobodys() -> None:
    old = created(SERVICE, service({"port": 80, "name": "a"}, {"port": 81, "name": "b"}))
    new = updated(SERVICE, old, service({"port": 80, "name": "a"}), "other")
    assert [path for path in owned(new, "maker") if "81" in path] == []
    assert owned(new, "other") == []


def test_who_has_nothing_left_is_gone() -> None:
    old = created(SERVICE, service(labels={"a": "1"}))
    new = updated(SERVICE, old, service(), "other")
    assert "managedFields" not in new["metadata"]


def test_a_status_update_is_an_entry_of_its_own() -> None:
    """The same manager writes spec and status under two entries, and neither takes the other's half."""
    old = created(NODE, {"metadata": {}, "spec": {"podCIDR": "x"}}, by="agent")
    ready = {"type": "Ready", "status": "True"}
    new = updated(NODE, old, {"metadata": {}, "spec": {"podCIDR": "x"}, "status": {"conditions": [ready]}}, "agent",
                  subresource="status")  # fmt: skip
    entries = [(e.get("subresource", ""), e["fieldsV1"]) for e in new["metadata"]["managedFields"]]
    condition = {".": L, "f:status": L, "f:type": L}
    assert entries == [
        ("", {"f:spec": {"f:podCIDR": L}}),
        ("status", {"f:status": {"f:conditions": {".": L, 'k:{"type":"Ready"}': condition}}}),
    ]


def test_an_object_from_before_the_count_stays_uncounted_by_updates() -> None:
    new = updated(SERVICE, service(), service(labels={"a": "1"}), "other")
    assert "managedFields" not in new["metadata"]


def test_a_client_may_rewrite_or_reset_the_entries() -> None:
    """But not through a subresource, and not by sending none or nonsense."""
    old = created(SERVICE, service(labels={"a": "1"}))
    entry = old["metadata"]["managedFields"][0]
    renamed = entry | {"manager": "new"}
    kept = old["metadata"]["managedFields"]

    def sent(given: Any, subresource: str = "") -> Any:
        new = service(labels={"a": "1"}, managedFields=given)
        return updated(SERVICE, old, new, "other", subresource)["metadata"].get("managedFields")

    assert sent([renamed]) == [renamed]
    assert sent([{}]) is None
    assert sent([renamed], "status") == kept
    assert sent([{"manager": "x", "operation": "Guess"}]) == kept


def test_the_eleventh_updater_makes_the_oldest_ancient() -> None:
    tree = created(SERVICE, service())
    for number in range(12):
        labels = {f"l{n}": "x" for n in range(number + 1)}
        new = service(labels=labels, managedFields=tree["metadata"].get("managedFields"))
        if number == 0:
            tree = created(SERVICE, new, by="m0")
        else:
            tree = updated(SERVICE, tree, new, f"m{number}", now=f"2026-01-01T12:00:{number:02}Z")
    names = [entry["manager"] for entry in tree["metadata"]["managedFields"]]
    assert names == ["ancient-changes", *(f"m{n}" for n in range(3, 12))]
    assert owned(tree, "ancient-changes") == [f".metadata.labels{x}" for x in ("", ".l0", ".l1", ".l2")]


# ── apply ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def applied(live: JSON, config: JSON, by: str, *, force: bool = False, kind: Kind = SERVICE, sub: str = "") -> JSON:
    return apply(kind, live, config, writer(by, sub), force=force)


def test_what_a_manager_stops_applying_goes() -> None:
    live = applied({}, service({"port": 80}, {"port": 81}, labels={"a": "1", "b": "1"}), "one")
    live = applied(live, service({"port": 80}, labels={"a": "1"}), "one")
    assert live["spec"]["ports"] == [{"port": 80}]
    assert live["metadata"]["labels"] == {"a": "1"}


def test_what_others_also_applied_stays_and_is_theirs() -> None:
    live = applied({}, service({"port": 80, "name": "x"}), "one")
    live = applied(live, service({"port": 80}), "two")
    live = applied(live, service(labels={"a": "1"}), "one")
    assert live["spec"]["ports"] == [{"port": 80}], "the name was the first's alone"
    assert owned(live, "two") == ['.spec.ports[port=80,protocol="TCP"]', '.spec.ports[port=80,protocol="TCP"].port']


def test_what_the_server_filled_in_goes_with_its_item() -> None:
    live = applied({}, service({"port": 80}, {"port": 81}), "one")
    live["spec"]["ports"][1]["targetPort"] = 81
    live = applied(live, service({"port": 80}), "one")
    assert live["spec"]["ports"] == [{"port": 80}]


def test_an_item_in_which_another_owns_something_stays() -> None:
    live = applied({}, service({"port": 80}, {"port": 81}), "one")
    new = service({"port": 80}, {"port": 81, "nodePort": 30081})
    new["metadata"]["managedFields"] = live["metadata"]["managedFields"]
    live = updated(SERVICE, live, new, "other")
    live = applied(live, service({"port": 80}), "one")
    assert live["spec"]["ports"] == [{"port": 80}, {"port": 81, "nodePort": 30081}]


def test_a_key_left_out_has_its_default() -> None:
    """A port without a protocol is TCP's: it is the item that is there."""
    live = applied({}, service({"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}), "one")
    live = applied(live, service({"port": 53, "nodePort": 30053}), "two")
    assert live["spec"]["ports"] == [
        {"port": 53, "protocol": "UDP"},
        {"port": 53, "protocol": "TCP", "nodePort": 30053},
    ]


def test_sets_are_united_and_atomic_lists_replaced() -> None:
    live = applied({}, service(finalizers=["a/x"]) | {"spec": {"externalIPs": ["192.0.2.1"]}}, "one")
    live = applied(live, service(finalizers=["a/y"]), "two")
    assert sorted(live["metadata"]["finalizers"]) == ["a/x", "a/y"]
    with pytest.raises(Conflicts) as refused:
        applied(live, {"metadata": {}, "spec": {"externalIPs": ["192.0.2.2"]}}, "two")
    assert [path for _, path in refused.value.items()] == [".spec.externalIPs"]
    live = applied(live, service(), "one")
    assert live["metadata"]["finalizers"] == ["a/y"]


def test_an_atomic_map_is_owned_as_one() -> None:
    one = {"metadata": {}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}
    live = applied({}, one, "one", kind=DEPLOYMENT)
    assert owned(live, "one") == [".spec.selector"]


CONFLICTS = [
    pytest.param("kubectl-edit", "Update", 'conflict with "kubectl-edit" using v1', id="an updater: with its version"),
    pytest.param("helm", "Apply", 'conflict with "helm"', id="an applier: by name"),
]


@pytest.mark.parametrize(("manager", "operation", "said"), CONFLICTS)
def test_a_different_value_conflicts_and_force_takes_it(manager: str, operation: str, said: str) -> None:
    tree = service(labels={"a": "1", "b": "1"})
    live = created(SERVICE, tree, by=manager) if operation == "Update" else applied({}, tree, manager)
    with pytest.raises(Conflicts) as refused:
        applied(live, service(labels={"a": "2", "b": "1"}), "me")
    assert [f"conflict with {owner}" for owner, _ in refused.value.items()] == [said]
    assert [path for _, path in refused.value.items()] == [".metadata.labels.a"]
    live = applied(live, service(labels={"a": "2", "b": "1"}), "me", force=True)
    assert ".metadata.labels.a" not in owned(live, manager)
    assert ".metadata.labels.b" in owned(live, manager), "what both want, both own"
    assert owned(live, "me") == [".metadata.labels.a", ".metadata.labels.b"]


def test_the_same_value_is_no_conflict() -> None:
    live = created(SERVICE, service(labels={"a": "1"}))
    live = applied(live, service(labels={"a": "1"}), "me")
    assert owned(live, "maker") == [".metadata.labels", ".metadata.labels.a"]
    assert owned(live, "me") == [".metadata.labels.a"]


def test_an_apply_that_changes_nothing_keeps_its_time() -> None:
    config = service({"port": 80}, labels={"a": "1"})
    live = applied({}, config, "me")
    assert apply(SERVICE, live, config, writer("me", now=ONE), force=False) == live


def test_before_the_first_apply_all_belongs_to_one_who_can_be_named() -> None:
    live = service(labels={"a": "1"})
    with pytest.raises(Conflicts) as refused:
        applied(live, service(labels={"a": "2"}), "me")
    assert [str(owner) for owner, _ in refused.value.items()] == ['"before-first-apply" using v1']


def test_kubectl_takes_over_from_what_it_applied_on_the_clients_side() -> None:
    """From itself alone: another's change in between is a conflict, and so it is for another manager."""
    last = '{"metadata":{"labels":{"a":"1"}}}'
    live = created(
        SERVICE, service(labels={"a": "1"}, annotations={LAST_APPLIED: last}), by="kubectl-client-side-apply"
    )
    config = service(labels={"a": "2"})
    with pytest.raises(Conflicts):
        applied(live, config, "someone")
    found = applied(live, config, "kubectl")
    assert found["metadata"]["labels"] == {"a": "2"}
    assert '"a":"2"' in found["metadata"]["annotations"][LAST_APPLIED]
    with pytest.raises(Conflicts):
        applied(live, service(labels={"a": "2"}, annotations={LAST_APPLIED: "x"}), "kubectl")


def test_status_is_applied_through_its_subresource_alone() -> None:
    config = {"metadata": {}, "spec": {"type": "NodePort"}, "status": {"loadBalancer": {"ingress": [{"ip": "x"}]}}}
    live = applied(service({"port": 80}), config, "me", sub="status")
    assert "type" not in live["spec"]
    assert owned(live, "me") == [".status.loadBalancer.ingress"]
    assert owned(applied({}, config, "me"), "me") == [".spec.type"]


def test_a_null_takes_the_field_away() -> None:
    live = created(SERVICE, service(labels={"a": "1"}), by="me-too")
    live = applied(live, {"metadata": {"labels": {"a": None}}}, "me", force=True)
    assert live["metadata"]["labels"] == {}


def test_two_items_with_one_key_are_refused() -> None:
    with pytest.raises(Duplicate, match=r"\.spec\.ports: duplicate entries for key \[port=80,protocol=\"TCP\"\]"):
        applied({}, service({"port": 80}, {"port": 80, "protocol": "TCP"}), "me")


def test_order_follows_the_configuration_and_others_keep_their_neighbours() -> None:
    def pod(*names: str) -> JSON:
        return {"metadata": {}, "spec": {"containers": [{"name": name} for name in names]}}

    live = applied({}, pod("a", "side", "b"), "one", kind=POD)
    live = applied(live, pod("b", "a", "c"), "two", kind=POD)
    assert [c["name"] for c in live["spec"]["containers"]] == ["b", "a", "side", "c"]
