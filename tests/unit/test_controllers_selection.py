"""Which Services select a pod."""

from __future__ import annotations

import pytest

from kubesvc.controllers.selection import MANY_LABELS, Selectors

WEB, API, NONE, ELSEWHERE = ("default", "web"), ("default", "api"), ("default", "none"), ("other", "web")


@pytest.fixture
def selectors() -> Selectors:
    made = Selectors()
    made.add(WEB, {"app": "web"})
    made.add(API, {"app": "web", "tier": "api"})
    made.add(NONE, {})
    made.add(ELSEWHERE, {"app": "web"})
    return made


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"app": "web"}, {WEB}),
        ({"app": "web", "tier": "api", "hash": "x"}, {WEB, API}),
        ({"tier": "api"}, set()),
        ({}, set()),
        ({"app": "web"} | {f"l{i}": "x" for i in range(MANY_LABELS)}, {WEB}),
    ],
    ids=["one pair", "a superset is selected by both", "half a selector", "no labels", "many labels"],
)
def test_selecting(selectors: Selectors, labels: dict[str, str], expected: set[tuple[str, str]]) -> None:
    """The Services of the pod's own namespace whose whole selector is among the labels."""
    assert selectors.selecting("default", labels) == expected


def test_removed_services_select_nothing(selectors: Selectors) -> None:
    selectors.add(("default", "twin"), {"app": "web"})
    selectors.remove(WEB, {"app": "web"})
    assert selectors.selecting("default", {"app": "web"}) == {("default", "twin")}
    selectors.remove(("default", "twin"), {"app": "web"})
    selectors.remove(API, {"app": "web", "tier": "api"})
    selectors.remove(API, {"app": "web", "tier": "api"})
    assert selectors.selecting("default", {"app": "web", "tier": "api"}) == set()
