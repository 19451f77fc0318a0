"""Provider gcp's pure parts: names, wishes, steps, and that the guide says the same."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest

from kubesvc.loadbalancer.providers.gcp import plan, wishes
from kubesvc.loadbalancer.providers.gcp.compare import matches
from kubesvc.loadbalancer.providers.gcp.names import LIMIT, service_name
from kubesvc.loadbalancer.providers.gcp.plan import Address
from kubesvc.loadbalancer.providers.gcp.resources import Found, Kind, Site, names_of
from kubesvc.loadbalancer.providers.gcp.wishes import ANNOTATIONS, Standing, Wish, wish_of
from support.gcp.model import NAME
from support.gcp.users import SITE, ports, service

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "gcp.md"


def wish(**spec: object) -> Wish:
    found = wish_of(service(**spec))
    assert isinstance(found, Wish)
    return found


def test_the_guides_table_is_the_tables_in_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (supported|ignored|rejected) \| (.+) \|$", GUIDE.read_text(), re.MULTILINE)
    assert rows == [(a.name, str(a.verdict), a.text) for a in ANNOTATIONS]


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda a: a.name)
def test_an_annotation_is_treated_as_the_table_says(annotation: wishes.Annotation) -> None:
    value = {wishes.TYPE: "Internal", wishes.OLD_TYPE: "Internal", wishes.RBS: "enabled", wishes.TIER: "Standard"}
    value |= {wishes.GLOBAL_ACCESS: "true", wishes.WEIGHTED: "pods-per-node", wishes.SOURCE_RANGES: "192.0.2.0/24"}
    annotations = {annotation.name: value.get(annotation.name, "x")}
    if annotation.name in (wishes.SUBNET, wishes.OLD_SUBNET, wishes.GLOBAL_ACCESS):
        annotations[wishes.TYPE] = "Internal"
    more = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}
    asks, bare = service(annotations=annotations, **more), service(**more)
    rejected = annotation.verdict is Standing.REJECTED
    assert isinstance(wish_of(asks), wishes.Refusal) is rejected
    assert bool(wishes.remarks(asks)) is (annotation.verdict is Standing.IGNORED)
    if annotation.verdict is Standing.SUPPORTED and annotation.name != wishes.RBS:  # which asks for what there is
        assert wish_of(asks) != wish_of(bare)


@pytest.mark.parametrize(
    ("annotations", "spec", "says"),
    [
        ({wishes.TIER: "Standard", wishes.TYPE: "Internal"}, {}, "no network tier"),
        ({wishes.SUBNET: "edge"}, {}, "for internal load balancers"),
        ({wishes.TYPE: "Internal"}, {"loadBalancerClass": wishes.EXTERNAL_CLASS}, "the class .* decides"),
        ({wishes.WEIGHTED: "pods-per-node"}, {}, "need externalTrafficPolicy Local"),
        ({"networking.gke.io/new": "x"}, {}, "isn't known here"),
        ({"example.com/other": "x", "kubesvc.dev/hostname": "a.example"}, {}, None),
    ],
)
def test_what_is_passed_over_is_said(annotations: dict[str, str], spec: dict[str, str], says: str | None) -> None:
    remarks = wishes.remarks(service(annotations=annotations, **spec))
    assert len(remarks) == (says is not None)
    assert says is None or re.search(says, remarks[0])


def test_names_are_the_clouds_and_a_services_own() -> None:
    long = service("n" * 63)
    names = names_of(SITE, long)
    every = [*names.rules, names.base, names.check, names.check_firewall, names.firewall, names.address]
    assert all(NAME.fullmatch(name) and len(name) <= LIMIT for name in every)
    assert len(set(every)) == len(every)
    assert service_name("test", service("a")) != service_name("test", service("b"))
    assert service_name("test", service("a")) != service_name("prod", service("a"))
    assert service_name("test", service("a")) == service_name("test", service("a"))


def verbs(*, found: Found, address: Address, **spec: object) -> list[str]:
    """`verb kind` of the steps, as if nothing changed between them."""
    steps = plan.ensure_steps(SITE, service(**spec), wish(**spec), address, found, ["europe-west1-b"])
    return [f"{step.verb} {step.kind}" for step in islice(steps, 20)]


def test_from_nothing_to_a_load_balancer() -> None:
    assert verbs(found=Found(), address=Address("", False)) == ["insert backendServices", "insert forwardingRules"]
    held = verbs(found=Found(), address=Address("", False), ports=ports("53", "53/UDP"))
    assert held == ["insert addresses", "insert backendServices", "insert forwardingRules", "insert forwardingRules"]


def test_a_rule_is_replaced_with_its_address_held_and_the_firewall_opened_before() -> None:
    names = names_of(SITE, service())
    rule = {"name": names.rules[1], "IPAddress": "192.0.2.1", "loadBalancingScheme": "EXTERNAL", "ports": ["80"]}
    found = Found({Kind.RULE: {names.rules[1]: rule}})
    assert verbs(found=found, address=Address("192.0.2.1", False), ports=ports("443")) == [
        "insert addresses",
        "insert backendServices",
        "insert firewalls",
        "delete forwardingRules",
        "insert forwardingRules",
    ]
    reserved = verbs(found=found, address=Address("192.0.2.1", True), ports=ports("443"))
    assert "insert addresses" not in reserved  # it is the user's: nobody can take it


def test_a_load_balancer_is_taken_down_from_the_front() -> None:
    names = names_of(SITE, service())
    found = Found(
        {
            Kind.ADDRESS: {names.address: {}, "user": {}},
            Kind.FIREWALL: {names.firewall: {}, names.check_firewall: {}, names.shared_firewall: {}},
            Kind.HEALTH_CHECK: {names.check: {}, names.shared_check: {}},
            Kind.BACKEND_SERVICE: {names.base: {}, "other": {}},
            Kind.RULE: {name: {} for name in names.rules},
        }
    )
    steps = list(plan.delete_steps(SITE, service(), found))
    assert [str(step.kind) for step in steps] == [
        *["forwardingRules"] * 3,
        "backendServices",
        "healthChecks",
        *["firewalls"] * 2,
        "addresses",
    ]
    assert {step.name for step in steps}.isdisjoint({"user", "other", names.shared_check, names.shared_firewall})


def test_what_is_shared_stays_while_somebody_refers_to_it() -> None:
    site = Site("shop", "europe-west1", "test")
    names = names_of(site, service())
    zone = f"europe-west1-b/{site.prefix}"
    backend = {
        "healthChecks": [f"https://x/compute/v1/{site.link(Kind.HEALTH_CHECK, names.shared_check)}"],
        "backends": [{"group": f"https://x/compute/v1/{site.link(Kind.GROUP, zone)}"}],
    }
    shared = {Kind.HEALTH_CHECK: {names.shared_check: {}}, Kind.GROUP: {zone: {}, "europe-west1-b/users-own": {}}}
    used = Found({**shared, Kind.BACKEND_SERVICE: {"other": backend}})
    assert list(plan.tidy_steps(site, used, [], used=False, check=False)) == []
    free = plan.tidy_steps(site, Found(shared), [], used=False, check=False)
    assert [(str(step.kind), step.name) for step in free] == [
        ("healthChecks", names.shared_check),
        ("instanceGroups", zone),
    ]


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ({"a": "projects/p/x"}, {"a": "https://host/compute/v1/projects/p/x", "b": 1}, True),
        ({"a": "projects/p/x"}, {"a": "projects/q/x"}, False),
        ({"a": ["1", "2"]}, {"a": ["2", "1"]}, True),
        ({"a": ["1"]}, {"a": ["1", "2"]}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, True),
        ({"a": []}, {}, True),
        ({"a": False}, {}, True),
        ({"a": True}, {}, False),
        ({"a": 5}, {"a": "5"}, True),
        ({"a": ["192.0.2.1"]}, {"a": ["192.0.2.1/32"]}, True),
    ],
)
def test_what_is_as_wanted(wanted: dict[str, object], found: dict[str, object], same: bool) -> None:
    assert matches(wanted, found) is same
