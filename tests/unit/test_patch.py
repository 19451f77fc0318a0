"""JSON patch and JSON merge patch."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import BadRequest, Invalid, UnsupportedMediaType
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver import patch

JSON = dict[str, Any]
TREE: JSON = {"metadata": {"name": "web", "labels": {"a/b": "x"}}, "spec": {"ports": [{"port": 80}, {"port": 81}]}}

_SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
_TREES = st.dictionaries(
    st.text("abc", max_size=2),
    st.recursive(
        _SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text("abc", max_size=2), x, max_size=3)
    ),
    max_size=3,
)


def apply(document: Any, content_type: str = patch.JSON_PATCH, tree: JSON = TREE) -> JSON:
    before = copy.deepcopy(tree)
    result = patch.apply(SERVICE, tree, json.dumps(document).encode(), content_type)
    assert tree == before, "the current tree is left alone"
    return result


@pytest.mark.parametrize(
    ("operations", "path", "expected"),
    [
        pytest.param([{"op": "add", "path": "/spec/type", "value": "NodePort"}], "spec.type", "NodePort", id="add"),
        pytest.param([{"op": "replace", "path": "/spec/ports/1/port", "value": 8}], "spec.ports",
                     [{"port": 80}, {"port": 8}], id="replace"),
        pytest.param([{"op": "remove", "path": "/spec/ports/0"}], "spec.ports", [{"port": 81}], id="remove"),
        pytest.param([{"op": "add", "path": "/spec/ports/-", "value": 1}], "spec.ports",
                     [{"port": 80}, {"port": 81}, 1],
                     id="append"),
        pytest.param([{"op": "add", "path": "/spec/ports/0", "value": 1}], "spec.ports",
                     [1, {"port": 80}, {"port": 81}],
                     id="insert"),
        pytest.param([{"op": "replace", "path": "/metadata/labels/a~1b", "value": "y"}], "metadata.labels",
                     {"a/b": "y"},
                     id="a slash in a name"),
        pytest.param([{"op": "move", "from": "/spec/ports/0", "path": "/spec/ports/1"}], "spec.ports",
                     [{"port": 81}, {"port": 80}], id="move"),
        pytest.param([{"op": "copy", "from": "/metadata/name", "path": "/spec/type"}], "spec.type", "web", id="copy"),
        pytest.param([{"op": "test", "path": "/metadata/name", "value": "web"},
                      {"op": "test", "path": "/spec/type", "value": None},
                      {"op": "add", "path": "/spec/type", "value": "X"}], "spec.type", "X", id="test, then do"),
    ],
)  # fmt: skip
def test_json_patch(operations: list[JSON], path: str, expected: Any) -> None:
    found: Any = apply(operations)
    for name in path.split("."):
        found = found[name]
    assert found == expected


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param({"op": "replace", "path": "/spec/type", "value": "x"}, id="replace what isn't there"),
        pytest.param({"op": "remove", "path": "/spec/ports/2"}, id="remove behind the end"),
        pytest.param({"op": "test", "path": "/metadata/name", "value": "other"}, id="a test that fails"),
        pytest.param({"op": "add", "path": "/a/b", "value": 1}, id="add below nothing"),
        pytest.param({"op": "swap", "path": "/a"}, id="an unknown operation"),
        pytest.param({"op": "add", "path": "/spec/type"}, id="no value"),
        pytest.param({"op": "remove", "path": ""}, id="everything"),
    ],
)
def test_a_json_patch_that_cannot_be_done_is_invalid(operation: JSON) -> None:
    """Without details: kubectl would show the kind, the name, and causes without a field."""
    with pytest.raises(Invalid, match=r'the patch of Service "\w+": ') as raised:
        apply([operation])
    assert raised.value.details is None


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        pytest.param(b"{", patch.MERGE_PATCH, "truncated", id="not JSON"),
        pytest.param(b'"x"', patch.MERGE_PATCH, "expected an object, found string", id="a merge patch is an object"),
        pytest.param(b"{}", patch.JSON_PATCH, "a JSON patch is a list of operations", id="a JSON patch is a list"),
    ],
)
def test_a_body_that_is_no_patch_is_a_bad_request(body: bytes, content_type: str, why: str) -> None:
    with pytest.raises(BadRequest, match=f"error decoding patch: .*{why}"):
        patch.apply(SERVICE, TREE, body, content_type)


def test_another_content_type_is_refused_with_those_accepted() -> None:
    with pytest.raises(UnsupportedMediaType, match="application/strategic-merge-patch"):
        patch.apply(SERVICE, TREE, b"{}", "application/json")


# ── RFC 7386, appendix A ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tree", "document", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(tree: JSON, document: JSON, expected: JSON) -> None:
    assert apply(document, patch.MERGE_PATCH, tree) == expected


@given(_TREES, _TREES)
def test_a_merge_patch_twice_is_the_same_as_once(tree: JSON, document: JSON) -> None:
    once = apply(document, patch.MERGE_PATCH, tree)
    assert apply(document, patch.MERGE_PATCH, once) == once


@given(_TREES)
def test_an_empty_merge_patch_changes_nothing(tree: JSON) -> None:
    assert apply({}, patch.MERGE_PATCH, tree) == tree


@given(_TREES, _TREES)
def test_a_replacement_of_the_root_is_that_tree(tree: JSON, other: JSON) -> None:
    assert apply([{"op": "replace", "path": "", "value": other}], patch.JSON_PATCH, tree) == other
