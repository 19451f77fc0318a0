"""Selectors as clients write them."""

import pytest

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import LabelSelector, LabelSelectorRequirement
from kubesvc.api.selectors import from_label_selector, matches, parse_field_selector, parse_label_selector

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app=db", False),
        ("app!=db", True),
        ("zone!=a", True),
        ("app", True),
        ("!app", False),
        ("!zone", True),
        ("app in (web, db)", True),
        ("app notin (web,db)", False),
        ("tier in (back),app=web", False),
        ("app=", False),
        ("example.com/x notin (y)", True),
    ],
)
def test_label_selectors_match_as_upstream(text, expected):
    """The grammar of apimachinery's labels package."""
    assert matches(parse_label_selector(text), LABELS) is expected


@pytest.mark.parametrize("text", ["app in web", "=x", "a=b=c", "(a)"])
def test_what_cannot_be_read_is_named(text):
    """A bad selector is a BadRequest that shows the part."""
    with pytest.raises(BadRequest, match="unable to parse requirement"):
        parse_label_selector(text)


def test_match_expressions_and_labels_must_all_hold():
    """A LabelSelector joins its two halves."""
    selector = from_label_selector(
        LabelSelector(
            match_labels={"app": "web"},
            match_expressions=[LabelSelectorRequirement(key="tier", operator="NotIn", values=["back"])],
        )
    )
    assert matches(selector, LABELS)
    assert not matches(selector, {"app": "web", "tier": "back"})


def test_an_unsupported_field_is_refused_by_name():
    """Upstream's words."""
    assert parse_field_selector("a.b=c,a.b!=d", {"a.b"}.__contains__)[1].equal is False
    with pytest.raises(BadRequest, match="field label not supported: x"):
        parse_field_selector("x=1", set().__contains__)
